import { Pause } from '../block/pause.js'
import type { StreamJournal } from '../journal/stream-journal.js'
import type { Transport } from '../transport/transport.js'
import { AcknowledgementReader } from './acknowledgement-reader.js'
import { Checkpoints } from './checkpoints.js'
import { EpochCutter, type EpochCutterOptions } from './epoch-cutter.js'
import { Sender } from './sender.js'
import type { StreamHealth } from './stream-health.js'

const epochSplit =
  'What was to appear at the destination at once is more than the source buffer holds. It appears in several epochs; until the last one the copy there is of two moments.'

type CutterOptions = Omit<EpochCutterOptions, 'pause' | `on${string}`>

export interface RunningStreamOptions extends CutterOptions {
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
    const { secret, state, buffer, journal, transport, health, onChange } = options
    const folder = options.definition.id
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
      ...options,
      pause: new Pause(),
      onCut: () => {
        this.sender.pause.wake()
        onChange()
      },
      onBufferFull: (full) => {
        health.bufferFull = full
      },
      onLetGo: () => health.say('warning', 'EPOCH_SPLIT', epochSplit),
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
