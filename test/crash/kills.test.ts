/**
 * kill -9 of the source agent, the destination agent, the keeper, one after the other of these, and both agents at once,
 * while fio writes and reads back files on ext4: fio reports no error, and nothing is lost on either side.
 */
import { mkdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import t, { type Test } from 'tap'
import { MiB } from '../../src/block/units.js'
import { type Agent, delay, flush, mirror } from '../fixtures/agent.js'
import { FioLoad } from '../fixtures/fio-load.js'
import { keeperPid, keptDevices } from '../fixtures/keeper.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { command, farPath, md5Direct } from '../fixtures/sites.js'
import { thinVolume, twoThinSites } from '../fixtures/thin-sites.js'
import { newSeed, Random } from '../pool/model/random.js'

const seed = newSeed()
const random = new Random(seed)
t.comment(`seed ${seed} (SEED=${seed} repeats its choices)`)

/** In tools/test one of each that is no part of another. */
const bounded = ['again', 'destination', 'keeper-source', 'source-keeper'] as const
const victims = [...bounded, 'source', 'both', 'keeper'] as const
type Victim = (typeof victims)[number]

const stream = 'kills'
const volumes = ['kills-file', 'kills-thin'] as const
const limitMs = 60_000

const sites = await twoThinSites(t)
const { source, destination, folder } = sites

/** In an order that the seed draws; at length as many as asked for, of each as often. */
function drawn(): Victim[] {
  const { TORTURE_ROUNDS } = process.env
  const list: Victim[] = TORTURE_ROUNDS === undefined ? [...bounded] : []
  for (let at = 0; at < Number(TORTURE_ROUNDS); at++) list.push(victims[at % victims.length]!)
  return [...list].map(() => list.splice(random.below(list.length), 1)[0]!)
}

async function mountedOn(name: string, device: string): Promise<string> {
  await command('mkfs.ext4', '-q', '-E', 'lazy_itable_init=0,lazy_journal_init=0', device)
  const path = join(folder, `tree-${name}`)
  mkdirSync(path)
  remember({ kind: 'mount', path })
  await command('mount', device, path)
  return path
}

/** Dead for a while, in which hosts and the other agent go on as they can. */
async function killed(...agents: Agent[]): Promise<void> {
  await Promise.all(agents.map((agent) => agent.kill()))
  await delay(random.between(0, 400))
}

/** One that has just started is killed again somewhere in its recovery. */
async function killedAtItsStart(agent: Agent): Promise<void> {
  const started = agent.start().catch(() => undefined)
  await delay(random.between(50, 900))
  await agent.kill()
  await started
}

/** The keeper's devices are in nobody's hands but the agent's until a new one has them. @returns how long */
async function killKeeper(): Promise<number> {
  const old = keeperPid(source)
  const begun = performance.now()
  process.kill(old!, 'SIGKILL')
  await source.until(
    async () => keeperPid(source),
    (pid) => pid !== undefined && pid !== old,
    limitMs,
  )
  await source.until(
    () => keptDevices(source),
    (kept) => volumes.every((name) => kept[name] === 'served'),
    limitMs,
  )
  return performance.now() - begun
}

const kills: Record<Victim, () => Promise<unknown>> = {
  async source() {
    await killed(source)
    await source.start()
  },
  async destination() {
    await killed(destination)
    await destination.start()
  },
  async both() {
    await killed(source, destination)
    await Promise.all([source.start(), destination.start()])
  },
  async again() {
    await killed(source, destination)
    await Promise.all([killedAtItsStart(source), killedAtItsStart(destination)])
    await Promise.all([source.start(), destination.start()])
  },
  keeper: killKeeper,
  async 'keeper-source'() {
    await killKeeper()
    await killed(source)
    await source.start()
  },
  async 'source-keeper'() {
    await killed(source)
    await source.start()
    await killKeeper()
  },
}

/** What its file system has noted since it was mounted. */
function ext4Errors(device: string): string {
  return readFileSync(`/sys/fs/ext4/${basename(device)}/errors_count`, 'utf8').trim()
}

/**
 * The file systems are frozen meanwhile, which has all of them on their devices, and their own journals empty. Unmounting would
 * say so too early where another mount namespace has a copy of the mount.
 */
async function checkEqual(t: Test, devices: readonly string[], trees: readonly string[]): Promise<void> {
  for (const path of trees) {
    remember({ kind: 'frozen', path })
    await command('fsfreeze', '--freeze', path)
  }
  await flush(source, stream)
  for (const [at, name] of volumes.entries()) {
    const far = await farPath(sites, stream, name)
    // Directly: what fio wrote past the page cache of a device is not in that.
    t.equal(await md5Direct(far), await md5Direct(devices[at]!), `${name}: both sides are equal`)
    await command('fsck.ext4', '-fn', far)
  }
  t.match(await source.streamStatus(stream), { state: 'replicating', generation: 1 }, 'no new copy')
  for (const path of trees) {
    await command('fsfreeze', '--unfreeze', path)
    forget({ kind: 'frozen', path })
    await command('umount', path)
    forget({ kind: 'mount', path })
  }
}

t.test('fio on ext4 reports no error while agents and the keeper are killed', async (t) => {
  const devices = [
    (await source.volume(folder, volumes[0], '96MiB')).device,
    await thinVolume(source, volumes[1], '96MiB'),
  ]
  await mirror(source, stream, volumes)
  const trees = [await mountedOn(volumes[0], devices[0]!), await mountedOn(volumes[1], devices[1]!)]
  const mixed = { bs: '4k', verify_backlog: 256, unlink: 1 }
  const loads = [
    new FioLoad(join(trees[0]!, 'written'), { rw: 'randwrite', bsrange: '4k-64k', ...mixed, size: '24m' }),
    new FioLoad(join(trees[1]!, 'written'), mixed),
  ]
  const took = new Map<Victim, number[]>()
  for (const [at, victim] of drawn().entries()) {
    await delay(random.between(200, 1200))
    t.ok(
      loads.every(({ isRunning }) => isRunning),
      `${at + 1}: ${victim}, under load`,
    )
    const begun = performance.now()
    await kills[victim]()
    took.set(victim, [...(took.get(victim) ?? []), performance.now() - begun])
  }
  for (const [victim, times] of took) {
    const middle = [...times].sort((a, b) => a - b)[times.length >> 1]!
    t.comment(`${times.length} of ${victim}: back after ${Math.round(middle)} ms at the median`)
  }
  for (const load of loads) t.equal(await load.stop(), '', 'no error, and what is read is what was written')
  const read = loads.map(({ readBytes }) => `${Math.round(readBytes / MiB)} MiB`)
  t.comment(`fio has verified ${read.join(' and ')} in ${loads.map(({ runs }) => runs).join(' and ')} whole runs`)
  t.ok(loads.every(({ runs }) => runs > 0))
  for (const device of devices) t.equal(ext4Errors(device), '0', `${device}: ext4 has met no error`)
  const keepers = [...took].reduce((sum, [victim, times]) => sum + (victim.includes('keeper') ? times.length : 0), 0)
  const replaced = (await source.events()).filter(({ code }) => code === 'KEEPER_REPLACED')
  t.ok(
    replaced.length >= keepers,
    `${keepers} keepers were killed, and events say ${replaced.length} times that one was replaced`,
  )
  await checkEqual(t, devices, trees)
})
