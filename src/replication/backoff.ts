/** Waits longer each time the same trouble comes back soon: twice as long, up to a limit. */
export class Backoff {
  readonly #firstMs: number
  readonly #lastMs: number
  readonly #calmMs: number
  #delayMs: number
  #beforeMs = Number.NEGATIVE_INFINITY

  /** @param calmMs what comes later than this after the one before begins anew with firstMs */
  constructor({ firstMs, lastMs, calmMs }: { firstMs: number; lastMs: number; calmMs: number }) {
    this.#firstMs = firstMs
    this.#lastMs = lastMs
    this.#calmMs = calmMs
    this.#delayMs = firstMs
  }

  next(nowMs: number): number {
    const isNew = nowMs - this.#beforeMs > this.#calmMs
    this.#delayMs = isNew ? this.#firstMs : Math.min(this.#delayMs * 2, this.#lastMs)
    this.#beforeMs = nowMs
    return this.#delayMs
  }
}
