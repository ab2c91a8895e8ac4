import type { Pause } from '../block/pause.js'
import { StorageError } from '../block/storage-error.js'
import { epochNumber, type Lsn, lsn, safeNumber } from '../block/units.js'
import type { StreamJournal } from '../journal/stream-journal.js'
import type { CatchUp } from './catch-up.js'
import { type CopyPlan, type CopyPlanJob, planCopy } from './copy-planner.js'
import { type CutDecision, planCut } from './cut-planner.js'
import { IdleWatch } from './idle-watch.js'
import type { PackJob, PackResult } from './pack-job.js'
import type { Packer } from './pack-workers.js'
import type { RecordedVolumes } from './recorded-volumes.js'
import type { SourceBuffer } from './source-buffer.js'
import {
  type CopyCursor,
  copiesFrom,
  isAfresh,
  type StreamDefinition,
  type StreamPosition,
  type StreamState,
} from './stream-state.js'
import type { MadeDigests, StreamVerify } from './stream-verify.js'
import { advanceVerify, isVerifying } from './verify-state.js'

/** How often a journal is looked at that waits for something else than its first write, and a busy one. */
const slowPollMs = 200
const busyPollMs = 40
/** Of all streams of this process. */
const idle = new IdleWatch()
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
  readonly packer: Packer
  readonly verify: Pick<StreamVerify, 'isDue' | 'isWanted' | 'digests' | 'step'>
  /** Ends waits when a flush is asked for. */
  readonly pause: Pause
  readonly onCut: () => void
  readonly onBufferFull: (full: boolean) => void
  /** What was to appear at once does not fit the buffers: it appears in several epochs. */
  readonly onLetGo: () => void
  /** A disk that may recover: tried again after a while. null: the last cut worked. */
  readonly onTrouble: (error: StorageError | null) => void
  /** A clock that never jumps, milliseconds. */
  readonly now?: () => number
}

/** What an epoch is made of. */
interface PlannedEpoch {
  readonly from: Lsn
  readonly to: Lsn
  /** When its oldest write was seen; undefined: before this cutter began. */
  readonly sinceMs: number | undefined
  readonly plan: CopyPlan | null
  readonly digests: MadeDigests | null
}

/** An epoch that is sealed, and not committed yet: its files are being written. */
interface SealedEpoch {
  readonly epoch: number
  /** When its oldest write was seen, or null. */
  readonly openSinceMs: number | null
  /** What its commit makes of the position. */
  readonly change: (position: StreamPosition) => Partial<StreamPosition>
  readonly bytes: number
  /** It exists, or its failure is told; everything it had under way is over. */
  readonly committed: Promise<void>
}

/**
 * Cuts the journal into epochs and puts them, sealed, into the source buffer.
 *
 * While the files of one epoch are written the next one is made, as if the first existed already. It is never committed
 * before it, and not at all when the first one fails.
 */
export class EpochCutter {
  readonly #options: EpochCutterOptions
  #sealed: SealedEpoch | undefined
  #openSinceMs: number | null = null
  #flushTarget: Lsn = lsn(0n)
  readonly #now: () => number
  /** What the journal holds before this was written when nobody looked. */
  readonly #begunLsn: Lsn

  constructor(options: EpochCutterOptions) {
    this.#options = options
    this.#now = options.now ?? (() => performance.now())
    this.#begunLsn = options.journal.counters().publishedLsn
  }

  /** Everything up to here shall be cut without waiting for time or size. */
  flush(target: Lsn): void {
    if (target > this.#flushTarget) this.#flushTarget = target
    this.#options.pause.wake()
  }

  /** Journaled and not yet in an epoch. */
  get openBytes(): number {
    return safeNumber(this.#options.journal.counters().publishedLsn - BigInt(this.#options.state.position.cutLsn))
  }

  /** When the oldest write that is in no epoch yet was seen, by a clock that never jumps, or null. */
  get openSinceMs(): number | null {
    return this.#ahead?.openSinceMs ?? this.#openSinceMs
  }

  /** The epoch that is sealed, until it is committed. */
  get #ahead(): SealedEpoch | undefined {
    return this.#sealed && this.#options.state.position.cutEpoch < this.#sealed.epoch ? this.#sealed : undefined
  }

  /** As it will be when the epoch that is sealed is committed, too. */
  get #position(): StreamPosition {
    const { position } = this.#options.state
    return this.#ahead ? { ...position, ...this.#ahead.change(position) } : position
  }

  /** Only a write, a flush or a comparison gives it anything to do. */
  get #isIdle(): boolean {
    const { copy, held, consistentEpoch, stateEpoch, cutEpoch } = this.#options.state.position
    if (copy || held || this.#isVerifying) return false
    return this.#openSinceMs === null && consistentEpoch > 0 && cutEpoch === stateEpoch
  }

  get #isVerifying(): boolean {
    return isVerifying(this.#options.state.position.verify)
  }

  get #cutLsn(): Lsn {
    return lsn(BigInt(this.#position.cutLsn))
  }

  async run(signal: AbortSignal): Promise<void> {
    try {
      while (!signal.aborted) {
        const decision = this.#plan()
        this.#options.onBufferFull(decision === 'buffer-full')
        if (this.#options.verify.isDue) await this.#attempt(() => this.#takeVerifyStep(), signal)
        else if (decision === 'cut') await this.#attempt(() => this.#cut(signal), signal)
        else if (this.#sealed) await this.#attempt(() => this.#settle(), signal)
        else if (decision === 'let-go') await this.#attempt(() => this.#letGo(), signal)
        else if (this.#isIdle)
          await idle.wait(() => this.openBytes > 0 || this.#isVerifying, this.#options.pause, signal)
        else await this.#options.pause.wait(this.#openSinceMs === null ? slowPollMs : busyPollMs, signal)
      }
    } finally {
      await this.#sealed?.committed.catch(() => undefined)
    }
  }

  async #attempt(step: () => Promise<void>, signal: AbortSignal): Promise<void> {
    try {
      await step()
      if (!this.#sealed) this.#options.onTrouble(null)
    } catch (error) {
      await this.#settle().catch(() => undefined)
      if (!(error instanceof StorageError) || error.retry !== 'later') throw error
      this.#options.onTrouble(error)
      await this.#options.pause.wait(retryMs, signal)
    }
  }

  /** What it makes of the position must not meet what an epoch that is sealed makes of it. */
  async #takeVerifyStep(): Promise<void> {
    await this.#settle()
    await this.#options.verify.step()
  }

  async #letGo(): Promise<void> {
    await this.#options.state.move(({ cutLsn }) => ({ held: false, copyEndLsn: cutLsn }))
    this.#options.onLetGo()
  }

  #plan(): CutDecision {
    const published = this.#options.journal.counters().publishedLsn
    const openBytes = safeNumber(published - this.#cutLsn)
    const nowMs = this.#now()
    if (openBytes <= 0) this.#openSinceMs = null
    else this.#openSinceMs ??= nowMs
    return planCut({
      nowMs,
      openSinceMs: this.#openSinceMs,
      openBytes,
      epochMs: this.#options.definition.epochMs,
      flushing: this.#flushTarget > this.#cutLsn,
      bufferBytes: this.#options.buffer.bytes + (this.#ahead?.bytes ?? 0),
      bufferLimitBytes: this.#options.bufferLimitBytes,
      journalLimitBytes: this.#options.journal.limitBytes,
      position: this.#position,
    })
  }

  /** The epoch that is sealed exists from here on. @throws what kept it from that */
  async #settle(): Promise<void> {
    const sealed = this.#sealed
    try {
      await sealed?.committed
    } catch (error) {
      this.#openSinceMs = sealed?.openSinceMs ?? this.#openSinceMs
      throw error
    } finally {
      this.#sealed = undefined
    }
  }

  /**
   * One epoch. Steps: (1) the journal is durable up to the cut, (2) backing writes of earlier epochs are done, then the
   * copy of an initialisation reads, (3) files are durable under their names, (4) the epoch is committed, (5) the
   * journal may be trimmed. Cutting what is not durable would let the far side run ahead of a recovered source; reading
   * before (2) could copy a block older than an epoch that was already sent; trimming before (4) would lose writes.
   * The copy may have read writes beyond this epoch: the far side is consistent from the LSN on that is durable after
   * the last read.
   *
   * It ends when the epoch is sealed; (3) to (5) follow, after those of the epoch before.
   */
  async #cut(signal: AbortSignal): Promise<void> {
    const { journal } = this.#options
    const from = this.#cutLsn
    const sinceMs = from < this.#begunLsn ? undefined : (this.#openSinceMs ?? this.#now())
    const to = await journal.sync()
    const cursor = copiesFrom(this.#position)
    if (cursor) await this.#backingReached(from, signal)
    if (signal.aborted) return
    const plan = cursor && (await this.#planCopy(cursor, signal))
    const digests = await this.#digests(from, to, signal)
    if (signal.aborted) return
    const epoch = this.#position.cutEpoch + 1
    const planned = { from, to, sinceMs, plan, digests }
    const { sealed, committed } = this.#make(planned, this.#sealed?.committed, signal)
    // Whoever waits for it is told.
    committed.catch(() => undefined)
    const packed = await sealed
    try {
      await this.#settle()
    } catch (error) {
      await committed.catch(() => undefined)
      throw error
    }
    const bytes = packed.parts.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)
    const { openSinceMs } = this
    this.#sealed = { epoch, change: changeOf(packed, planned), bytes, openSinceMs, committed }
    if (packed.endLsn >= to) this.#openSinceMs = null
    // Where the far side is consistent is known when it is committed, not before.
    if (plan?.next === null) await this.#settle()
  }

  async #planCopy(cursor: CopyCursor, signal: AbortSignal): Promise<CopyPlan> {
    const { catchUp, packer, volumes } = this.#options
    const files = volumes.files()
    const regions = catchUp.plan(files, cursor)
    if (regions) return regions
    const known = volumes.sparse()
    if (known) return planCopy(known, cursor)
    return packer.call<CopyPlan>('planCopy', { volumes: files, cursor } satisfies CopyPlanJob, signal)
  }

  /** What the volumes hold at the end of this epoch is compared with the far side; null: not now. */
  async #digests(from: Lsn, to: Lsn, signal: AbortSignal): Promise<MadeDigests | null> {
    const { verify } = this.#options
    if (!verify.isWanted(this.#position, from, to)) return null
    await this.#backingReached(to, signal)
    return signal.aborted ? null : verify.digests(this.#position, signal)
  }

  /** @returns when it is sealed; and when it exists, or all it had under way is over */
  #make(
    planned: PlannedEpoch,
    before: Promise<void> | undefined,
    signal: AbortSignal,
  ): { sealed: Promise<PackResult>; committed: Promise<void> } {
    const { packer, buffer, journal } = this.#options
    const position = this.#position
    let isSealed: (packed: PackResult) => void = () => undefined
    const sealing = new Promise<PackResult>((resolve) => {
      isSealed = resolve
    })
    const committed = buffer.write(async (directory, placed) => {
      const packed = await packer.call<PackResult>('pack', this.#job(position, planned, directory), signal)
      isSealed(packed)
      await packer.call('written', packed.tag, signal)
      await before
      // Another life of the stream may have begun: this epoch is not part of it.
      if (signal.aborted) return
      placed(packed.parts.map(({ name }) => name))
      await this.#commit(position.cutEpoch + 1, packed, planned)
      this.#options.onTrouble(null)
      journal.trim(packed.endLsn)
      this.#options.onCut()
    })
    const sealed = Promise.race([sealing, committed.then(() => sealing)])
    return { sealed, committed }
  }

  #job(position: StreamPosition, { from, to, plan, digests }: PlannedEpoch, directory: string): PackJob {
    const { journal, definition } = this.#options
    const { copy, held, copyEndLsn, cutEpoch, generation, lastTag, consistentEpoch, catchUp } = position
    return {
      journal: { directory: journal.directory, id: journal.id, segmentBytes: journal.segmentBytes },
      from,
      to,
      place: {
        pairingId: this.#options.pairingId,
        streamId: Buffer.from(definition.id, 'hex'),
        generation,
        epoch: epochNumber(cutEpoch + 1),
        previousTag: Buffer.from(lastTag, 'hex'),
      },
      secret: this.#options.secret,
      volumeBytes: definition.volumes.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      consistentFrom: copy || held ? null : lsn(BigInt(copyEndLsn)),
      declare: cutEpoch === 0 ? this.#declarations() : [],
      copies: plan?.pieces ?? [],
      ontoZeros: consistentEpoch === 0 && catchUp === null,
      afresh: isAfresh(position),
      digests,
      directory,
    }
  }

  async #commit(epoch: number, result: PackResult, planned: PlannedEpoch): Promise<void> {
    const { state, journal } = this.#options
    const copiedLsn = planned.plan?.next === null ? await journal.sync() : 0n
    const { endLsn, parts, rawBytes, oldestMs } = result
    const change = changeOf(result, planned)
    const committed = (position: StreamPosition) => ({
      ...change(position),
      copyEndLsn: latest(position.copyEndLsn, copiedLsn),
    })
    await state.commitEpoch({ epoch, endLsn: endLsn.toString(), parts, rawBytes, oldestMs }, committed, planned.sinceMs)
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

/** What an epoch that exists makes of the position, wherever a copy ended. */
function changeOf(result: PackResult, { plan, digests }: PlannedEpoch): SealedEpoch['change'] {
  const { digestedBytes, busy } = result
  const digested = digests && {
    ...{ run: digests.run, isRetry: digests.isRetry, next: digests.next },
    digestedBytes,
    busy,
  }
  return ({ cutEpoch, counters, copy, consistentEpoch, stateEpoch, catchUp, verify }) => {
    const epoch = cutEpoch + 1
    return {
      cutEpoch: epoch,
      cutLsn: result.endLsn.toString(),
      lastTag: Buffer.from(result.tag).toString('hex'),
      copy: plan ? plan.next : copy,
      verify: advanceVerify(verify, epoch, digested),
      consistentEpoch: consistentEpoch === 0 && !result.initializing ? epoch : consistentEpoch,
      stateEpoch: result.initializing ? stateEpoch : epoch,
      catchUp: catchUp?.untilEpoch === 0 && !result.initializing ? { ...catchUp, untilEpoch: epoch } : catchUp,
      counters: {
        rawBytes: counters.rawBytes + result.rawBytes,
        foldedBytes: counters.foldedBytes + result.foldedBytes,
        identicalBytes: counters.identicalBytes + result.identicalBytes,
        compressedBytes: counters.compressedBytes + result.compressedBytes,
        sentBytes: counters.sentBytes,
      },
    }
  }
}

/** The later of two LSNs, as it is recorded. */
export function latest(recorded: string, other: bigint): string {
  return other > BigInt(recorded) ? other.toString() : recorded
}
