import { StorageError } from './storage-error.js'
import { WorkerCalls } from './worker-calls.js'

/** A call without any progress for so long hangs. */
const SILENCE_MS = 120_000
/** What was aborted ends in order within this time, or is left alone. */
const ABORT_MS = 1_000

export interface HangingWorkerOptions {
  readonly script: URL
  /** What a call fails with that gets no answer. */
  readonly hung: (method: string) => unknown
  readonly silenceMs: number | undefined
}

export interface Listening {
  /** An aborted call fails with its reason, after a second at the latest. */
  readonly signal?: AbortSignal
  readonly onAbort?: () => void
  readonly onProgress?: ((progress: unknown) => void) | undefined
}

/**
 * A process that touches what others serve: a share whose server is gone holds up whoever touches it, in the kernel and
 * for ever. In the agent's own threads, of which there are four, that would stop all that it does with files, and keep it
 * from ending, when it is killed too.
 *
 * A process that hangs is killed; until it is gone every call fails at once, so that there is one at the most. What it may
 * still finish then is one call to the kernel.
 */
export class HangingWorker {
  readonly #worker: WorkerCalls
  readonly #hung: (method: string) => unknown
  readonly #silenceMs: number
  #hangs = false
  #closed = false

  constructor({ script, hung, silenceMs = SILENCE_MS }: HangingWorkerOptions) {
    this.#worker = new WorkerCalls(script, { holdsLock: false })
    this.#hung = hung
    this.#silenceMs = silenceMs
  }

  async call<T>(method: string, argument: unknown, { signal, onAbort, onProgress }: Listening = {}): Promise<T> {
    signal?.throwIfAborted()
    let timer: NodeJS.Timeout | undefined
    let abort = (): void => undefined
    const over = new Promise<never>((_resolve, reject) => {
      const silent = (): void => {
        reject(this.#hung(method))
        this.#giveUp()
      }
      timer = setTimeout(silent, this.#silenceMs)
      abort = () => {
        clearTimeout(timer)
        timer = setTimeout(() => reject(signal?.reason), ABORT_MS)
        onAbort?.()
      }
    })
    signal?.addEventListener('abort', abort, { once: true })
    const progress = (told: unknown): void => {
      if (!signal?.aborted) timer?.refresh()
      onProgress?.(told)
    }
    try {
      return await Promise.race([this.listen<T>(method, argument, progress), over])
    } catch (error) {
      signal?.throwIfAborted()
      throw error
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', abort)
    }
  }

  /** As call(), but it may be silent for ever. */
  async listen<T>(method: string, argument: unknown, onProgress?: (progress: unknown) => void): Promise<T> {
    if (this.#hangs || this.#closed) throw this.#hung(method)
    try {
      return await this.#worker.call<T>(method, argument, onProgress)
    } catch (error) {
      throw error instanceof StorageError && error.code === 'WORKER_ENDED' ? this.#hung(method) : error
    }
  }

  /** What is under way fails, and so does what comes after. */
  close(): void {
    this.#closed = true
    this.#giveUp()
  }

  #giveUp(): void {
    if (this.#hangs) return
    this.#hangs = true
    this.#worker.abandon().then(() => {
      this.#hangs = false
    })
  }
}
