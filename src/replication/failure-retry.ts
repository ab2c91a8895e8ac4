import { AssertionError } from 'node:assert'
import { Backoff } from './backoff.js'

/** Between two attempts, first and at the most. */
const firstDelayMs = 10_000
const lastDelayMs = 300_000
/** What fails again within this time after it was tried is the same trouble. */
const calmMs = 600_000
/** What has not failed again for so long after an attempt works. */
const provenMs = 10_000

export interface FailureRetryOptions {
  /** Begin again from what is on the disk; never called once closed. What it throws has been noted where it failed. */
  readonly attempt: () => Promise<void>
  /** It has not failed again since it was tried. */
  readonly onWorks: () => void
  /** A clock that never jumps, milliseconds. */
  readonly now?: () => number
  /** @returns what calls it off */
  readonly later?: (action: () => void, delayMs: number) => () => void
}

/**
 * Tries again what failed, by itself, ever more rarely: after 10 s, then twice as long each time, up to 5 min. One attempt at
 * a time, until it is cancelled.
 *
 * An attempt begins with what was committed, as a restart of the agent does, so it repeats nothing that counted. Where an
 * assertion broke that is not enough: what this process believes of the stream is wrong somewhere, and it would act on it.
 * That stands until an operator looked at it.
 */
export class FailureRetry {
  readonly #options: Required<FailureRetryOptions>
  readonly #backoff = new Backoff({ firstMs: firstDelayMs, lastMs: lastDelayMs, calmMs })
  #callOff: (() => void) | undefined
  #dueMs: number | undefined
  #closed = false

  constructor(options: FailureRetryOptions) {
    this.#options = { now: () => performance.now(), later: afterTimeout, ...options }
  }

  /** No attempt begins any more. */
  get closed(): boolean {
    return this.#closed
  }

  /** Until the next attempt; null: there will be none by itself. */
  get inSeconds(): number | null {
    if (this.#dueMs === undefined) return null
    return Math.max(0, Math.ceil((this.#dueMs - this.#options.now()) / 1000))
  }

  /** It has failed. An attempt follows, if that is harmless. */
  note(error: unknown): void {
    this.cancel()
    if (this.#closed || error instanceof AssertionError) return
    const nowMs = this.#options.now()
    const delayMs = this.#backoff.next(nowMs)
    this.#dueMs = nowMs + delayMs
    this.#after(delayMs, () => void this.#try())
  }

  /** The attempt that was to come is not made. */
  cancel(): void {
    this.#callOff?.()
    this.#callOff = undefined
    this.#dueMs = undefined
  }

  close(): void {
    this.cancel()
    this.#closed = true
  }

  async #try(): Promise<void> {
    try {
      await this.#options.attempt()
    } catch (error) {
      // Mostly it was noted where it failed, and the next attempt follows.
      if (!this.#callOff) this.note(error)
      return
    }
    if (this.#closed || this.#callOff) return
    this.#dueMs = undefined
    this.#after(provenMs, () => this.#options.onWorks())
  }

  #after(delayMs: number, action: () => void): void {
    this.#callOff = this.#options.later(() => {
      this.#callOff = undefined
      action()
    }, delayMs)
  }
}

function afterTimeout(action: () => void, delayMs: number): () => void {
  const timer = setTimeout(action, delayMs)
  timer.unref()
  return () => clearTimeout(timer)
}
