import t from 'tap'
import type { AgentView } from '../../src/api/agent-operations.js'
import { flush, mirror } from '../fixtures/agent.js'
import { fio } from '../fixtures/fio.js'
import { command, difference, farPath, twoSites } from '../fixtures/sites.js'
import { stampWrite } from '../fixtures/stamp.js'

const sites = await twoSites(t)
const { source, destination, folder } = sites

t.test('source and destination are equal after flush --wait, whatever fio did', async (t) => {
  const { device } = await source.volume(folder, 'busy', '96MiB')
  await fio(device, { rw: 'randwrite', bs: '64k', size: '32m' })
  await mirror(source, 'busy', ['busy'])
  t.equal(await difference(device, await farPath(sites, 'busy')), '', 'what was there before')
  const jobs: Record<string, string | number | true>[] = [
    { rw: 'randwrite', bs: '4k', time_based: true, runtime: 4, size: '64m', rate_iops: 2000 },
    { rw: 'randrw', bssplit: '512/20:4k/40:64k/30:1m/10', time_based: true, runtime: 4, size: '64m', rate: '12m' },
    { rw: 'randtrimwrite', bs: '64k', io_size: '32m', size: '64m' },
  ]
  for (const job of jobs) {
    const result = await fio(device, job)
    t.equal(result.errors, 0, result.errors ? result.output : `fio ${job.rw}`)
    await flush(source, 'busy')
    t.equal(await difference(device, await farPath(sites, 'busy')), '', `equal after ${job.rw}`)
  }
  const status = await source.streamStatus('busy')
  t.match(status, { state: 'replicating', waitingBytes: 0, oldestUnsentSeconds: 0, lsn: {} })
  t.ok(status.counters.rawBytes > 0 && status.counters.sentBytes > 0 && status.counters.compressedBytes > 0)
  await source.cli('stream', 'remove', 'busy')
})

t.test('1,000 rewrites of one block send one block', async (t) => {
  const { device } = await source.volume(folder, 'hot', '16MiB')
  await mirror(source, 'hot', ['hot'], '10m')
  await flush(source, 'hot')
  const before = (await source.streamStatus('hot')).counters
  await stampWrite(device, `${folder}/hot.log`, { writes: 1000, blocks: 1 })
  await flush(source, 'hot')
  const after = (await source.streamStatus('hot')).counters
  t.equal(after.rawBytes - before.rawBytes, 1000 * 4096)
  t.equal(after.foldedBytes - before.foldedBytes, 999 * 4096)
  t.ok(after.compressedBytes - before.compressedBytes <= 4096, 'one block of payload')
  t.ok(after.sentBytes - before.sentBytes < 64 * 1024, `sent ${after.sentBytes - before.sentBytes} bytes`)
  t.equal(await difference(device, await farPath(sites, 'hot')), '')
})

t.test('a block written again as it was does not cross', async (t) => {
  const { device } = await source.volume(folder, 'same', '16MiB')
  await mirror(source, 'same', ['same'], '10m')
  await command('dd', 'if=/dev/urandom', `of=${folder}/content`, 'bs=64k', 'count=1', 'status=none')
  const copyOnto = () =>
    command(
      'dd',
      `if=${folder}/content`,
      `of=${device}`,
      'bs=64k',
      'count=1',
      'oflag=direct',
      'conv=fsync',
      'status=none',
    )
  await copyOnto()
  await flush(source, 'same')
  const before = (await source.streamStatus('same')).counters
  await copyOnto()
  await flush(source, 'same')
  const after = (await source.streamStatus('same')).counters
  t.equal(after.identicalBytes - before.identicalBytes, 65536)
  t.equal(await difference(device, await farPath(sites, 'same')), '')
})

t.test('overlapping writes in flight from several threads end the same on both sides', async (t) => {
  const { device } = await source.volume(folder, 'overlap', '16MiB')
  await mirror(source, 'overlap', ['overlap'])
  const run = await stampWrite(device, `${folder}/overlap.log`, {
    threads: 8,
    seconds: 5,
    blocks: 48,
    sizes: '4096-65536',
    overlap: true,
  })
  t.ok(run.errno === 0 && run.writes > 500, `${run.writes} writes`)
  await flush(source, 'overlap')
  t.equal(await difference(device, await farPath(sites, 'overlap')), '')
})

t.test('no host write enters JavaScript in steady state', async (t) => {
  const calls = async () => (await source.cli<AgentView>('agent', 'show')).javascriptCalls
  const { device } = await source.volume(folder, 'plain', '64MiB')
  const measure = async (job: Record<string, string | number | true>) => {
    const before = await calls()
    const { writtenBytes } = await fio(device, { rw: 'randwrite', bs: '4k', size: '64m', ...job })
    return { calls: (await calls()) - before, writes: writtenBytes / 4096 }
  }
  const alone = await measure({ io_size: '64m' })
  t.ok(alone.writes >= 16000 && alone.calls < 100, `without a stream: ${alone.calls} calls for ${alone.writes} writes`)
  await mirror(source, 'plain', ['plain'], '1s')
  const streamed = await measure({ io_size: '64m' })
  // Epochs call (syncs, cuts), writes do not: a hundredth of the writes would be far too many.
  t.ok(streamed.calls < streamed.writes / 100, `with a stream: ${streamed.calls} calls for ${streamed.writes} writes`)
  await source.cli('stream', 'remove', 'plain')
})

t.test('a volume that is in no stream makes no traffic and nothing of it arrives', async (t) => {
  const { device } = await source.volume(folder, 'private', '16MiB')
  const before = (await source.streamStatus('hot')).counters
  await command('dd', 'if=/dev/urandom', `of=${device}`, 'bs=1M', 'count=8', 'oflag=direct', 'status=none')
  await flush(source, 'hot')
  const after = (await source.streamStatus('hot')).counters
  t.equal(after.rawBytes, before.rawBytes)
  t.ok(after.sentBytes - before.sentBytes < 16384)
  const names = (await destination.cli<{ volumes: { name: string }[] }[]>('inbound', 'list')).flatMap((view) =>
    view.volumes.map(({ name }) => name),
  )
  t.notOk(names.includes('private'))
  t.equal(await command('find', source.state, '-path', '*private*', '-name', '*.seg'), '', 'it has no journal')
})
