import { StorageError } from '../block/storage-error.js'
import { WorkerCalls } from '../block/worker-calls.js'

/** What a worker makes of one stream's volumes and journal. */
export type PackMethod = 'planCopy' | 'planDigests' | 'digest' | 'pack' | 'written'

export interface Packer {
  /**
   * @param signal aborted: a call that hangs is given up, where no other stream's can be lost by it
   * @throws StorageError DISK_HANGS, WORKER_ENDED, and those of the method
   */
  call<T>(method: PackMethod, argument: unknown, signal?: AbortSignal): Promise<T>
}

/** The part of WorkerCalls that is used here. */
export type PackWorker = Pick<WorkerCalls, 'call' | 'abandon' | 'close'>

export interface PackWorkersOptions {
  readonly start: () => PackWorker
  readonly tickMs: number
}

/** Without an answer for so many ticks a call hangs, or its disk is too slow for the others to wait for it. */
const HANG_TICKS = 30
/** The same while another hangs: often it is one disk. A stream whose calls take longer keeps a worker of its own. */
const SLOW_TICKS = 10
/** Streams with a worker of their own, and workers that the kernel has not let go of, at the most. */
const SUSPECT_LIMIT = 8
/** What is aborted ends in order within this time, or is given up. */
const ABORT_TICKS = 2

/** Nothing is known of what was asked: the same may be asked again. */
export function isUnanswered({ code }: StorageError): boolean {
  return code === 'WORKER_ENDED' || code === 'DISK_HANGS'
}

function diskHangs(hint: string): StorageError {
  return new StorageError('DISK_HANGS', { op: 'make an epoch', object: 'pack-worker', retry: 'later', hint })
}

interface Call {
  readonly stream: string
  readonly method: PackMethod
  ticks: number
  hung: boolean
}

/** A worker, and what it was asked and has not answered. */
class Watched {
  readonly worker: PackWorker
  /** In the order in which they were asked. */
  readonly calls = new Set<Call>()

  constructor(worker: PackWorker) {
    this.worker = worker
  }

  /** Calls that it works on: the first of those that take turns, and all that take none. */
  get underWay(): Call[] {
    const first = [...this.calls].find(({ method }) => method !== 'written')
    return [...this.calls].filter((call) => call === first || call.method === 'written')
  }
}

/** A stream whose disks hung, by itself until an epoch of it went well. */
interface Suspect {
  watched: Watched | undefined
  /** Epochs that this worker has sealed and was not asked about: it alone knows them. */
  owed: number
  idleTicks: number
  slowestTicks: number
}

/**
 * The workers that make epochs: one for all streams, whose disks are well, and one for each whose disks hang.
 *
 * A worker reads volumes and journals and writes source buffers. A disk that hangs holds it in the kernel, and with it
 * whoever waits behind. When a call gets no answer for half a minute its worker is killed, what others asked it fails
 * (WORKER_ENDED) and is asked again of a new one; the stream that hung goes on with a worker of its own, where it may hang
 * as long as its disk does. Time is counted in ticks: an agent that stood still for a while blames nobody.
 *
 * Killed, and never left running: one that came to life would put files in the place of those made since. What it has begun
 * in the kernel it still ends, before anybody else can name a file in the same folder.
 */
export class PackWorkers {
  readonly #options: PackWorkersOptions
  #shared: Watched
  readonly #suspects = new Map<string, Suspect>()
  /** Killed, and held in the kernel. */
  #lingering = 0
  #timer: NodeJS.Timeout | undefined

  constructor({
    start = () => new WorkerCalls(new URL('pack-worker.js', import.meta.url), { holdsLock: false }),
    tickMs = 1_000,
  }: Partial<PackWorkersOptions> = {}) {
    this.#options = { start, tickMs }
    this.#shared = new Watched(start())
  }

  of(stream: string): Packer {
    return { call: (method, argument, signal) => this.#call(stream, method, argument, signal) }
  }

  /** What waits fails. Does not wait for one that hangs. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    const all = [this.#shared, ...[...this.#suspects.values()].map(({ watched }) => watched)]
    this.#suspects.clear()
    const ended = Promise.all(all.map((watched) => watched?.worker.abandon()))
    let timer: NodeJS.Timeout | undefined
    const enough = new Promise((resolve) => {
      timer = setTimeout(resolve, ABORT_TICKS * this.#options.tickMs)
    })
    await Promise.race([ended, enough])
    clearTimeout(timer)
  }

  async #call<T>(stream: string, method: PackMethod, argument: unknown, signal?: AbortSignal): Promise<T> {
    const suspect = this.#suspects.get(stream)
    if (!suspect) return this.#ask<T>(this.#shared, { stream, method, ticks: 0, hung: false }, argument)
    const watched = this.#workerOf(suspect)
    const call: Call = { stream, method, ticks: 0, hung: false }
    let overdue: NodeJS.Timeout | undefined
    const abort = (): void => {
      overdue = setTimeout(() => this.#giveUp(suspect), ABORT_TICKS * this.#options.tickMs)
    }
    if (signal?.aborted) abort()
    else signal?.addEventListener('abort', abort, { once: true })
    if (method === 'written' && suspect.owed > 0) suspect.owed -= 1
    try {
      const value = await this.#ask<T>(watched, call, argument)
      if (method === 'pack') suspect.owed += 1
      suspect.slowestTicks = Math.max(suspect.slowestTicks, call.ticks)
      if (method === 'written' && watched.calls.size === 0 && suspect.owed === 0) this.#acquit(stream, suspect)
      return value
    } catch (error) {
      // It has forgotten what it had sealed.
      if (error instanceof StorageError && isUnanswered(error)) suspect.owed = 0
      throw error
    } finally {
      clearTimeout(overdue)
      signal?.removeEventListener('abort', abort)
    }
  }

  async #ask<T>(watched: Watched, call: Call, argument: unknown): Promise<T> {
    watched.calls.add(call)
    this.#timer ??= setInterval(() => this.#tick(), this.#options.tickMs).unref()
    try {
      return await watched.worker.call<T>(call.method, argument)
    } catch (error) {
      if (!call.hung) throw error
      throw diskHangs(
        'The disk of a volume, of the journal or of the source buffer gives no answer (see dmesg). It is waited for; other streams go on.',
      )
    } finally {
      watched.calls.delete(call)
    }
  }

  /** @throws StorageError DISK_HANGS */
  #workerOf(suspect: Suspect): Watched {
    if (suspect.watched) return suspect.watched
    if (this.#isFull) {
      throw diskHangs('So do those of several others (see dmesg). It is tried again when one of them answers.')
    }
    Object.assign(suspect, { watched: new Watched(this.#options.start()), owed: 0, idleTicks: 0 })
    return suspect.watched!
  }

  get #isFull(): boolean {
    const own = [...this.#suspects.values()].filter(({ watched }) => watched).length
    return own >= SUSPECT_LIMIT || this.#lingering >= SUSPECT_LIMIT
  }

  #tick(): void {
    let someHang = false
    for (const suspect of this.#suspects.values()) {
      const { watched } = suspect
      if (!watched) continue
      someHang = true
      for (const call of watched.underWay) call.ticks += 1
      suspect.idleTicks = watched.calls.size === 0 ? suspect.idleTicks + 1 : 0
      if (suspect.idleTicks === SLOW_TICKS) this.#giveUp(suspect)
    }
    for (const call of this.#shared.underWay) call.ticks += 1
    const late = this.#shared.underWay.filter(({ ticks }) => ticks >= (someHang ? SLOW_TICKS : HANG_TICKS))
    // With so many that hang the rest waits for them.
    if (late.length > 0 && !this.#isFull) this.#suspect(late)
    if (someHang || this.#shared.calls.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #suspect(late: readonly Call[]): void {
    for (const call of late) {
      call.hung = true
      this.#suspects.set(call.stream, { watched: undefined, owed: 0, idleTicks: 0, slowestTicks: 0 })
    }
    const { worker } = this.#shared
    this.#shared = new Watched(this.#options.start())
    this.#abandon(worker)
  }

  /** Its epoch is in the source buffer. Back to the others, unless they would wait for it again. */
  #acquit(stream: string, suspect: Suspect): void {
    const { slowestTicks } = suspect
    suspect.slowestTicks = 0
    if (slowestTicks >= SLOW_TICKS || this.#suspects.get(stream) !== suspect) return
    this.#suspects.delete(stream)
    this.#giveUp(suspect)
  }

  #giveUp(suspect: Suspect): void {
    const { watched } = suspect
    suspect.watched = undefined
    if (watched) this.#abandon(watched.worker)
  }

  #abandon(worker: PackWorker): void {
    this.#lingering += 1
    void worker.abandon().then(() => {
      this.#lingering -= 1
    })
  }
}
