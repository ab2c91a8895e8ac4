import { Pause } from '../block/pause.js'
import type { WorkerCalls } from '../block/worker-calls.js'
import type { StreamJournal } from '../journal/stream-journal.js'
import type { Transport } from '../transport/transport.js'
import { AcknowledgementReader } from './acknowledgement-reader.js'
import { Checkpoints } from './checkpoints.js'
import { EpochCutter } from './epoch-cutter.js'
import type { RecordedVolumes } from './recorded-volumes.js'
import { Sender } from './sender.js'
import type { SourceBuffer } from './source-buffer.js'
import type { StreamHealth } from './stream-health.js'
import type { StreamDefinition, StreamState } from './stream-state.js'

export interface RunningStreamOptions {
  readonly definition: StreamDefinition
  readonly pairingId: Buffer
  readonly secret: Buffer
  readonly state: StreamState
  readonly buffer: SourceBuffer
  readonly bufferLimitBytes: number
  readonly journal: StreamJournal
  readonly volumes: RecordedVolumes
  readonly packer: WorkerCalls
  readonly transport: Transport
  readonly health: StreamHealth
  readonly paused: () => boolean
  /** Something that others may wait for has changed. */
  readonly onChange: () => void
}

/** The loops of a stream that records writes: cutting, sending, listening for acknowledgements, checkpoints. */
export class RunningStream {
  readonly journal: StreamJournal
  readonly checkpoints: Checkpoints
  readonly cutter: EpochCutter
  readonly sender: Sender
  readonly stop = new AbortController()
  /** All loops have ended; never rejects. */
  readonly ended: Promise<void>
  readonly #options: RunningStreamOptions

  constructor(options: RunningStreamOptions) {
    const { definition, secret, state, buffer, journal, transport, health, onChange } = options
    const folder = definition.id
    this.#options = options
    this.journal = journal
    this.checkpoints = new Checkpoints(journal, options.volumes, state)
    const acknowledgements = new AcknowledgementReader({
      folder,
      secret,
      state,
      transport,
      onApplied: async () => {
        await buffer.release(state.position.appliedEpoch)
        onChange()
      },
      onReport: (farState, reason) => health.noteFarSide(farState, reason),
      onWanted: (places) => this.sender.again(places),
      onLink: (error) => health.noteReading(error),
      onBadSeal: (error) => health.noteBadSeal(error),
    })
    this.sender = new Sender({
      folder,
      state,
      buffer,
      transport,
      paused: options.paused,
      onLink: (error) => health.noteSending(error),
      onSent: () => acknowledgements.expect(),
    })
    this.cutter = new EpochCutter({
      definition,
      pairingId: options.pairingId,
      secret,
      state,
      buffer,
      bufferLimitBytes: options.bufferLimitBytes,
      journal,
      packer: options.packer,
      pause: new Pause(),
      onCut: () => {
        this.sender.pause.wake()
        onChange()
      },
      onBufferFull: (full) => {
        health.bufferFull = full
      },
      onTrouble: (error) => health.noteTrouble(error),
    })
    const loops = [this.cutter, this.sender, acknowledgements, this.checkpoints]
    this.ended = Promise.all(loops.map((loop) => this.#guard(loop))).then(() => undefined)
  }

  /** A loop in which an invariant broke ends the others; hosts go on and are still recorded. */
  async #guard(loop: { run(signal: AbortSignal): Promise<void> }): Promise<void> {
    try {
      await loop.run(this.stop.signal)
    } catch (error) {
      if (!this.stop.signal.aborted) this.#options.health.noteFailure(error)
      this.stop.abort()
      this.#options.onChange()
    }
  }
}
