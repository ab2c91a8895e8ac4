/**
 * Power cuts by the hundred: record what an agent and its hosts ask of a disk, then judge, at many positions of that
 * record, what the disk may hold when the power goes there. Runs in a mount namespace of its own.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { LentWorker } from '../../../src/block/lent-worker.js'
import { recoveryWorker } from '../../../src/replication/replayed-journal.js'
import { scratchFolder } from '../../fixtures/paths.js'
import { anotherBoot, type DiskFault, diskFaults } from '../../fixtures/power-cut.js'
import { Shell } from '../../fixtures/shell.js'
import { newSeed, Random } from '../../pool/model/random.js'
import { aloneText, judge, type Workplace } from './judge.js'
import { LiveSites, liveCourses } from './live.js'
import { type Recording, record, type Workload, workloads } from './recording.js'

const { values } = parseArgs({
  options: {
    cuts: { type: 'string', default: '500' },
    seed: { type: 'string' },
    seconds: { type: 'string', default: '3' },
    workload: { type: 'string' },
    course: { type: 'string' },
    agents: { type: 'string', default: '0' },
    'inbound-pool': { type: 'boolean', default: false },
    faults: { type: 'boolean', default: false },
  },
})
const cuts = Number(values.cuts)
const seed = values.seed === undefined ? newSeed() : Number(values.seed)
const chosen = workloads.filter(
  ({ name, course }) => (values.workload ?? name) === name && (values.course ?? course) === course,
)
/** Of a disk that is bad in a known way: so many cuts at the most, until some have found it out. */
const faultCuts = 120
const foundWanted = 3

const teardowns: (() => unknown)[] = []
const test = { teardown: (done: () => unknown) => void teardowns.push(done) }
// Started while this process is small and has nothing open: a fork of a large one takes long.
const shell = new Shell()
const base = scratchFolder(test, 'power-cut')
const recoverer = new LentWorker(recoveryWorker)
// Lent until the end: one for all recoveries.
const { worker, giveBack } = recoverer.lend()
await worker.call('sync', [])
test.teardown(giveBack)
test.teardown(() => shell.close())
const kept = teardowns.length
let failures = 0
let done = 0
const faultsFound: Record<string, number> = {}
const found = new Map<string, number>()
try {
  if (Number(values.agents) > 0) await judgeAgents(Number(values.agents))
  for (const [at, workload] of cuts > 0 ? chosen.entries() : []) {
    const random = new Random(seed + at)
    const folder = join(base, workload.name)
    const from = performance.now()
    const recording = await record(test, base, workload, random, Number(values.seconds))
    await tell(recording, from)
    const count = Math.round(((at + 1) * cuts) / chosen.length) - Math.round((at * cuts) / chosen.length)
    await judgeMany(recording, folder, random, count)
    if (values.faults) await judgeFaults(recording, folder, random)
    while (teardowns.length > kept) await teardowns.pop()!()
  }
} finally {
  while (teardowns.length > 0) await teardowns.pop()!()
}
console.log(JSON.stringify({ cuts: done, failures, seed, faultsFound, found: Object.fromEntries(found) }))
process.exitCode = failures > 0 ? 1 : 0

async function tell({ workload, device, phases, snapshots, stream }: Recording, began: number): Promise<void> {
  const { writes, bytes, discards } = await device.counts()
  const tookS = ((performance.now() - began) / 1000).toFixed(1)
  const epochs = stream ? `${stream.far.epochs.length} epochs` : 'no stream'
  const times = phases.map(({ name, from, to, flushes }) => `${name} ${to - from} requests, ${flushes.length} flushes`)
  console.log(
    `# ${workload.name}: ${tookS} s, ${writes} writes of ${Math.round(bytes / 2 ** 20)} MiB, ${discards} discards; ` +
      `under load ${times.join('; ')}; ${snapshots.length} snapshots, ${epochs}`,
  )
}

async function judgeMany(recording: Recording, folder: string, random: Random, count: number): Promise<void> {
  const { device, workload } = recording
  const workplace = { run: join(folder, 'run'), shell, recoverer, found }
  mkdirSync(workplace.run)
  anotherBoot(base)
  const began = performance.now()
  let made = 0
  for (const { position, seed: cutSeed } of choose(recording, random, count)) {
    const cut = await device.cut(position, cutSeed, workload.atomBytes)
    const clocks = await device.clocks(position)
    const drawn = new Random(cutSeed)
    const wrong = await attempt(recording, position, clocks, drawn, workplace)
    made++
    if (wrong.length === 0 && drawn.chance(0.15)) {
      // And once more, somewhere in that recovery.
      anotherBoot(base)
      await device.again(drawn.next(), workload.atomBytes)
      for (const text of await attempt(recording, position, clocks, drawn, { ...workplace, inRecovery: true }))
        wrong.push(`again: ${text}`)
      made++
    }
    if (wrong.length > 0) note(`${workload.name}, position ${position} (${JSON.stringify(cut)}), cut ${cutSeed}`, wrong)
  }
  done += made
  console.log(`# ${workload.name}: ${made} cuts, ${((performance.now() - began) / made).toFixed(0)} ms each`)
}

/**
 * What a disk does wrong is seen best without a journal, which mends much of it, and on a device that is looked at alone; what
 * the region record is for, where hosts flush seldom; that files are moved durably, on a file system of its own.
 */
function faultsFor({ name, course }: Workload): readonly (DiskFault | 'none')[] {
  if (name === 'alone-ext4') return diskFaults
  if (name === 'stream-xfs') return ['none']
  return course === 'moves' || name === 'raw-ext4' ? ['ignores-flush'] : []
}

/** The judge is judged. */
async function judgeFaults(recording: Recording, folder: string, random: Random): Promise<void> {
  const { device, workload, phases } = recording
  const { from } = phases[0]!
  for (const fault of faultsFor(workload)) {
    const forgetsRegions = fault === 'none'
    const workplace = { run: join(folder, 'run'), shell, recoverer, found: new Map(), forgetsRegions }
    await device.setFault(fault, random.next(), from)
    let found = 0
    let tried = 0
    for (const { position, seed: cutSeed } of choose(recording, random, faultCuts)) {
      if (found === foundWanted) break
      await device.cut(position, cutSeed, workload.atomBytes)
      const clocks = await device.clocks(position)
      const all = await attempt(recording, position, clocks, new Random(cutSeed), workplace)
      const wrong = workload.course === 'raw-device' ? all.filter((text) => text.startsWith(aloneText)) : all
      tried++
      if (wrong.length === 0) continue
      if (found++ === 0) console.log(`# ${wrong[0]!.slice(0, 300)}`)
    }
    const name = forgetsRegions ? 'regions-forgotten' : fault
    faultsFound[name] = (faultsFound[name] ?? 0) + found
    console.log(`# ${name}: found out by ${found} of ${tried} cuts`)
  }
  await device.setFault('none', 0, from)
}

function note(what: string, wrong: readonly string[]): void {
  failures++
  console.log(`FAILED seed ${seed}: ${what}`)
  for (const text of wrong.slice(0, 6)) console.log(`  ${text.slice(0, 600)}`)
}

/** With agents at both sites, until both are equal again. */
async function judgeAgents(rounds: number): Promise<void> {
  const began = performance.now()
  const random = new Random(seed)
  const sites = await LiveSites.start(test, base, values['inbound-pool'])
  for (let round = 1; round <= rounds; round++) {
    const wrong = await sites.round(random, liveCourses[(round - 1) % liveCourses.length]!)
    done++
    if (wrong.length > 0) note(`agents, round ${round}`, wrong)
  }
  console.log(`# agents: ${rounds} cuts in ${((performance.now() - began) / 1000).toFixed(1)} s`)
}

async function attempt(
  recording: Recording,
  position: number,
  clocks: readonly number[],
  random: Random,
  workplace: Workplace,
): Promise<string[]> {
  const { device } = recording
  try {
    await device.mount()
  } catch (error) {
    return [`the file system: ${error}`]
  }
  try {
    return await judge(recording, position, clocks, random, workplace)
  } catch (error) {
    return [error instanceof Error ? (error.stack ?? String(error)) : String(error)]
  } finally {
    await device.drop()
  }
}

/**
 * As many in each phase; anywhere, or right before, at, or right behind a flush. In order: growing positions cost the
 * device least.
 */
function choose({ phases }: Recording, random: Random, count: number): { position: number; seed: number }[] {
  const positions = Array.from({ length: count }, (_, index) => {
    const { from, to, flushes } = phases[index % phases.length]!
    if (flushes.length === 0 || random.chance(0.4)) return random.between(from, to)
    const at = random.pick(flushes) + random.pick([-2, -1, 0, 0, 1, 2, 3])
    return Math.min(to, Math.max(from, at))
  })
  return positions.sort((a, b) => a - b).map((position) => ({ position, seed: random.next() }))
}
