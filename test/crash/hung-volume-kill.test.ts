/**
 * The disk below one volume hangs, and then its agent is killed. The kernel holds a thread of it until the disk answers, so no
 * other agent can begin; hosts of its other volumes wait that long, and get no error.
 */
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { MiB } from '../../src/block/units.js'
import { Agent, delay } from '../fixtures/agent.js'
import { badDisk } from '../fixtures/bad-disk.js'
import { keptDevices } from '../fixtures/keeper.js'
import { remember } from '../fixtures/leftovers.js'
import { scratchFolder } from '../fixtures/paths.js'
import { command } from '../fixtures/sites.js'
import { stampVerify, startStamp } from '../fixtures/stamp.js'

/** A keeper that takes an agent for one which waits for itself ends its devices after 30 s. */
const surelyMs = 45_000
const cold = 'hung-kill'
const well = 'hung-kill-well'

const folder = scratchFolder(t, cold)
const disk = await badDisk(t, folder, 'disk', 64 * MiB)
const source = await Agent.start(t, folder, 'source')
const next = new Agent(folder, 'source')
const later = Array.from({ length: 6 }, () => new Agent(folder, 'source'))
for (const agent of [next, ...later]) t.teardown(() => agent.stop())
// Runs before the agents end: one that waits for the disk cannot.
t.teardown(() => disk.goOn())
const { device } = await source.volume(folder, well, '32MiB')
await source.cli('volume', 'adopt', cold, '--path', disk.device)
const { device: coldDevice } = await source.cli<{ device: string }>('volume', 'attach', cold)

/** The names of its threads that wait in the kernel for a disk; none when it is gone. */
function heldThreads(pid: number): string[] {
  const folder = `/proc/${pid}/task`
  if (!existsSync(folder)) return []
  return readdirSync(folder)
    .map((tid) => /\((.*)\) D /.exec(readFileSync(join(folder, tid, 'stat'), 'latin1'))?.[1])
    .filter((name) => name !== undefined)
}

const ends = {
  'in a flush': ['if=/dev/zero', 'bs=4k', 'count=1', 'conv=notrunc,fsync'],
  'in a read': ['iflag=direct', 'of=/dev/null', 'bs=4k', 'count=1'],
}

t.test('an agent that is killed while a disk hangs ends no host of another disk', async (t) => {
  const log = join(folder, 'stamps.log')
  const writer = startStamp(device, log, {
    threads: 2,
    sizes: '512-65536',
    rate: 100,
    seconds: 600,
    fsyncEvery: 10,
    seed: 3,
  })
  let ended = false
  void writer.ended.then(() => {
    ended = true
  })
  await delay(1000)
  disk.hang()
  const hosts = [
    spawn('dd', [...ends['in a flush'], `of=${coldDevice}`], { stdio: 'ignore' }),
    spawn('dd', [...ends['in a read'], `if=${coldDevice}`], { stdio: 'ignore' }),
  ].map((child) => new Promise((resolve) => child.once('close', resolve)))
  // Others wait for their disk for a moment.
  await source.until(async () => heldThreads(source.pid).some((name) => /^tm\w+ hung-kill$/.test(name)), Boolean)
  const { pid } = source
  process.kill(pid, 'SIGKILL')
  const begun = next.start().then(
    () => 'begun',
    (error) => String(error),
  )
  await delay(surelyMs)
  t.ok(heldThreads(pid).length > 0, 'a thread of the dead agent is held in the kernel')
  t.notOk(ended, 'the host of the other disk waits')
  t.match(await keptDevices(source), { [cold]: 'waits', [well]: 'waits' })

  disk.goOn()
  t.equal(await begun, 'begun')
  for (const ended of hosts) t.equal(await ended, 0, 'the host of the disk that hung has seen nothing')
  await delay(2000)
  const run = await writer.stop()
  t.equal(run.errno, 0, `the other host has seen nothing in ${run.writes} writes`)
  t.match(stampVerify(device, log, { requireAll: true }), { ok: true })
  await command('blockdev', '--flushbufs', coldDevice)
})

t.test('an agent that is killed while it waits for a device of its own is let go of', async (t) => {
  const { device: outer } = await next.volume(folder, 'hung-kill-outer', '128MiB')
  await command('mkfs.ext4', '-q', outer)
  const mountPoint = join(folder, 'outer')
  mkdirSync(mountPoint)
  remember({ kind: 'mount', path: mountPoint })
  await command('mount', outer, mountPoint)
  t.teardown(() => command('umount', '--lazy', mountPoint))
  const { device: inner } = await next.volume(mountPoint, 'hung-kill-inner', '32MiB')
  const log = join(folder, 'inner.log')
  const writer = startStamp(inner, log, { threads: 8, sizes: '4096-65536', seconds: 600, fsyncEvery: 1, seed: 4 })
  await delay(3000)
  // At a moment at which none waits for its own device it is gone at once, and the next one serves on.
  let serving = next
  let last = later.pop()
  let from = 0
  for (; last; last = later.pop()) {
    const { pid } = serving
    process.kill(pid, 'SIGKILL')
    from = performance.now()
    await delay(2000)
    if (heldThreads(pid).length > 0) break
    await last.start()
    serving = last
    await delay(3000)
  }
  if (!last) throw new Error('no thread of a dead agent was held in the kernel')
  await last.start()
  const seconds = (performance.now() - from) / 1000
  t.ok(seconds > 25 && seconds < 55, `the next one begins after ${seconds.toFixed(1)} s`)
  t.not((await writer.ended).errno, 0, 'who had its devices is told')
})
