import { Pause } from '../block/pause.js'
import type { StreamJournal } from '../journal/stream-journal.js'
import type { AcknowledgementReader } from './acknowledgement-reader.js'
import { Checkpoints } from './checkpoints.js'
import { EpochCutter, type EpochCutterOptions } from './epoch-cutter.js'
import type { RegionKeeper } from './region-keeper.js'
import type { Sender } from './sender.js'
import { StreamVerify } from './stream-verify.js'
import { LoopGroup, Transfers, type TransfersOptions } from './transfers.js'

const epochSplit =
  'What was to appear at the destination at once is more than the source buffer holds. It appears in several epochs; until the last one the copy there is of two moments.'

type CutterOptions = Omit<EpochCutterOptions, 'pause' | 'verify' | `on${string}`>

export interface RunningStreamOptions extends CutterOptions, Omit<TransfersOptions, keyof CutterOptions> {
  readonly regions: RegionKeeper
}

/** The loops of a stream that records writes: cutting, sending, listening for acknowledgements, checkpoints. */
export class RunningStream {
  readonly journal: StreamJournal
  readonly checkpoints: Checkpoints
  readonly cutter: EpochCutter
  readonly sender: Sender
  readonly acknowledgements: AcknowledgementReader
  readonly #group: LoopGroup

  constructor(options: RunningStreamOptions) {
    const { journal, health, onChange } = options
    this.journal = journal
    this.checkpoints = new Checkpoints(journal, options)
    const transfers = new Transfers(options)
    this.sender = transfers.sender
    this.acknowledgements = transfers.acknowledgements
    this.cutter = new EpochCutter({
      ...options,
      pause: new Pause(),
      verify: new StreamVerify({ ...options, journal }),
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
    this.#group = new LoopGroup([this.cutter, this.checkpoints, ...transfers.loops], (error) => {
      health.noteFailure(error)
      onChange()
    })
  }

  get stop(): AbortController {
    return this.#group.stop
  }

  /** All loops have ended; never rejects. */
  get ended(): Promise<void> {
    return this.#group.ended
  }
}
