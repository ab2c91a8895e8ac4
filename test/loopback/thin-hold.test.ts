/** What is to appear at once and does not fit; and a destination whose pool comes late. */
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { VolumeView } from '../../src/api/agent-operations.js'
import { flush, mirror } from '../fixtures/agent.js'
import { difference, farPath } from '../fixtures/sites.js'
import { createPool, farPool, farVolume, thinVolume, twoThinSites } from '../fixtures/thin-sites.js'

const sites = await twoThinSites(t, { sourceConfig: 'buffer:\n  limit: 16MiB\n', withoutFarPool: true, via: 'folder' })
const { source, destination, folder } = sites

function writeRandom(device: string, countMiB: number): void {
  const what = ['if=/dev/urandom', `of=${device}`, 'bs=1M', `count=${countMiB}`, 'oflag=direct', 'conv=notrunc']
  execFileSync('dd', [...what, 'status=none'])
}

t.test('what arrives waits for the pool of the destination, and says so', async (t) => {
  const device = await thinVolume(source, 'hold-early', '64MiB')
  writeRandom(device, 4)
  await source.cli(
    'stream',
    'create',
    'hold-early',
    '--volume',
    'hold-early',
    '--destination',
    'far',
    '--epoch',
    '200ms',
  )
  await source.cli('stream', 'initialize', 'hold-early')
  await destination.until(
    () => destination.events(),
    (events) => events.some(({ code }) => code === 'POOL_MISSING'),
  )
  t.match(
    await source.until(
      () => source.streamStatus('hold-early'),
      ({ reason }) => reason.includes('POOL_MISSING'),
    ),
    { state: 'waiting' },
  )
  await createPool(destination, folder, farPool)
  await flush(source, 'hold-early')
  t.equal(await difference(device, await farPath(sites, 'hold-early')), '')
})

t.test(
  'another pool is named for what arrives: a stream goes on where it is, and begins anew in that one',
  async (t) => {
    const { device } = await source.get<VolumeView>('volumes', 'hold-early')
    await createPool(destination, folder, 'far-pool-2')
    await destination.terminate()
    writeFileSync(join(folder, 'destination.yaml'), 'inbound:\n  pool: far-pool-2\n')
    await destination.start()
    const arrivesIn = async (): Promise<(string | null)[]> => {
      writeRandom(device!, 4)
      await flush(source, 'hold-early')
      t.equal(await difference(device!, await farPath(sites, 'hold-early')), '')
      const volume = await farVolume(sites, 'hold-early')
      return [volume, (await destination.get<VolumeView>('volumes', volume)).pool]
    }
    t.same(await arrivesIn(), ['hold-early.hold-early', farPool])
    await source.cli('stream', 'initialize', 'hold-early', '--wait')
    t.same(await arrivesIn(), ['hold-early.hold-early-2', 'far-pool-2'])
    await destination.cli('volume', 'remove', 'hold-early.hold-early', '--yes')
    await destination.cli('inbound', 'remove', 'hold-early', '--yes')
    const { volumes } = await destination.cli<{ volumes: unknown[] }>('pool', 'show', 'far-pool-2')
    t.same(volumes, [])
  },
)

t.test('a refresh that the source buffer cannot hold crosses in several epochs, and an event says so', async (t) => {
  const device = await thinVolume(source, 'hold-db', '256MiB')
  writeRandom(device, 8)
  await source.cli('clone', 'create', 'hold-db', 'hold-copy', '--full', '--wait')
  await mirror(source, 'hold-gold', ['hold-copy'])
  writeRandom(device, 160)
  await source.cli('clone', 'refresh', 'hold-copy', '--wait')
  await flush(source, 'hold-gold')
  t.ok((await source.events()).some(({ code, object }) => code === 'EPOCH_SPLIT' && object === 'hold-gold'))
  t.equal(await difference(device, await farPath(sites, 'hold-gold')), '')
  t.match(await source.streamStatus('hold-gold'), { state: 'replicating', waitingBytes: 0 })
  const before = (await source.events()).length
  writeRandom(device, 4)
  await source.cli('clone', 'refresh', 'hold-copy', '--wait')
  await flush(source, 'hold-gold')
  t.equal(await difference(device, await farPath(sites, 'hold-gold')), '', 'and the next one goes as it should')
  const since = (await source.events()).slice(before)
  t.notOk(since.some(({ code }) => code === 'EPOCH_SPLIT'))
})
