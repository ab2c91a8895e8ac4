/** The disk below a volume hangs while it is copied: whoever reads it waits in the kernel. Other streams do not. */
import { existsSync } from 'node:fs'
import t from 'tap'
import { MiB } from '../../src/block/units.js'
import { Agent, delay, flush, mirror, pair } from '../fixtures/agent.js'
import { badDisk } from '../fixtures/bad-disk.js'
import { workersOf } from '../fixtures/inject.js'
import { scratchFolder } from '../fixtures/paths.js'
import { command, difference, farPath } from '../fixtures/sites.js'

/** A stream that hangs is found after half a minute; what waited behind it is asked again. */
const boundMs = 90_000
const cold = 'hung-volume'
const well = 'hung-volume-well'

const folder = scratchFolder(t, cold)
const disk = await badDisk(t, folder, 'disk', 384 * MiB)
const source = await Agent.start(t, folder, 'source')
const destination = await Agent.start(t, folder, 'destination')
const sites = { folder, source, destination }
// Runs before the agents end: one that waits for the disk cannot.
t.teardown(() => disk.goOn())
await pair(source, destination, { via: 'https' })
const { device } = await source.volume(folder, well, '32MiB')
await mirror(source, well, [well])
await command('dd', 'if=/dev/urandom', `of=${disk.device}`, 'bs=1M', 'count=384', 'oflag=direct', 'iflag=fullblock')
await source.cli('volume', 'adopt', cold, '--path', disk.device)

const write = (): Promise<string> =>
  command('dd', 'if=/dev/urandom', `of=${device}`, 'bs=1M', 'count=4', 'oflag=direct', 'conv=fsync')
const copied = async (): Promise<number> => (await source.streamStatus(cold)).initialize?.doneBytes ?? 0

t.test('one stream waits for its disk and says so, the others go on, and it ends its copy by itself', async (t) => {
  await source.cli('stream', 'create', cold, '--volume', cold, '--destination', 'far')
  await source.cli('stream', 'initialize', cold)
  disk.hang()
  for (let round = 0; round < 3; round++) {
    await write()
    const from = performance.now()
    const flushed = flush(source, well).then(() => 'flushed')
    t.equal(await Promise.race([flushed, delay(boundMs).then(() => 'it waits')]), 'flushed')
    t.comment(`flushed in ${Math.round(performance.now() - from)} ms`)
    t.equal(await difference(device, await farPath(sites, well)), '', 'both sides are equal')
  }
  const { reason, state } = await source.streamStatus(cold)
  t.match(reason, /DISK_HANGS/, state)
  const before = await copied()
  await delay(12_000)
  t.equal(await copied(), before, 'nothing of it is copied')

  disk.goOn()
  await source.until(
    () => source.streamStatus(cold),
    ({ state }) => state === 'replicating',
    120_000,
  )
  t.equal(await difference(disk.device, await farPath(sites, cold)), '', 'both sides are equal')
  const told = (await source.events()).filter(({ code, object }) => code === 'DISK_HANGS' && object === cold)
  t.equal(told.length, 1, 'one event')
})

t.test('an agent that is killed meanwhile keeps no other from beginning', async (t) => {
  // Compared with the far side: the whole volume is read.
  await command('blockdev', '--flushbufs', disk.device)
  await source.cli('stream', 'verify', cold)
  disk.hang()
  await delay(3_000)
  const hung = workersOf(source.pid, 'pack-worker')
  // Not agent.kill(): what hangs keeps the pipe to this test open.
  process.kill(source.pid, 'SIGKILL')
  await source.until(
    async () => source.running,
    (running) => !running,
  )
  const from = performance.now()
  const started = source.start().then(() => 'started')
  t.equal(await Promise.race([started, delay(30_000).then(() => 'it waits')]), 'started')
  t.ok(
    hung.some((pid) => existsSync(`/proc/${pid}`)),
    'a worker of the one before is still held in the kernel',
  )
  disk.goOn()
  await started
  t.comment(`started after ${Math.round(performance.now() - from)} ms`)
  await write()
  await flush(source, well)
  t.equal(await difference(device, await farPath(sites, well)), '')
  await source.until(
    () => source.streamStatus(cold),
    ({ verify }) => verify?.state === 'equal',
    120_000,
  )
})
