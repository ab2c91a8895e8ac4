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
  /** What one run makes at least, in these. */
  readonly rounds: number
  readonly unit: string
  /** What it made, where it says so itself. */
  readonly counted?: (output: string) => number
  /** A whole run goes on until so many were made. */
  readonly aim: number
  readonly environment?: Readonly<Record<string, string>>
  /** Two runs may go on at once: nothing of theirs on this machine has the same name. */
  readonly besideItself?: boolean
}

const test = (file: string): readonly string[] => [process.execPath, `dist/test/${file}.test.js`]
const numberIn = (output: string, place: RegExp): number => Number(place.exec(output)?.[1] ?? 0)

/** These have no longer form. */
const sameAsInTests = [
  'lost-buffer-disk',
  'lost-journal-xfs',
  'hung-volume',
  'hung-volume-kill',
  'hung-folder',
  'hung-inbox',
  'ftp-server',
  'failed-commit',
  'power-cut-parts',
  'failed-stream',
  'source-numbers',
]

/** README.md in this folder says which fault each is for. */
const proofs: readonly Proof[] = [
  {
    name: 'network',
    command: () => test('crash/network'),
    ...{ rounds: 200, unit: 'faults', aim: 200, environment: { TORTURE_ROUNDS: '100' } },
    // A hundred of them cuts in the middle of files.
    counted: (output) => numberIn(output, /\{"faults":(\d+)/) + numberIn(output, /\{"cuts":(\d+)/),
  },
  {
    name: 'disk-faults',
    command: () => test('crash/disk-faults'),
    ...{ rounds: 80, unit: 'faults', aim: 80, environment: { TORTURE_ROUNDS: '1' } },
    counted: (output) => numberIn(output, /\{"faults":(\d+)/),
  },
  {
    name: 'bad-disk',
    command: () => test('crash/bad-disk'),
    ...{ rounds: 21, unit: 'faults', aim: 21, environment: { TORTURE_ROUNDS: '1' } },
  },
  {
    name: 'outage',
    command: () => test('loopback/two-ways'),
    ...{ rounds: 10, unit: 'minutes', aim: 10, environment: { OUTAGE_SECONDS: '600' } },
  },
  {
    name: 'bad-state',
    command: () => test('crash/bad-state'),
    ...{ rounds: 5, unit: 'faults', aim: 5, environment: { TORTURE_ROUNDS: '1' } },
  },
  {
    name: 'kills',
    command: () => test('crash/kills'),
    ...{ rounds: 100, unit: 'kills', aim: 100, environment: { TORTURE_ROUNDS: '100' } },
  },
  {
    name: 'interrupted-copies',
    command: () => test('crash/interrupted-copies'),
    ...{ rounds: 7, unit: 'kills', aim: 7, environment: { TORTURE_ROUNDS: '1' } },
  },
  {
    name: 'verify',
    command: () => test('crash/verify'),
    ...{ rounds: 10, unit: 'faults', aim: 10, environment: { TORTURE_ROUNDS: '1' } },
  },
  {
    name: 'power-cut',
    command: (seed) => [
      ...powerCutNode,
      ...['dist/test/crash/power-cut/main.js', '--seed', `${seed}`],
      ...['--cuts', '2800', '--seconds', '8', '--agents', '9'],
    ],
    ...{ rounds: 2809, unit: 'cuts', aim: 20_000, besideItself: true },
    counted: (output) => numberIn(output, /\{"cuts":(\d+)/),
  },
  ...[false, true].map((inPool) => ({
    name: inPool ? 'power-cut-pool' : 'power-cut-agents',
    command: (seed: number) => [
      ...powerCutNode,
      ...['dist/test/crash/power-cut/main.js', '--seed', `${seed}`, '--cuts', '0', '--agents', '27'],
      ...(inPool ? ['--inbound-pool'] : []),
    ],
    ...{ rounds: 27, unit: 'cuts, with agents', aim: 27, besideItself: true },
    counted: (output: string) => numberIn(output, /\{"cuts":(\d+)/),
  })),
  {
    name: 'simulation',
    command: (seed) => [process.execPath, 'dist/test/simulation/main.js', '--seconds', '30', '--seed', `${seed}`],
    ...{ rounds: 2_000_000, unit: 'steps', aim: 4_000_000 },
    counted: (output) => numberIn(output, / (\d+) steps/),
  },
  {
    name: 'fuzz',
    command: (seed) => [process.execPath, 'dist/test/fuzz/main.js', 'all', '--seconds', '60', '--seed', `${seed}`],
    ...{ rounds: 16, unit: 'minutes, a decoder each', aim: 16 },
    counted: (output) => [...output.matchAll(/: \d+ inputs,/g)].length,
  },
  {
    name: 'arrivals',
    command: () => test('destage/arrivals'),
    ...{ rounds: 110_900, unit: 'files', aim: 110_900, environment: { INBOX_FILES: '100000' } },
  },
  {
    // Over https and a folder in turn.
    name: 'many-streams',
    command: () => test('loopback/many-streams'),
    ...{ rounds: 1000, unit: 'streams', aim: 1000, environment: { STREAMS: '1000' } },
  },
  { name: 'source-agent', command: () => test('crash/source-agent'), rounds: 10, unit: 'kills', aim: 10 },
  { name: 'destination-agent', command: () => test('crash/destination-agent'), rounds: 10, unit: 'kills', aim: 10 },
  { name: 'initialize', command: () => test('crash/initialize'), rounds: 2, unit: 'kills', aim: 2 },
  ...sameAsInTests.map((name) => ({ name, command: () => test(`crash/${name}`), rounds: 1, unit: 'runs', aim: 2 })),
  {
    name: 'pool-model',
    command: (seed) => ['tools/model', '--power-cuts', '--steps', '2000', '--seed', `${seed}`],
    ...{ rounds: 2000, unit: 'steps', aim: 2000 },
  },
]

const usage = `Usage: tools/torture [--minutes N | --whole] [--seed S] [--jobs J] [PROOF...]

Runs the proofs in turn until the time is over, each run with the next seed, and prints a table: what was made of each, and
what a whole run aims at. A run that has begun is brought to its end. What a failed run printed is kept in build/torture.
Exit code 1 when one failed, or when a whole run has not made all it aims at.

  --minutes N    (default: 60)
  --whole        until each has made what the table aims at, however long that takes
  --seed S       of the first run of each (default: a new one)
  --jobs J       runs at once, up to 16; of most proofs one at a time (default: 1)

Proofs: ${proofs.map(({ name }) => name).join(', ')}
`

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    minutes: { type: 'string', default: '60' },
    whole: { type: 'boolean', default: false },
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
  made: number
  readonly failedSeeds: number[]
  tookMs: number
}

const rows: Row[] = chosen.map((proof) => ({ proof, begun: 0, runs: 0, made: 0, failedSeeds: [], tookMs: 0 }))
const deadline = performance.now() + minutes * 60_000
const folder = join(repositoryRoot, 'build/torture')
await Promise.all(Array.from({ length: jobs }, runInTurn))
printTable()
const hasFailed = rows.some(({ failedSeeds }) => failedSeeds.length > 0)
process.exitCode = hasFailed || (values.whole && !rows.every(isAtAim)) ? 1 : 0

async function runInTurn(): Promise<void> {
  while (values.whole || performance.now() < deadline) {
    const row = nextRow()
    // Others are at work on all there is.
    if (!row) return
    const seed = firstSeed + row.begun++
    const from = performance.now()
    const { code, output } = await run(row.proof, seed)
    const tookMs = performance.now() - from
    const { name, rounds, unit, counted } = row.proof
    const made = counted?.(output) ?? rounds
    row.tookMs += tookMs
    row.runs++
    console.log(
      `${code === 0 ? 'ok' : 'FAILED'} ${name}, seed ${seed}: ${made} ${unit} in ${Math.round(tookMs / 1000)} s`,
    )
    if (code === 0) {
      row.made += made
      continue
    }
    row.failedSeeds.push(seed)
    mkdirSync(folder, { recursive: true })
    const log = join(folder, `${name}-${seed}.log`)
    writeFileSync(log, output)
    console.log(`  ${log}`)
  }
}

/** Whose turn it is, of those that may run now: the one of whose aim the least is made, and under way. */
function nextRow(): Row | undefined {
  const share = ({ proof, begun }: Row): number => (begun * proof.rounds) / proof.aim
  return rows
    .filter((row) => (row.proof.besideItself || row.begun === row.runs) && !(values.whole && isEnough(row)))
    .reduce<Row | undefined>((least, row) => (least && share(least) <= share(row) ? least : row), undefined)
}

function isAtAim({ proof, made }: Row): boolean {
  return made >= proof.aim
}

/** A failed run is not made up for: what failed is to be looked at. */
function isEnough({ proof, begun, runs, made, failedSeeds }: Row): boolean {
  return made + (begun - runs + failedSeeds.length) * proof.rounds >= proof.aim
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
  const cells = rows.map(({ proof, runs, made, failedSeeds, tookMs }) => [
    proof.name,
    `${made} ${proof.unit}`,
    `${proof.aim}`,
    tookMs === 0 ? '-' : `${Math.round((made * 60_000) / tookMs)}`,
    `${runs}`,
    `${failedSeeds.length}`,
    runs === 0 ? '-' : failedSeeds.length > 0 ? failedSeeds.join(' ') : `${firstSeed}..${firstSeed + runs - 1}`,
    `${Math.round(tookMs / 1000)} s`,
  ])
  const heads = ['proof', 'made', 'aim', 'a minute', 'runs', 'failures', 'seeds (failed ones, if any)', 'time']
  const table = [heads, ...cells]
  const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)))
  for (const row of table)
    console.log(
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd(),
    )
}
