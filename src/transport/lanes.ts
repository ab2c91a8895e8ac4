import { setMaxListeners } from 'node:events'
import { transferFault } from './faults.js'

/** Calls that may wait for their turn; more is a caller that does not wait for what it asked. */
const WAITING_LIMIT = 10_000

/** Runs at most `limit` pieces of work at once, and one at a time for each key that is given; waiting ends when the signal aborts. */
export class Lanes {
  readonly #busy = new Set<string | symbol>()
  readonly #waiting = new Set<() => boolean>()

  constructor(readonly limit: number) {}

  async run<T>(key: string | undefined, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    // One signal stops all calls of a caller; that so many listen to it is no leak.
    setMaxListeners(0, signal)
    const place = key ?? Symbol('place')
    await this.#enter(place, signal)
    try {
      return await work()
    } finally {
      this.#busy.delete(place)
      // First come, first served; one who waits for a key that is busy does not hold up those behind.
      for (const start of this.#waiting) if (start() && this.#busy.size >= this.limit) break
    }
  }

  #tryEnter(key: string | symbol): boolean {
    if (this.#busy.size >= this.limit || this.#busy.has(key)) return false
    this.#busy.add(key)
    return true
  }

  async #enter(key: string | symbol, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.#tryEnter(key)) return
    if (this.#waiting.size >= WAITING_LIMIT) throw transferFault('REMOTE_BUSY', 'wait', String(key))
    await new Promise<void>((resolve, reject) => {
      const leave = () => {
        this.#waiting.delete(start)
        signal.removeEventListener('abort', abort)
      }
      const start = () => {
        if (!this.#tryEnter(key)) return false
        leave()
        resolve()
        return true
      }
      const abort = () => {
        leave()
        reject(signal.reason)
      }
      this.#waiting.add(start)
      signal.addEventListener('abort', abort, { once: true })
    })
  }
}
