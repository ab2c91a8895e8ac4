import { Exclusive } from '../block/exclusive.js'
import { Pause } from '../block/pause.js'
import { StorageError } from '../block/storage-error.js'
import { lsn } from '../block/units.js'
import type { StreamJournal } from '../journal/stream-journal.js'
import type { RecordedVolumes } from './recorded-volumes.js'
import type { RegionKeeper } from './region-keeper.js'
import type { StreamHealth } from './stream-health.js'
import type { StreamState } from './stream-state.js'

/** Hosts wait at most so long for room in a full journal while epochs are cut. */
const roomLimitMs = 20_000
const roomPollMs = 100
const backingUnsynced = 'BACKING_UNSYNCED'

export interface CheckpointParts {
  readonly volumes: RecordedVolumes
  readonly state: StreamState
  readonly regions: RegionKeeper
  readonly health: StreamHealth
}

/** Keeps the replay after a crash short, and makes room in the journal. */
export class Checkpoints {
  readonly #journal: StreamJournal
  readonly #volumes: RecordedVolumes
  readonly #state: StreamState
  readonly #regions: RegionKeeper
  readonly #health: StreamHealth
  readonly #turns = new Exclusive()
  /** Ends the wait for the next one. */
  readonly pause = new Pause()

  constructor(journal: StreamJournal, { volumes, state, regions, health }: CheckpointParts) {
    this.#journal = journal
    this.#volumes = volumes
    this.#state = state
    this.#regions = regions
    this.#health = health
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.pause.wait(this.#journal.checkpointMs, signal)
      if (signal.aborted) return
      await this.#take().catch(unlessNotTaken)
      await this.#tendRegions(signal)
    }
  }

  /**
   * The journal is full and hosts wait: give up what is on the backing and in an epoch.
   *
   * @param mayHelp false when waiting is in vain: no more epochs are cut
   * @param since what was trimmed when it was found full
   * @returns whether there is room now
   */
  async makeRoom(mayHelp: () => boolean, since = this.#journal.trimmedSegments): Promise<boolean> {
    const deadline = performance.now() + roomLimitMs
    // The loop above may be the one that made it.
    while (!(await this.#take()) && this.#journal.trimmedSegments === since) {
      if (!mayHelp() || performance.now() > deadline) return false
      await new Promise((resolve) => setTimeout(resolve, roomPollMs))
    }
    return true
  }

  /** Not once the journal may have been given up: who writes without it counts on what it finds in the record. */
  async #tendRegions(signal: AbortSignal): Promise<void> {
    const cutLsn = lsn(BigInt(this.#state.position.cutLsn))
    if (!signal.aborted) await this.#regions.tend(this.#journal, cutLsn)
  }

  /** Epochs go on being cut and sent when it fails: the far side may soon have the only whole copy. */
  async #sync(): Promise<void> {
    try {
      await this.#volumes.sync()
    } catch (cause) {
      if (!(cause instanceof StorageError) || cause.code !== 'IO_FAILED') throw cause
      const failed = unsynced(cause)
      this.#health.noteUnsynced(failed)
      throw failed
    }
    this.#health.noteUnsynced(null)
  }

  /** @returns whether a segment became free */
  #take(): Promise<boolean> {
    return this.#turns.run(async () => {
      await this.#journal.checkpoint(() => this.#sync())
      return this.#journal.trim(lsn(BigInt(this.#state.position.cutLsn)))
    })
  }
}

/** Not taken for now; the journal is kept from the one before on. */
const notTaken = new Set(['STATE_UNAVAILABLE', backingUnsynced])

function unlessNotTaken(error: unknown): void {
  if (!(error instanceof StorageError) || !notTaken.has(error.code)) throw error
}

function unsynced(cause: StorageError): StorageError {
  return new StorageError(backingUnsynced, {
    op: 'checkpoint',
    object: cause.object,
    cause,
    hint: 'The disk below a volume failed a sync. What it may have lost is kept in the journal, and written again by the next start of the agent: mend the disk (see dmesg), then restart the agent.',
  })
}
