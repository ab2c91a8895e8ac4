import type { Pause } from '../block/pause.js'
import { StorageError } from '../block/storage-error.js'
import { epochNumber, type Lsn, lsn, safeNumber } from '../block/units.js'
import type { WorkerCalls } from '../block/worker-calls.js'
import type { StreamJournal } from '../journal/stream-journal.js'
import type { CatchUp } from './catch-up.js'
import { type CutDecision, planCut } from './cut-planner.js'
import type { PackJob, PackResult } from './pack-job.js'
import type { RecordedVolumes } from './recorded-volumes.js'
import type { SourceBuffer } from './source-buffer.js'
import type { CopyCursor, StreamDefinition, StreamPosition, StreamState } from './stream-state.js'

/** How often an idle journal is looked at, and a busy one. */
const idlePollMs = 200
const busyPollMs = 40
/** A backing write that is still under way is waited for this long before its region is read. */
const settlePollMs = 2
const retryMs = 2_000

export interface EpochCutterOptions {
  readonly definition: StreamDefinition
  readonly pairingId: Buffer
  readonly secret: Buffer
  readonly state: StreamState
  readonly buffer: SourceBuffer
  readonly bufferLimitBytes: number
  readonly journal: StreamJournal
  readonly volumes: RecordedVolumes
  readonly catchUp: CatchUp
  readonly packer: WorkerCalls
  /** Ends waits when a flush is asked for. */
  readonly pause: Pause
  readonly onCut: () => void
  readonly onBufferFull: (full: boolean) => void
  /** What was to appear at once does not fit the buffers: it appears in several epochs. */
  readonly onLetGo: () => void
  /** A disk that may recover: tried again after a while. null: the last cut worked. */
  readonly onTrouble: (error: StorageError | null) => void
}

/** Cuts the journal into epochs and puts them, sealed, into the source buffer. */
export class EpochCutter {
  readonly #options: EpochCutterOptions
  #openSinceMs: number | null = null
  #flushTarget: Lsn = lsn(0n)

  constructor(options: EpochCutterOptions) {
    this.#options = options
  }

  /** Everything up to here shall be cut without waiting for time or size. */
  flush(target: Lsn): void {
    if (target > this.#flushTarget) this.#flushTarget = target
    this.#options.pause.wake()
  }

  /** Journaled and not yet in an epoch. */
  get openBytes(): number {
    return safeNumber(this.#options.journal.counters().publishedLsn - this.#cutLsn)
  }

  /** When the oldest write that is in no epoch yet was seen, milliseconds since 1970, or null. */
  get openSinceMs(): number | null {
    return this.#openSinceMs
  }

  get #position(): StreamPosition {
    return this.#options.state.position
  }

  get #cutLsn(): Lsn {
    return lsn(BigInt(this.#position.cutLsn))
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const decision = this.#plan()
      this.#options.onBufferFull(decision === 'buffer-full')
      if (decision === 'cut') await this.#attempt(() => this.#cut(signal), signal)
      else if (decision === 'let-go') await this.#attempt(() => this.#letGo(), signal)
      else await this.#options.pause.wait(this.#openSinceMs === null ? idlePollMs : busyPollMs, signal)
    }
  }

  async #attempt(step: () => Promise<void>, signal: AbortSignal): Promise<void> {
    try {
      await step()
      this.#options.onTrouble(null)
    } catch (error) {
      if (!(error instanceof StorageError) || error.retry !== 'later') throw error
      this.#options.onTrouble(error)
      await this.#options.pause.wait(retryMs, signal)
    }
  }

  async #letGo(): Promise<void> {
    await this.#options.state.move(({ cutLsn }) => ({ held: false, copyEndLsn: cutLsn }))
    this.#options.onLetGo()
  }

  #plan(): CutDecision {
    const published = this.#options.journal.counters().publishedLsn
    const openBytes = safeNumber(published - this.#cutLsn)
    const nowMs = Date.now()
    if (openBytes <= 0) this.#openSinceMs = null
    // A clock that jumped back must not hold the epoch open.
    else if (this.#openSinceMs === null || this.#openSinceMs > nowMs) this.#openSinceMs = nowMs
    return planCut({
      nowMs,
      openSinceMs: this.#openSinceMs,
      openBytes,
      epochMs: this.#options.definition.epochMs,
      flushing: this.#flushTarget > this.#cutLsn,
      bufferBytes: this.#options.buffer.bytes,
      bufferLimitBytes: this.#options.bufferLimitBytes,
      position: this.#position,
    })
  }

  /**
   * One epoch. Steps: (1) the journal is durable up to the cut, (2) backing writes of earlier epochs are done, then the
   * copy of an initialisation reads, (3) files are durable under their names, (4) the epoch is committed, (5) the
   * journal may be trimmed. Cutting what is not durable would let the far side run ahead of a recovered source; reading
   * before (2) could copy a block older than an epoch that was already sent; trimming before (4) would lose writes.
   * The copy may have read writes beyond this epoch: the far side is consistent from the LSN on that is durable after
   * the last read.
   */
  async #cut(signal: AbortSignal): Promise<void> {
    const { state, journal, volumes, packer, buffer, definition } = this.#options
    const from = this.#cutLsn
    const to = await journal.sync()
    const { copy, held, copyEndLsn, cutEpoch, generation, lastTag, consistentEpoch, catchUp } = state.position
    if (copy) await this.#backingReached(from, signal)
    if (signal.aborted) return
    const plan = copy && (await this.#options.catchUp.plan(volumes.copySources(), copy))
    const epoch = epochNumber(cutEpoch + 1)
    const result = await buffer.write(async (directory, placed) => {
      const packed = await packer.call<PackResult>('pack', {
        journal: { directory: journal.directory, id: journal.id, segmentBytes: journal.segmentBytes },
        from,
        to,
        place: {
          pairingId: this.#options.pairingId,
          streamId: Buffer.from(definition.id, 'hex'),
          generation,
          epoch,
          previousTag: Buffer.from(lastTag, 'hex'),
        },
        secret: this.#options.secret,
        consistentFrom: copy || held ? null : lsn(BigInt(copyEndLsn)),
        declare: cutEpoch === 0 ? this.#declarations() : [],
        copies: plan?.pieces ?? [],
        ontoZeros: consistentEpoch === 0 && catchUp === null,
        directory,
      } satisfies PackJob)
      // Another life of the stream may have begun: this epoch is not part of it.
      if (signal.aborted) return undefined
      placed(packed.parts.map(({ name }) => name))
      await this.#commit(epoch, packed, plan ? plan.next : null)
      return packed
    })
    if (!result) return
    if (result.endLsn >= to) this.#openSinceMs = null
    journal.trim(result.endLsn)
    this.#options.onCut()
  }

  async #commit(epoch: number, result: PackResult, copy: CopyCursor | null): Promise<void> {
    const copied = this.#position.copy !== null && copy === null
    const copiedLsn = copied ? await this.#options.journal.sync() : 0n
    const { endLsn, parts, rawBytes, oldestMs } = result
    await this.#options.state.commitEpoch(
      { epoch, endLsn: endLsn.toString(), parts, rawBytes, oldestMs },
      ({ counters, consistentEpoch, stateEpoch, copyEndLsn, catchUp }) => ({
        cutEpoch: epoch,
        cutLsn: endLsn.toString(),
        lastTag: Buffer.from(result.tag).toString('hex'),
        copy,
        copyEndLsn: latest(copyEndLsn, copiedLsn),
        consistentEpoch: consistentEpoch === 0 && !result.initializing ? epoch : consistentEpoch,
        stateEpoch: result.initializing ? stateEpoch : epoch,
        catchUp: catchUp?.untilEpoch === 0 && !result.initializing ? { ...catchUp, untilEpoch: epoch } : catchUp,
        counters: {
          rawBytes: counters.rawBytes + rawBytes,
          foldedBytes: counters.foldedBytes + result.foldedBytes,
          identicalBytes: counters.identicalBytes + result.identicalBytes,
          compressedBytes: counters.compressedBytes + result.compressedBytes,
          sentBytes: counters.sentBytes,
        },
      }),
    )
  }

  async #backingReached(target: Lsn, signal: AbortSignal): Promise<void> {
    while (!signal.aborted && this.#options.journal.counters().appliedLsn < target) {
      await new Promise((resolve) => setTimeout(resolve, settlePollMs))
    }
  }

  #declarations(): PackJob['declare'] {
    const { name, volumes } = this.#options.definition
    return volumes.map((volume) => ({
      volume: volume.index,
      stream: name,
      name: volume.name,
      sizeBytes: volume.sizeBytes,
    }))
  }
}

/** The later of two LSNs, as it is recorded. */
export function latest(recorded: string, other: bigint): string {
  return other > BigInt(recorded) ? other.toString() : recorded
}
