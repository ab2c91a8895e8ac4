/** What arrives in a pool: its snapshots, its read-only device, and how a new generation takes its place. */
import { join } from 'node:path'
import t from 'tap'
import type { StreamView, VolumeView } from '../../src/api/agent-operations.js'
import { delay, flush, mirror } from '../fixtures/agent.js'
import { command, difference, farPath } from '../fixtures/sites.js'
import { stampClock, stampVerify, startStamp } from '../fixtures/stamp.js'
import { farVolume, thinVolume, twoThinSites, withSnapshot } from '../fixtures/thin-sites.js'

const sites = await twoThinSites(t)
const { source, destination, folder } = sites

t.test('a snapshot there, taken under load, is a moment of the source; the live device is read-only', async (t) => {
  const device = await thinVolume(source, 'thin-stamped', '64MiB')
  const log = join(folder, 'thin-stamped.log')
  await mirror(source, 'thin-stamped', ['thin-stamped'], '150ms')
  const writer = startStamp(device, log, { threads: 4, sizes: '512-65536', rate: 250, seconds: 600, seed: 7 })
  t.teardown(() => writer.stop().catch(() => undefined))
  const far = await farVolume(sites, 'thin-stamped')
  // Its first write waits for a journal.
  while (stampClock(log) < 20) await delay(20)
  let last = 0
  for (let round = 0; round < 4; round++) {
    const before = stampClock(log)
    await flush(source, 'thin-stamped')
    await destination.cli('snapshot', 'create', far, `s${round}`)
    const verdict = await withSnapshot(destination, far, `s${round}`, (path) =>
      stampVerify(path, log, { requireBefore: before }),
    )
    t.ok(verdict.ok, JSON.stringify(verdict))
    t.ok(verdict.n > last, `it moves on: ${last} to ${verdict.n}`)
    last = verdict.n
  }
  const { device: live } = await destination.cli<VolumeView>('volume', 'attach', far)
  await t.rejects(command('dd', 'if=/dev/zero', `of=${live}`, 'bs=4k', 'count=1', 'oflag=direct'), 'not to be written')
  await destination.cli('volume', 'detach', far)
  t.equal((await writer.stop()).errno, 0)
  await flush(source, 'thin-stamped')
  t.match(stampVerify(await farPath(sites, 'thin-stamped'), log, { requireAll: true }), { ok: true, behind: 0 })
})

t.test('a new generation takes the place of the old one, whose snapshots stay', async (t) => {
  const far = await farVolume(sites, 'thin-stamped')
  const kept = (await destination.cli<{ name: string }[]>('snapshot', 'list', far)).map(({ name }) => name)
  t.ok(kept.includes('s0'))
  const before = await withSnapshot(destination, far, 's0', (device) => command('md5sum', device))
  const { device } = await source.cli<VolumeView>('volume', 'show', 'thin-stamped')
  await command('dd', 'if=/dev/urandom', `of=${device}`, 'bs=1M', 'count=8', 'oflag=direct', 'status=none')
  await source.cli('stream', 'initialize', 'thin-stamped', '--wait')
  await flush(source, 'thin-stamped')
  t.equal(await farVolume(sites, 'thin-stamped'), far)
  t.equal(await difference(device!, await farPath(sites, 'thin-stamped')), '')
  const names = (await destination.cli<{ name: string }[]>('snapshot', 'list', far)).map(({ name }) => name)
  t.same(names, kept)
  const after = await withSnapshot(destination, far, 's0', (path) => command('md5sum', path))
  t.equal(after.split(' ')[0], before.split(' ')[0])
  const volumes = await destination.cli<VolumeView[]>('volume', 'list')
  t.notOk(
    volumes.some(({ name }) => name.includes('incoming')),
    'nothing of the change is left',
  )
})

t.test('the destination forgets a stream and its copy, and its source is told and may begin again', async (t) => {
  const far = await farVolume(sites, 'thin-stamped')
  const snapshots = (await destination.cli<{ name: string }[]>('snapshot', 'list', far)).map(({ name }) => name)
  const refusal = async (...command: string[]) => (await destination.run('inbound', 'remove', ...command)).errorCode
  t.equal(await refusal('thin-stamped', '--yes'), 'HAS_SNAPSHOTS')
  // One that was written to, as in a test of the far side, goes like the others.
  const { device: written } = await destination.cli<VolumeView>('volume', 'attach', `${far}@${snapshots[0]}`)
  await command('dd', 'if=/dev/urandom', `of=${written}`, 'bs=1M', 'count=1', 'oflag=direct', 'status=none')
  await destination.cli('volume', 'detach', `${far}@${snapshots[0]}`)
  await Promise.all(snapshots.map((name) => destination.cli('snapshot', 'remove', far, name)))
  await destination.cli('volume', 'attach', far)
  t.equal(await refusal('thin-stamped', '--yes'), 'VOLUME_ATTACHED')
  await destination.cli('volume', 'detach', far)
  t.equal(await refusal('thin-stamped'), 'CONFIRMATION_NEEDED')
  t.equal(await refusal('nobody', '--yes'), 'NO_SUCH_STREAM')
  await destination.cli('inbound', 'remove', 'thin-stamped', '--yes')
  t.same(await destination.get('inbound'), [])
  t.notOk((await destination.get<VolumeView[]>('volumes')).some(({ name }) => name === far))
  const { device } = await source.cli<VolumeView>('volume', 'show', 'thin-stamped')
  await command('dd', 'if=/dev/urandom', `of=${device}`, 'bs=1M', 'count=1', 'oflag=direct', 'status=none')
  await source.until(
    () => source.get<StreamView>('streams', 'thin-stamped'),
    ({ reason }) => /STREAM_REMOVED/.test(reason),
  )
  t.same(await destination.get('inbound'), [], 'what it still sends makes no copy')
  await source.cli('stream', 'initialize', 'thin-stamped', '--wait')
  await flush(source, 'thin-stamped')
  t.equal(await farVolume(sites, 'thin-stamped'), far)
  t.equal(await difference(device!, await farPath(sites, 'thin-stamped')), '')
})
