/**
 * Loaded into an agent by `--import`: how late its main thread gets to a timer. SIGUSR2 writes what was seen since the
 * last one to the file named in TIDEMARK_EVENT_LOOP_FILE, and begins anew.
 */
import { renameSync, writeFileSync } from 'node:fs'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { isMainThread } from 'node:worker_threads'

const file = process.env.TIDEMARK_EVENT_LOOP_FILE
const resolutionMs = 1

/** Milliseconds beyond the timer's own period. */
export interface EventLoopDelay {
  readonly p50Ms: number
  readonly p99Ms: number
  readonly greatestMs: number
  readonly count: number
}

if (isMainThread && file !== undefined) {
  const histogram = monitorEventLoopDelay({ resolution: resolutionMs })
  histogram.enable()
  const late = (nanoseconds: number): number => Math.max(0, nanoseconds / 1e6 - resolutionMs)
  process.on('SIGUSR2', () => {
    const delay: EventLoopDelay = {
      p50Ms: late(histogram.percentile(50)),
      p99Ms: late(histogram.percentile(99)),
      greatestMs: late(histogram.max),
      count: histogram.count,
    }
    writeFileSync(`${file}.tmp`, JSON.stringify(delay))
    renameSync(`${file}.tmp`, file)
    histogram.reset()
  })
}
