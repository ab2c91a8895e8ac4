const windowMs = 10_000
const sampleLimit = 1000

/** Bytes a second over the last ten seconds. */
export class TransferRate {
  readonly #samples: { readonly atMs: number; bytes: number }[] = []

  add(bytes: number, nowMs = performance.now()): void {
    const last = this.#samples.at(-1)
    if (last && nowMs - last.atMs < windowMs / sampleLimit) last.bytes += bytes
    else this.#samples.push({ atMs: nowMs, bytes })
    this.#drop(nowMs)
  }

  bytesPerSecond(nowMs = performance.now()): number {
    this.#drop(nowMs)
    const bytes = this.#samples.reduce((sum, sample) => sum + sample.bytes, 0)
    return Math.round((bytes * 1000) / windowMs)
  }

  #drop(nowMs: number): void {
    while (this.#samples.length > 0 && this.#samples[0]!.atMs < nowMs - windowMs) this.#samples.shift()
  }
}
