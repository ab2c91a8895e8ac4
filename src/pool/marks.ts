import type { ReportEvent } from '../block/event-log.js'

/** Percentage points the pool must fall below a mark before that is told again. */
const hysteresis = 5

export const defaultMarks: readonly number[] = [70, 85, 95]

/** Tells once when a pool passes a mark on its way up, and again only after it was well below. */
export class Marks {
  readonly percentages: readonly number[]
  readonly #pool: string
  readonly #report: ReportEvent
  readonly #passed = new Set<number>()

  /** @param percentages ascending */
  constructor(pool: string, percentages: readonly number[], report: ReportEvent) {
    this.#pool = pool
    this.percentages = percentages
    this.#report = report
  }

  /** The pool is so full now. */
  look(allocatedUnits: number, unitCount: number): void {
    const percent = (allocatedUnits / unitCount) * 100
    let highest: number | undefined
    for (const mark of this.percentages) {
      if (percent < mark - hysteresis) this.#passed.delete(mark)
      else if (percent >= mark && !this.#passed.has(mark)) {
        this.#passed.add(mark)
        highest = mark
      }
    }
    if (highest === undefined) return
    this.#report({
      severity: highest === this.percentages.at(-1) ? 'error' : 'warning',
      code: 'POOL_MARK',
      object: this.#pool,
      text: `The pool is ${Math.floor(percent)} % full, above its mark of ${highest} %. Extend it, or remove snapshots or volumes.`,
    })
  }

  /** Snapshots and clones are refused from here on. */
  isNearlyFull(allocatedUnits: number, unitCount: number): boolean {
    const last = this.percentages.at(-1)
    return last !== undefined && (allocatedUnits / unitCount) * 100 >= last
  }
}
