import { parseArgs } from 'node:util'
import { parseDuration, parseSize } from '../../src/block/size.js'
import { type Mode, modes } from './results.js'

export interface BenchOptions {
  readonly quick: boolean
  readonly list: boolean
  readonly help: boolean
  /** Undefined: all, or those of `--quick`. */
  readonly only: readonly string[] | undefined
  readonly workloads: readonly string[] | undefined
  readonly measures: readonly string[] | undefined
  readonly modes: readonly Mode[]
  readonly rounds: number
  readonly runMs: number
  readonly rampMs: number
  readonly volumeBytes: number
  readonly directory: string
  readonly output: string | undefined
  /** No run of a row is begun later than this after the start. */
  readonly rowsLimitMs: number
  /** What is not measured by then is given up. */
  readonly limitMs: number
}

export const usage = `npm run bench -- [OPTION...]

Compares Tidemark with what Linux and others offer, on this machine, in one interleaved run.

  --quick              under three minutes: fewer workloads, shorter; tells, never fails
  --list               rows, workloads and measures by name, and nothing else
  --only ROW,...       these rows
  --workloads W,...    these workloads; none: no row
  --measures M,...     these measures beside the rows; none: no measure
  --modes MODE,...     page-cache, direct (both)
  --rounds N           runs of everything (5; quick 3)
  --runtime TIME       of one run (2s; quick 400ms)
  --size SIZE          of each volume (1GiB; quick 256MiB)
  --directory DIR      where the volumes lie, on the disk that is measured (/tmp)
  --output DIR         where the results go (tools/bench/results)
  --help

Exit code: 0, or 1 when a target was missed in a run without --quick; 2 when something failed.
`

/** A quick run: rows have this long; the rest is for measures, which are given up when the whole is nearly over. */
const quickRowsMs = 95_000
const quickMs = 165_000

/** @throws Error that says what is wrong */
export function parseOptions(words: readonly string[]): BenchOptions {
  const text = { type: 'string' } as const
  const flag = { type: 'boolean', default: false } as const
  const { values } = parseArgs({
    args: [...words],
    options: {
      quick: flag,
      list: flag,
      help: flag,
      only: text,
      workloads: text,
      measures: text,
      modes: text,
      rounds: text,
      runtime: text,
      size: text,
      directory: text,
      output: text,
    },
  })
  const quick = values.quick === true
  const rounds = values.rounds === undefined ? (quick ? 3 : 5) : Number(values.rounds)
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > 100) throw new Error('--rounds: use 1 to 100')
  const runMs = values.runtime === undefined ? (quick ? 400 : 2000) : parseDuration(values.runtime)
  return {
    quick,
    list: values.list === true,
    help: values.help === true,
    only: names(values.only),
    workloads: names(values.workloads),
    measures: names(values.measures),
    modes: chosenModes(values.modes, quick),
    rounds,
    runMs,
    rampMs: quick ? 0 : 300,
    volumeBytes: values.size === undefined ? (quick ? 256 : 1024) * 2 ** 20 : parseSize(values.size),
    directory: values.directory ?? '/tmp',
    output: values.output,
    rowsLimitMs: quick ? quickRowsMs : Number.POSITIVE_INFINITY,
    limitMs: quick ? quickMs : Number.POSITIVE_INFINITY,
  }
}

function names(given: string | undefined): string[] | undefined {
  if (given === undefined) return undefined
  return given === 'none' ? [] : given.split(',').filter(Boolean)
}

function chosenModes(given: string | undefined, quick: boolean): Mode[] {
  if (given === undefined) return quick ? ['page-cache'] : [...modes]
  return given.split(',').map((name) => {
    const mode = modes.find((candidate) => candidate === name)
    if (mode === undefined) throw new Error(`--modes: there is no ${name}; use ${modes.join(', ')}`)
    return mode
  })
}

/** Those that are named, in their own order. @throws Error that names what there is */
export function chosen<T extends { readonly id: string }>(
  option: string,
  all: readonly T[],
  given: readonly string[] | undefined,
): T[] {
  if (given === undefined) return [...all]
  const unknown = given.find((name) => !all.some(({ id }) => id === name))
  if (unknown !== undefined) {
    throw new Error(`${option}: there is no ${unknown}; use ${all.map(({ id }) => id).join(', ')}`)
  }
  return all.filter(({ id }) => given.includes(id))
}
