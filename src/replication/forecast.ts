/** What is looked back on: long enough to even out epochs, short enough to notice a change. */
const windowMs = 60_000
const sampleLimit = 64
/** From less than this nothing is concluded. */
const leastMs = 4_000

/**
 * A level that rises and falls, and when it will be somewhere else if it goes on as it did of late. Times are a clock's
 * that never jumps back.
 */
export class Forecast {
  readonly #samples: { readonly atMs: number; readonly level: number }[] = []

  /** Called regularly; of what comes more often than the window can hold the latest counts. */
  note(level: number, nowMs: number): void {
    const samples = this.#samples
    const before = samples.at(-2)
    if (before && nowMs - before.atMs < windowMs / sampleLimit) samples.pop()
    samples.push({ atMs: nowMs, level })
    while (samples.length > sampleLimit || samples[0]!.atMs < nowMs - windowMs) samples.shift()
  }

  /** Of the level, a second; undefined while too little is known. */
  get changePerSecond(): number | undefined {
    const first = this.#samples[0]
    const last = this.#samples.at(-1)
    if (!first || !last || last.atMs - first.atMs < leastMs) return undefined
    return ((last.level - first.level) * 1000) / (last.atMs - first.atMs)
  }

  /** Whole seconds until it reaches the limit: 0 when it has, null when it does not rise. */
  secondsToReach(limit: number): number | null {
    const last = this.#samples.at(-1)
    if (!last) return null
    if (last.level >= limit) return 0
    const rate = this.changePerSecond
    return rate === undefined || rate <= 0 ? null : Math.ceil((limit - last.level) / rate)
  }

  /** Whole seconds until nothing is left: 0 when nothing is, null when it does not fall. */
  get secondsToNothing(): number | null {
    const last = this.#samples.at(-1)
    if (!last) return null
    if (last.level <= 0) return 0
    const rate = this.changePerSecond
    return rate === undefined || rate >= 0 ? null : Math.ceil(last.level / -rate)
  }
}
