import type { Mode, Results } from './results.js'
import { type ByRound, pairedRatios, type Summary, summarize } from './statistics.js'
import { workloads } from './workloads.js'

export type Verdict = 'reached' | 'missed' | 'not measured'

export interface Judged {
  readonly title: string
  /** `>= 2x` */
  readonly target: string
  /** Median with its range, or why there is none. */
  readonly figure: string
  readonly verdict: Verdict
}

type Judgement = Omit<Judged, 'title'>

interface Target {
  readonly title: string
  judge(results: Results): Judgement
}

/** Verdicts are on the page cache, as a volume runs unless it is configured otherwise. */
const judgedMode: Mode = 'page-cache'

const thin = 'thin'
const thinStream = 'thin-stream'
const qcow2 = 'qemu-qcow2'
const floor = 'floor'

/** Every row's medians are compared in the rounds both have: see pairedRatios(). Of several divisors the best counts. */
function ratio(title: string, workload: string, row: string, others: readonly string[], least: number): Target {
  const target = `>= ${least}x ${others.length > 1 ? `the best of ${others.join(', ')}` : others[0]}`
  return {
    title: `${title}: ${row}`,
    judge(results) {
      const missing = [row, ...others].find((id) => runsOf(results, workload, id).size === 0)
      if (missing !== undefined) return { target, ...notMeasured(whyNot(results, workload, missing)) }
      const best = others.reduce((a, b) => (medianOf(results, workload, b) > medianOf(results, workload, a) ? b : a))
      const ratios = pairedRatios(runsOf(results, workload, row), runsOf(results, workload, best))
      const found = summarize(ratios)
      if (!found) return { target, ...notMeasured('no round has both') }
      const of = others.length > 1 ? ` ${best}` : ''
      return { target, figure: `${range(found, 2)}x${of}`, verdict: found.median >= least ? 'reached' : 'missed' }
    },
  }
}

/** The greatest value allowed, or the least. */
type Bound = { readonly most: number } | { readonly least: number }

function limit(title: string, id: string, unit: string, bound: Bound): Target {
  return {
    title,
    judge(results) {
      const figure = results.figures.find((candidate) => candidate.id === id)
      const target = 'most' in bound ? `<= ${bound.most} ${unit}` : `>= ${bound.least} ${unit}`
      const found = figure && summarize(figure.samples)
      if (!figure || !found) {
        const missing = results.missing.find((candidate) => candidate.id === id)
        return { target, ...notMeasured(missing?.reason ?? 'not asked for in this run') }
      }
      const holds = 'most' in bound ? found.median <= bound.most : found.median >= bound.least
      return { target, figure: `${range(found, digits(found.median))} ${unit}`, verdict: holds ? 'reached' : 'missed' }
    },
  }
}

export const targets: readonly Target[] = [
  ratio('4 KiB random write, depth 32', 'write-4k-d32', thin, [qcow2, 'nbdkit-file', 'loop'], 2),
  ratio('4 KiB random write, depth 32', 'write-4k-d32', thin, [floor], 0.85),
  ratio('4 KiB random write, depth 32', 'write-4k-d32', thinStream, [qcow2], 1.5),
  ratio('4 KiB random write, depth 32', 'write-4k-d32', thinStream, [floor], 0.6),
  ratio('4 KiB random write, depth 1', 'write-4k-d1', thinStream, [qcow2], 0.9),
  ratio('4 KiB random write, fsync each', 'write-4k-fsync1', thinStream, [qcow2], 1.3),
  ...[1, 8, 32].flatMap((depth) =>
    [thin, thinStream].map((row) => ratio(`4 KiB random read, depth ${depth}`, `read-4k-d${depth}`, row, [floor], 0.9)),
  ),
  ratio('1 MiB sequential write', 'seqwrite-1m', thin, ['qemu-raw'], 1),
  ratio('1 MiB sequential write', 'seqwrite-1m', thinStream, ['qemu-raw'], 0.5),
  ratio('first write after a snapshot, depth 16', 'first-write-d16', thin, ['qemu-qcow2-snapshot'], 1),
  limit('lag p99 at half the sustainable rate', 'lag-p99-50', 's', { most: 3 }),
  limit('zipf overwrites: sent beyond the unique blocks', 'zipf-excess', '%', { most: 2 }),
  limit('initialize into a local folder', 'initialize-rate', 'MiB/s', { least: 400 }),
  limit('initialize, processor time', 'initialize-cpu', 's/GiB', { most: 2.5 }),
  limit('one idle attached volume, processor', 'idle-cpu-1', '%', { most: 0.1 }),
  limit('agent at rest, memory', 'rest-memory', 'MiB', { most: 120 }),
  limit('128 idle volumes, memory', 'idle-memory-128', 'MiB', { most: 250 }),
  limit('faults, replication running', 'fault-rate', 'faults/s', { least: 50_000 }),
  limit('fault p99', 'fault-p99', 'ms', { most: 2 }),
  limit('event-loop delay p99 while faults come', 'event-loop-p99', 'ms', { most: 5 }),
  limit('recovery after kill -9, 1 GiB of journal', 'recovery-1024', 's', { most: 5 }),
]

export function judge(results: Results): Judged[] {
  return targets.map((target) => ({ title: target.title, ...target.judge(results) }))
}

/** Figure of a row by round. */
export function runsOf(results: Results, workload: string, row: string, mode: Mode = judgedMode): ByRound {
  const figure = workloads.find(({ id }) => id === workload)?.figure
  return new Map(
    results.samples
      .filter((sample) => sample.mode === mode && sample.workload === workload && sample.row === row)
      .map((sample) => [sample.round, figure === 'MiB/s' ? sample.mibPerSecond : sample.iops]),
  )
}

function medianOf(results: Results, workload: string, row: string): number {
  return summarize([...runsOf(results, workload, row).values()])?.median ?? 0
}

/** Why a row has no runs. */
export function whyNot(results: Results, workload: string, row: string, mode: Mode = judgedMode): string {
  const absence = results.absences.find(
    (candidate) =>
      candidate.mode === mode &&
      candidate.row === row &&
      (candidate.workload === undefined || candidate.workload === workload),
  )
  return `${row}: ${absence?.reason ?? 'not asked for in this run'}`
}

function notMeasured(reason: string): { figure: string; verdict: Verdict } {
  return { figure: reason, verdict: 'not measured' }
}

function range({ median, least, greatest, count }: Summary, fraction: number): string {
  const text = (value: number): string => value.toFixed(fraction)
  return count === 1 ? text(median) : `${text(median)} (${text(least)} to ${text(greatest)})`
}

function digits(value: number): number {
  return Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2
}
