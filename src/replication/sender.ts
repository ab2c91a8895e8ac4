import { Pause } from '../block/pause.js'
import { StorageError } from '../block/storage-error.js'
import type { Transport } from '../transport/transport.js'
import type { SourceBuffer } from './source-buffer.js'
import type { StreamState } from './stream-state.js'
import { TransferRate } from './transfer-rate.js'

/** Files under way at once. */
const parallelFiles = 2
/** Files handed to the transport before the position is recorded again. */
const batchFiles = 8
const firstBackoffMs = 250
const lastBackoffMs = 10_000
/** The same part is sent again at most this often, however often it is asked for. */
const resendCooldownMs = 3_000
const cooldownLimit = 4096
/** Whatever there is to send wakes it. */
const idlePollMs = 5_000

export interface SenderOptions {
  /** The stream's folder at the destination. */
  readonly folder: string
  readonly state: StreamState
  readonly buffer: SourceBuffer
  readonly transport: Transport
  /** Pausing holds files back; they stay in the buffer. */
  readonly paused: () => boolean
  /** null: the last transfer worked. */
  readonly onLink: (error: StorageError | null) => void
  readonly onSent: () => void
}

interface PartFile {
  readonly epoch: number
  readonly name: string
}

/** Moves the source buffer's files to the destination, in order, again and again until it worked. */
export class Sender {
  readonly rate = new TransferRate()
  readonly pause = new Pause()
  readonly #options: SenderOptions
  #backoffMs = 0
  /** Files that arrived, ever. */
  #arrivals = 0
  /** Parts to send again, by name, before anything new. */
  readonly #again = new Map<string, PartFile>()
  readonly #sentAtMs = new Map<string, number>()
  /** Files of epochs beyond sentEpoch that did arrive: a failed batch does not send them twice. */
  readonly #arrived = new Set<string>()

  constructor(options: SenderOptions) {
    this.#options = options
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const batch = this.#options.paused() ? [] : this.#next()
      if (batch.length === 0) {
        await this.pause.wait(idlePollMs, signal)
        continue
      }
      const before = this.#arrivals
      try {
        await this.#send(batch, signal)
        this.#backoffMs = 0
        this.#options.onLink(null)
      } catch (error) {
        if (signal.aborted) return
        if (!(error instanceof StorageError)) throw error
        this.#options.onLink(error)
        // A link that comes and goes carries something each time: waiting longer would not make it better.
        if (this.#arrivals > before) this.#backoffMs = 0
        this.#backoffMs = Math.min(Math.max(this.#backoffMs * 2, firstBackoffMs), lastBackoffMs)
        await new Pause().wait(this.#backoffMs, signal)
      }
    }
  }

  /** Send these parts again; what is in no committed epoch any more is ignored. */
  again(places: readonly { readonly epoch: number; readonly part: number }[], nowMs = performance.now()): void {
    for (const { epoch, part } of places) {
      const name = this.#options.state.epochs.get(epoch)?.parts[part]?.name
      if (name === undefined || epoch > this.#options.state.position.sentEpoch) continue
      if (nowMs - (this.#sentAtMs.get(name) ?? Number.NEGATIVE_INFINITY) < resendCooldownMs) continue
      this.#again.set(name, { epoch, name })
    }
    if (this.#again.size > 0) this.pause.wake()
  }

  #next(): PartFile[] {
    // What was applied meanwhile is gone from the buffer.
    for (const { name, epoch } of this.#again.values())
      if (!this.#options.state.epochs.has(epoch)) this.#again.delete(name)
    if (this.#again.size > 0) return [...this.#again.values()].slice(0, batchFiles)
    const batch: PartFile[] = []
    const { sentEpoch, cutEpoch } = this.#options.state.position
    for (let epoch = sentEpoch + 1; epoch <= cutEpoch && batch.length < batchFiles; epoch++) {
      const parts = this.#options.state.epochs.get(epoch)?.parts ?? []
      for (const { name } of parts) if (!this.#arrived.has(name)) batch.push({ epoch, name })
    }
    return batch
  }

  async #send(batch: readonly PartFile[], signal: AbortSignal): Promise<void> {
    const { folder, transport, buffer, state } = this.#options
    const queue = [...batch]
    let sentBytes = 0
    const onProgress = (bytes: number): void => {
      sentBytes += bytes
      this.rate.add(bytes)
    }
    const lane = async (): Promise<void> => {
      for (let file = queue.shift(); file && !signal.aborted; file = queue.shift()) {
        await buffer.read(file.name, (path) => transport.put(folder, file.name, path, { signal, onProgress }))
        this.#noteSent(file.name)
      }
    }
    const lanes = await Promise.allSettled(Array.from({ length: parallelFiles }, lane))
    await state.move(({ counters }) => ({
      sentEpoch: this.#sentPrefix(),
      counters: { ...counters, sentBytes: counters.sentBytes + sentBytes },
    }))
    const failed = lanes.find((result) => result.status === 'rejected')
    if (failed) throw failed.reason
    this.#options.onSent()
  }

  /** The last epoch up to which every file has arrived. */
  #sentPrefix(): number {
    const { epochs, position } = this.#options.state
    let { sentEpoch } = position
    for (; sentEpoch < position.cutEpoch; sentEpoch++) {
      const parts = epochs.get(sentEpoch + 1)?.parts ?? []
      if (!parts.every(({ name }) => this.#arrived.has(name))) break
      for (const { name } of parts) this.#arrived.delete(name)
    }
    return sentEpoch
  }

  #noteSent(name: string): void {
    this.#arrivals += 1
    if (!this.#again.delete(name)) this.#arrived.add(name)
    this.#sentAtMs.delete(name)
    this.#sentAtMs.set(name, performance.now())
    if (this.#sentAtMs.size > cooldownLimit) this.#sentAtMs.delete(this.#sentAtMs.keys().next().value!)
  }
}
