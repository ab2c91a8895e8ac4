/** What one run of the bench found: the shape of the JSON in `results/`. Its version changes when a field does. */
import type { MachineFacts } from './machine.js'

export const resultsVersion = 1

/** How the rows keep their data: through the page cache, or opened O_DIRECT. */
export type Mode = 'page-cache' | 'direct'
export const modes: readonly Mode[] = ['page-cache', 'direct']

/** One run of fio. */
export interface Sample {
  readonly mode: Mode
  readonly workload: string
  readonly row: string
  readonly round: number
  readonly iops: number
  readonly mibPerSecond: number
  /** Completion latency of writes, or of reads where there are none, microseconds. */
  readonly p50Us: number
  readonly p99Us: number
}

/** A row or a run that could not be had: said, not made up. */
export interface Absence {
  readonly mode: Mode
  readonly row: string
  /** Absent: the whole row. */
  readonly workload?: string
  readonly reason: string
}

/** What is measured without fio's rows: one figure, measured `samples.length` times. */
export interface Figure {
  readonly id: string
  readonly title: string
  readonly unit: string
  readonly samples: readonly number[]
  /** What has to be known to read it. */
  readonly note?: string
}

/** A figure that was asked for and could not be had. */
export interface MissingFigure {
  readonly id: string
  readonly title: string
  readonly reason: string
}

export interface Results {
  readonly version: typeof resultsVersion
  readonly machine: MachineFacts
  readonly startedAt: string
  readonly seconds: number
  readonly commit: string
  /** The checkout had changes that are in no commit. */
  readonly dirty: boolean
  readonly command: string
  readonly quick: boolean
  readonly volumeBytes: number
  readonly runMs: number
  readonly rounds: number
  readonly samples: readonly Sample[]
  readonly absences: readonly Absence[]
  readonly figures: readonly Figure[]
  readonly missing: readonly MissingFigure[]
}
