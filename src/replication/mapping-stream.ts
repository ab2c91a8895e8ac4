import { Pause } from '../block/pause.js'
import type { Sender } from './sender.js'
import { LoopGroup, Transfers, type TransfersOptions } from './transfers.js'

/** How often is looked whether there is room again. */
const pollMs = 500
/** When it did not work although there is room. */
const retryMs = 5_000
/** Between two attempts to record again. The next journal that gives in within calmMs counts as the same trouble. */
export const recordAgainDelays = { firstMs: 1_000, lastMs: 300_000, calmMs: 600_000 }

export interface MappingStreamOptions extends TransfersOptions {
  readonly bufferLimitBytes: number
  /** How long after its beginning a journal is tried again: see Backoff. */
  readonly delayMs: number
  /** There is room, and what is sent arrives. Called again while it lasts, one at a time. */
  readonly onRoom: () => Promise<void>
}

/**
 * The loops of a stream whose writes are mapped: what is in the source buffer is sent on, and a new journal begun when
 * there is room for it and what comes after.
 */
export class MappingStream {
  readonly sender: Sender
  readonly #options: MappingStreamOptions
  readonly #group: LoopGroup

  constructor(options: MappingStreamOptions) {
    this.#options = options
    const transfers = new Transfers(options)
    this.sender = transfers.sender
    this.#group = new LoopGroup([...transfers.loops, { run: (signal) => this.#watch(signal) }], (error) => {
      options.health.noteFailure(error)
      options.onChange()
    })
  }

  get stop(): AbortController {
    return this.#group.stop
  }

  /** All loops have ended; never rejects. */
  get ended(): Promise<void> {
    return this.#group.ended
  }

  async #watch(signal: AbortSignal): Promise<void> {
    const pause = new Pause()
    await pause.wait(this.#options.delayMs, signal)
    while (!signal.aborted) {
      const room = this.#room()
      // Not awaited to its end: what it does ends this loop first.
      if (room) await Promise.race([this.#options.onRoom(), aborted(signal)])
      await pause.wait(room ? retryMs : pollMs, signal)
    }
  }

  #room(): boolean {
    const { buffer, bufferLimitBytes, health, paused } = this.#options
    return !paused() && health.link === null && buffer.bytes <= bufferLimitBytes / 2
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}
