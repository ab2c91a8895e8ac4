import { spawn } from 'node:child_process'
import { forget, remember } from '../../test/fixtures/leftovers.js'

/** What fio writes to: a block device, or an NBD server it speaks to itself. */
export type FioTarget = { readonly device: string } | { readonly nbdSocket: string }

export interface FioFigures {
  readonly iops: number
  readonly mibPerSecond: number
  /** Completion latency of writes, or of reads where there are none, microseconds. */
  readonly p50Us: number
  readonly p99Us: number
  readonly ios: number
  readonly bytes: number
}

export type FioOptions = Readonly<Record<string, string | number>>

/** fio ended with an error, or printed what cannot be read. */
export class FioFailure extends Error {}

/** Longer than asked for by this much, and a run is taken for hung. */
const graceMs = 60_000
const outputLimit = 4 * 1024 * 1024

export function fioParameters(target: FioTarget, options: FioOptions): string[] {
  const where: FioOptions =
    'device' in target
      ? { ioengine: 'libaio', direct: 1, filename: target.device }
      : { ioengine: 'nbd', uri: `nbd+unix:///?socket=${target.nbdSocket}` }
  const all: FioOptions = { name: 'bench', ...where, ...options }
  return ['--output-format=json', '--eta=never', ...Object.entries(all).map(([key, value]) => `--${key}=${value}`)]
}

/**
 * Run fio once.
 *
 * @param limitMs how long it may take
 * @throws FioFailure
 */
export async function runFio(target: FioTarget, options: FioOptions, limitMs: number): Promise<FioFigures> {
  const child = spawn('fio', fioParameters(target, options), { stdio: ['ignore', 'pipe', 'pipe'] })
  const left = child.pid === undefined ? undefined : ({ kind: 'process', pid: child.pid } as const)
  if (left) remember(left)
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      if (output.length < outputLimit) output += chunk.toString()
    })
  }
  const timer = setTimeout(() => child.kill('SIGKILL'), limitMs + graceMs)
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.on('error', reject)
      child.on('close', resolve)
    })
    return parseFio(output, code)
  } finally {
    clearTimeout(timer)
    if (left) forget(left)
  }
}

interface Direction {
  readonly iops: number
  readonly bw_bytes: number
  readonly total_ios: number
  readonly io_bytes: number
  readonly clat_ns?: { readonly percentile?: Readonly<Record<string, number>> }
}
interface Job {
  readonly error: number
  readonly total_err?: number
  readonly read: Direction
  readonly write: Direction
}

/** @throws FioFailure unless every job ended without an error and did something */
export function parseFio(output: string, code: number | null): FioFigures {
  const job = jobOf(output)
  if (!job || code !== 0 || job.error !== 0 || (job.total_err ?? 0) !== 0) {
    throw new FioFailure(`fio ended with ${code ?? 'a signal'}: ${complaint(output)}`)
  }
  const { read, write } = job
  const ios = read.total_ios + write.total_ios
  if (ios === 0) throw new FioFailure('fio did nothing in its time')
  const latency = (write.total_ios > 0 ? write : read).clat_ns?.percentile ?? {}
  const at = (percentile: string): number => (latency[percentile] ?? Number.NaN) / 1000
  return {
    iops: read.iops + write.iops,
    mibPerSecond: (read.bw_bytes + write.bw_bytes) / 2 ** 20,
    p50Us: at('50.000000'),
    p99Us: at('99.000000'),
    ios,
    bytes: read.io_bytes + write.io_bytes,
  }
}

/** fio prints its remarks before and behind the JSON. */
function jobOf(output: string): Job | undefined {
  const begin = /^\{$/m.exec(output)?.index
  if (begin === undefined) return undefined
  const end = output.indexOf('\n}', begin)
  try {
    const { jobs } = JSON.parse(output.slice(begin, end + 2)) as { jobs: Job[] }
    return jobs[0]
  } catch {
    return undefined
  }
}

function complaint(output: string): string {
  const lines = output.split('\n').filter((line) => line !== '' && !/^[\s{}]/.test(line))
  return lines.slice(-3).join('; ').slice(0, 300) || 'it said nothing'
}
