import type { Figure } from '../results.js'

export interface MeasureSetting {
  /** Empty, its own, removed by whoever gave it. */
  readonly folder: string
  readonly volumeBytes: number
  readonly quick: boolean
  /** Of the same thing, at least. */
  readonly rounds: number
  /** Of the volumes: thin ones in a build that has pools. */
  readonly kind: 'thin' | 'linear'
  readonly say: (text: string) => void
}

/** Something that is not a row under fio: figures of its own. */
export interface Measure {
  readonly id: string
  /** What run() gives, so that a failure names what is missing. Those that are not quick are left out of `--quick`. */
  readonly figures: readonly {
    readonly id: string
    readonly title: string
    readonly unit: string
    readonly quick?: boolean
  }[]
  /** Part of `--quick`. */
  readonly quick: boolean
  diskBytes(volumeBytes: number): number
  /** Puts each figure into `found` when it is complete: what is there counts also when it is given up before its end. */
  run(setting: MeasureSetting, found: Found): Promise<void>
}

/** By the id of a figure. */
export type Found = Record<string, FoundFigure>
export interface FoundFigure {
  readonly samples: readonly number[]
  readonly note?: string
  /** Why there are no samples. */
  readonly reason?: string
}

export function figureOf(measure: Measure, id: string, found: FoundFigure): Figure {
  const { title, unit } = measure.figures.find((figure) => figure.id === id)!
  return { id, title, unit, samples: found.samples, ...(found.note === undefined ? {} : { note: found.note }) }
}

/** What was measured on, for the notes. */
export function kindNote({ kind }: MeasureSetting): string {
  return kind === 'thin' ? 'thin volume' : 'linear volume: this build has no thin pools'
}
