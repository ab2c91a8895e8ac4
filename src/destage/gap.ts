import { WANTED_LIMIT } from '../replication-file/acknowledgement.js'
import { GapWatch, type GapWatchOptions } from './gap-watch.js'

export interface PartOfEpoch {
  readonly epoch: number
  readonly part: number
}

/** What is missing although something later is here. */
export class Gap {
  readonly #watch: GapWatch
  #missing: readonly PartOfEpoch[] = []

  constructor(options: GapWatchOptions) {
    this.#watch = new GapWatch(options)
  }

  get isOpen(): boolean {
    return this.#watch.isOpen
  }

  /** @param generation of these; null: operators are not told of them */
  note(missing: readonly PartOfEpoch[], generation: number | null): void {
    this.#missing = missing
    const [first] = generation === null ? [] : missing
    const place = first && `epoch ${first.epoch} part ${first.part + 1} of generation ${generation}`
    this.#watch.note(missing.length > 0, place)
  }

  /** Asked for again behind the applied epoch: what was refused at once, what is missing after a while. */
  wanted(refused: readonly PartOfEpoch[], appliedEpoch: number): PartOfEpoch[] {
    const known = new Set(refused.map(({ epoch, part }) => `${epoch}/${part}`))
    const missing = this.#watch.isLasting
      ? this.#missing.filter(({ epoch, part }) => !known.has(`${epoch}/${part}`))
      : []
    return [...refused, ...missing]
      .filter(({ epoch }) => epoch > appliedEpoch)
      .sort((a, b) => a.epoch - b.epoch || a.part - b.part)
      .slice(0, WANTED_LIMIT)
      .map(({ epoch, part }) => ({ epoch, part }))
  }
}
