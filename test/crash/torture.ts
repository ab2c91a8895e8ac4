/** tools/torture: the proofs of tools/test, at length and with ever new seeds. */
import { spawn } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { repositoryRoot } from '../fixtures/paths.js'
import { powerCutNode } from '../fixtures/power-cut.js'
import { newSeed } from '../pool/model/random.js'

interface Proof {
  readonly name: string
  /** One run, as a command below the repository's root. */
  readonly command: (seed: number) => readonly string[]
  /** What one run counts for in the table, in these. */
  readonly rounds: number
  readonly unit: string
  readonly environment?: Readonly<Record<string, string>>
  /** Two runs may go on at once: nothing of theirs on this machine has the same name. */
  readonly besideItself?: boolean
}

const test = (file: string): readonly string[] => [process.execPath, `dist/test/${file}.test.js`]

/** README.md in this folder says which fault each is for. */
const proofs: readonly Proof[] = [
  {
    name: 'network',
    command: () => test('crash/network'),
    ...{ rounds: 200, unit: 'faults', environment: { TORTURE_ROUNDS: '100' } },
  },
  {
    name: 'disk-faults',
    command: () => test('crash/disk-faults'),
    ...{ rounds: 48, unit: 'faults', environment: { TORTURE_ROUNDS: '1' } },
  },
  {
    name: 'bad-disk',
    command: () => test('crash/bad-disk'),
    ...{ rounds: 21, unit: 'faults', environment: { TORTURE_ROUNDS: '1' } },
  },
  {
    name: 'bad-state',
    command: () => test('crash/bad-state'),
    ...{ rounds: 5, unit: 'faults', environment: { TORTURE_ROUNDS: '1' } },
  },
  {
    name: 'kills',
    command: () => test('crash/kills'),
    ...{ rounds: 100, unit: 'kills', environment: { TORTURE_ROUNDS: '100' } },
  },
  {
    name: 'interrupted-copies',
    command: () => test('crash/interrupted-copies'),
    ...{ rounds: 7, unit: 'kills', environment: { TORTURE_ROUNDS: '1' } },
  },
  {
    name: 'verify',
    command: () => test('crash/verify'),
    ...{ rounds: 10, unit: 'faults', environment: { TORTURE_ROUNDS: '1' } },
  },
  {
    name: 'power-cut',
    command: (seed) => [
      ...powerCutNode,
      ...['dist/test/crash/power-cut/main.js', '--seed', `${seed}`],
      ...['--cuts', '2800', '--seconds', '8', '--agents', '8'],
    ],
    ...{ rounds: 2808, unit: 'cuts', besideItself: true },
  },
  {
    name: 'simulation',
    command: (seed) => [process.execPath, 'dist/test/simulation/main.js', '--seconds', '30', '--seed', `${seed}`],
    ...{ rounds: 30, unit: 'seconds' },
  },
  {
    name: 'fuzz',
    command: (seed) => [process.execPath, 'dist/test/fuzz/main.js', 'all', '--seconds', '60', '--seed', `${seed}`],
    ...{ rounds: 10 * 60, unit: 'seconds' },
  },
  {
    name: 'arrivals',
    command: () => test('destage/arrivals'),
    ...{ rounds: 110_900, unit: 'files', environment: { INBOX_FILES: '100000' } },
  },
  {
    // Over https and a folder in turn.
    name: 'many-streams',
    command: () => test('loopback/many-streams'),
    ...{ rounds: 1000, unit: 'streams', environment: { STREAMS: '1000' } },
  },
  { name: 'source-agent', command: () => test('crash/source-agent'), rounds: 10, unit: 'kills' },
  { name: 'destination-agent', command: () => test('crash/destination-agent'), rounds: 10, unit: 'kills' },
  { name: 'initialize', command: () => test('crash/initialize'), rounds: 2, unit: 'kills' },
  {
    name: 'pool-model',
    command: (seed) => ['tools/model', '--power-cuts', '--steps', '2000', '--seed', `${seed}`],
    ...{ rounds: 2000, unit: 'steps' },
  },
]

const usage = `Usage: tools/torture [--minutes N] [--seed S] [--jobs J] [PROOF...]

Runs the proofs in turn until the time is over, each run with the next seed, and prints a table. A run that has begun is
brought to its end. What a failed run printed is kept in build/torture. Exit code 1 when one failed.

  --minutes N    (default: 60)
  --seed S       of the first run of each (default: a new one)
  --jobs J       runs at once, up to 16; of most proofs one at a time (default: 1)

Proofs: ${proofs.map(({ name }) => name).join(', ')}
`

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    minutes: { type: 'string', default: '60' },
    seed: { type: 'string' },
    jobs: { type: 'string', default: '1' },
    help: { type: 'boolean', default: false },
  },
})
const minutes = Number(values.minutes)
const firstSeed = values.seed === undefined ? newSeed() : Number(values.seed)
const chosen = positionals.length === 0 ? proofs : proofs.filter(({ name }) => positionals.includes(name))
const jobs = Number(values.jobs)
const isSound =
  minutes > 0 &&
  Number.isInteger(jobs) &&
  jobs >= 1 &&
  jobs <= 16 &&
  Number.isSafeInteger(firstSeed) &&
  chosen.length >= Math.max(1, positionals.length)
if (values.help || !isSound) {
  process.stdout.write(usage)
  process.exit(values.help ? 0 : 2)
}

interface Row {
  readonly proof: Proof
  begun: number
  runs: number
  readonly failedSeeds: number[]
  tookMs: number
}

const rows: Row[] = chosen.map((proof) => ({ proof, begun: 0, runs: 0, failedSeeds: [], tookMs: 0 }))
const deadline = performance.now() + minutes * 60_000
const folder = join(repositoryRoot, 'build/torture')
let turn = 0
await Promise.all(Array.from({ length: jobs }, runInTurn))
printTable()
process.exitCode = rows.some(({ failedSeeds }) => failedSeeds.length > 0) ? 1 : 0

async function runInTurn(): Promise<void> {
  while (performance.now() < deadline) {
    const row = nextRow()
    // Others are at work on all there is.
    if (!row) return
    const seed = firstSeed + row.begun++
    const from = performance.now()
    const { code, output } = await run(row.proof, seed)
    row.tookMs += performance.now() - from
    row.runs++
    if (code === 0) continue
    row.failedSeeds.push(seed)
    mkdirSync(folder, { recursive: true })
    const log = join(folder, `${row.proof.name}-${seed}.log`)
    writeFileSync(log, output)
    console.log(`FAILED ${row.proof.name}, seed ${seed}: ${log}`)
  }
}

/** Whose turn it is, of those that may run now. */
function nextRow(): Row | undefined {
  for (let tried = 0; tried < rows.length; tried++) {
    const row = rows[turn++ % rows.length]!
    if (row.proof.besideItself || row.begun === row.runs) return row
  }
  return undefined
}

function run({ command, environment }: Proof, seed: number): Promise<{ code: number | null; output: string }> {
  const [program, ...parameters] = command(seed)
  const child = spawn(program!, parameters, {
    cwd: repositoryRoot,
    env: { ...process.env, TAP_TIMEOUT: '3600', SEED: `${seed}`, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-4_000_000)
    })
  }
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, output }))
  })
}

function printTable(): void {
  const cells = rows.map(({ proof, runs, failedSeeds, tookMs }) => [
    proof.name,
    `${runs * proof.rounds} ${proof.unit}`,
    `${runs}`,
    `${failedSeeds.length}`,
    runs === 0 ? '-' : failedSeeds.length > 0 ? failedSeeds.join(' ') : `${firstSeed}..${firstSeed + runs - 1}`,
    `${Math.round(tookMs / 1000)} s`,
  ])
  const table = [['proof', 'rounds', 'runs', 'failures', 'seeds (failed ones, if any)', 'time'], ...cells]
  const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)))
  for (const row of table)
    console.log(
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd(),
    )
}
