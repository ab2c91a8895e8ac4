import type { Pause } from '../block/pause.js'

/** How often idle ones are looked at. */
const pollMs = 200
/** One that nothing was found for ends its wait all the same. */
const longestMs = 5_000

/** One timer for all loops that wait for their journal's first write: with a thousand streams nearly all of them do. */
export class IdleWatch {
  readonly #waiting = new Map<Pause, () => boolean>()
  #timer: NodeJS.Timeout | undefined

  /** Wait until there is news, or the pause is woken, or some seconds are over; never rejects. */
  async wait(hasNews: () => boolean, pause: Pause, signal: AbortSignal): Promise<void> {
    this.#waiting.set(pause, hasNews)
    this.#timer ??= setInterval(() => this.#look(), pollMs)
    try {
      await pause.wait(longestMs, signal)
    } finally {
      this.#waiting.delete(pause)
      if (this.#waiting.size === 0) {
        clearInterval(this.#timer)
        this.#timer = undefined
      }
    }
  }

  #look(): void {
    for (const [pause, hasNews] of this.#waiting) {
      try {
        if (hasNews()) pause.wake()
      } catch {
        // The loop that waits meets it where it can answer for its stream.
        pause.wake()
      }
    }
  }
}
