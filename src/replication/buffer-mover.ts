import { Pause } from '../block/pause.js'

/** Files that are being read are looked at again so often. */
const busyPollMs = 50
const retryMs = 2_000

export interface BufferMoverOptions {
  /** Names that are still to be moved. */
  readonly behind: () => readonly string[]
  /** @returns false: not now */
  readonly bring: (name: string) => Promise<boolean>
  /** When nothing is behind. @returns false: not now */
  readonly finish: () => Promise<boolean>
  /** Something keeps it from going on; it is tried again. */
  readonly onTrouble: (text: string) => void
}

/** Moves one file after the other, again and again until all are moved; from its making until its end. */
export class BufferMover {
  readonly #options: BufferMoverOptions
  readonly #stop = new AbortController()
  readonly #ended: Promise<void>
  #trouble: string | null = null

  constructor(options: BufferMoverOptions) {
    this.#options = options
    this.#ended = this.#run()
  }

  /** Why nothing moves now, or null. */
  get trouble(): string | null {
    return this.#trouble
  }

  /** Resolves when nothing is under way any more; a file that is being copied is copied to its end. */
  async end(): Promise<void> {
    this.#stop.abort()
    await this.#ended
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop
    const pause = new Pause()
    while (!signal.aborted) {
      try {
        if (await this.#round()) return
        await pause.wait(busyPollMs, signal)
      } catch (error) {
        this.#note(error instanceof Error ? error.message : String(error))
        await pause.wait(retryMs, signal)
      }
    }
  }

  /** @returns true: there is nothing left to do */
  async #round(): Promise<boolean> {
    const { behind, bring, finish } = this.#options
    for (const name of behind()) {
      if (this.#stop.signal.aborted) return false
      if (await bring(name)) this.#trouble = null
    }
    if (this.#stop.signal.aborted || behind().length > 0) return false
    return finish()
  }

  #note(text: string): void {
    this.#trouble = text
    this.#options.onTrouble(text)
  }
}
