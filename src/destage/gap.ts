import { WANTED_LIMIT } from '../replication-file/acknowledgement.js'

/** A gap is told to the source after so long: files may still be on their way. */
const graceMs = 2_000

export interface PartOfEpoch {
  readonly epoch: number
  readonly part: number
}

/** What is missing although something later is here. */
export class Gap {
  #missing: readonly PartOfEpoch[] = []
  #sinceMs: number | null = null

  get isOpen(): boolean {
    return this.#sinceMs !== null
  }

  note(missing: readonly PartOfEpoch[]): void {
    this.#missing = missing
    if (missing.length === 0) this.#sinceMs = null
    else this.#sinceMs ??= performance.now()
  }

  /** Asked for again behind the applied epoch: what was refused at once, what is missing after a while. */
  wanted(refused: readonly PartOfEpoch[], appliedEpoch: number): PartOfEpoch[] {
    const isDue = this.#sinceMs !== null && performance.now() - this.#sinceMs > graceMs
    const known = new Set(refused.map(({ epoch, part }) => `${epoch}/${part}`))
    const missing = isDue ? this.#missing.filter(({ epoch, part }) => !known.has(`${epoch}/${part}`)) : []
    return [...refused, ...missing]
      .filter(({ epoch }) => epoch > appliedEpoch)
      .sort((a, b) => a.epoch - b.epoch || a.part - b.part)
      .slice(0, WANTED_LIMIT)
      .map(({ epoch, part }) => ({ epoch, part }))
  }
}
