/** Thin on both sides: what crosses is what is allocated, and what is freed here is freed there. */
import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { PoolView, VolumeView } from '../../src/api/agent-operations.js'
import { MiB } from '../../src/block/units.js'
import { type Agent, flush, mirror } from '../fixtures/agent.js'
import { fio } from '../fixtures/fio.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { command, difference, farPath } from '../fixtures/sites.js'
import { farPool, farVolume, poolFacts, sourcePool, thinVolume, twoThinSites } from '../fixtures/thin-sites.js'

const unitBytes = 8 * MiB
const sites = await twoThinSites(t)
const { source, destination, folder } = sites

/** Freed space comes back in the background. */
function poolWhen(agent: Agent, pool: string, holds: (view: PoolView) => boolean): Promise<PoolView> {
  return agent.until(() => poolFacts(agent, pool), holds, 30_000)
}

t.test('both sides are equal whatever fio did, trims and zeros included', async (t) => {
  const device = await thinVolume(source, 'thin-busy', '512MiB')
  await fio(device, { rw: 'randwrite', bs: '64k', size: '32m' })
  await mirror(source, 'thin-busy', ['thin-busy'])
  t.equal(await difference(device, await farPath(sites, 'thin-busy')), '', 'what was there before')
  const jobs: Record<string, string | number | true>[] = [
    { rw: 'randwrite', bs: '4k', time_based: true, runtime: 4, size: '64m', rate_iops: 2000 },
    { rw: 'randrw', bssplit: '512/20:4k/40:64k/30:1m/10', time_based: true, runtime: 4, size: '64m', rate: '12m' },
    { rw: 'randtrimwrite', bs: '64k', io_size: '32m', size: '64m' },
    { rw: 'write', bs: '256k', size: '16m', zero_buffers: true },
  ]
  for (const job of jobs) {
    const result = await fio(device, job)
    t.equal(result.errors, 0, result.errors ? result.output : `fio ${job.rw}`)
    await flush(source, 'thin-busy')
    t.equal(await difference(device, await farPath(sites, 'thin-busy')), '', `equal after ${job.rw}`)
  }
  t.match(await source.streamStatus('thin-busy'), { state: 'replicating', waitingBytes: 0 })
  await source.cli('stream', 'remove', 'thin-busy')
})

t.test('only allocated blocks cross, and they take no more space there than here', async (t) => {
  const device = await thinVolume(source, 'thin-sparse', '64GiB')
  for (const [offset, count] of [
    ['0', '4'],
    ['40960', '3'],
  ]) {
    execFileSync('dd', [
      'if=/dev/urandom',
      `of=${device}`,
      'bs=1M',
      `count=${count}`,
      `seek=${offset}`,
      'oflag=direct',
      'status=none',
    ])
  }
  const before = await poolFacts(destination, farPool)
  const started = performance.now()
  await mirror(source, 'thin-sparse', ['thin-sparse'])
  t.comment(`64 GiB with 7 MiB of data: ${Math.round(performance.now() - started)} ms`)
  const { counters } = await source.streamStatus('thin-sparse')
  t.ok(counters.sentBytes < 8 * MiB, `${counters.sentBytes} bytes crossed`)
  const after = await poolFacts(destination, farPool)
  t.equal(after.mappedBytes - before.mappedBytes, 7 * MiB)
  t.ok(after.allocatedBytes - before.allocatedBytes <= 2 * unitBytes)
  const name = await farVolume(sites, 'thin-sparse')
  t.equal(name, 'thin-sparse.thin-sparse')
  t.match(await destination.cli<VolumeView>('volume', 'show', name), { role: 'inbound', sizeBytes: 64 * 1024 * MiB })
  const far = await farPath(sites, 'thin-sparse')
  for (const skip of ['0', '40960']) {
    const read = ['bs=1M', 'count=8', `skip=${skip}`, 'iflag=direct', 'status=none']
    const [here, there] = [device, far].map((path) =>
      execFileSync('dd', [`if=${path}`, ...read], { maxBuffer: 2 ** 25 }),
    )
    t.ok(here!.equals(there!), `the same at ${skip} MiB`)
  }
  await source.cli('stream', 'remove', 'thin-sparse')
})

t.test('fstrim after deleting files shrinks the pool here, and there', async (t) => {
  const device = await thinVolume(source, 'thin-files', '1GiB')
  await command('mkfs.ext4', '-q', device)
  const mounted = join(folder, 'files-mounted')
  mkdirSync(mounted)
  remember({ kind: 'mount', path: mounted })
  await command('mount', device, mounted)
  await mirror(source, 'thin-files', ['thin-files'])
  await flush(source, 'thin-files')
  const [near, far] = [await poolFacts(source, sourcePool), await poolFacts(destination, farPool)]
  await command('dd', 'if=/dev/urandom', `of=${mounted}/big`, 'bs=1M', 'count=200', 'conv=fsync', 'status=none')
  await flush(source, 'thin-files')
  const [nearFull, farFull] = [await poolFacts(source, sourcePool), await poolFacts(destination, farPool)]
  t.ok(nearFull.mappedBytes - near.mappedBytes >= 200 * MiB, 'the source holds it')
  t.ok(farFull.mappedBytes - far.mappedBytes >= 200 * MiB, 'the destination holds it')
  await command('rm', `${mounted}/big`)
  await command('sync', '-f', mounted)
  await command('fstrim', mounted)
  await flush(source, 'thin-files')
  const slack = 4 * MiB
  await poolWhen(source, sourcePool, ({ mappedBytes }) => mappedBytes <= near.mappedBytes + slack)
  const farAfter = await poolWhen(destination, farPool, ({ mappedBytes }) => mappedBytes <= far.mappedBytes + slack)
  t.ok(farAfter.allocatedBytes < farFull.allocatedBytes - 20 * unitBytes, 'whole units come back')
  await command('umount', mounted)
  forget({ kind: 'mount', path: mounted })
  await flush(source, 'thin-files')
  t.equal(await difference(device, await farPath(sites, 'thin-files')), '')
})
