import type { ReportEvent } from '../block/event-log.js'
import { Exclusive } from '../block/exclusive.js'
import { Pause } from '../block/pause.js'
import type { StateStore } from '../block/state-store.js'
import { StorageError } from '../block/storage-error.js'
import type { WorkerCalls } from '../block/worker-calls.js'
import { sealAcknowledgement } from '../replication-file/acknowledgement.js'
import { PART_VERSION } from '../replication-file/part-header.js'
import { rangesText } from '../replication-file/volume-range.js'
import { applyEpochs } from './apply-epochs.js'
import { ArrivalBuffer } from './arrival-buffer.js'
import { addComparison, isWorthSaying } from './comparison.js'
import { checkDeclarations } from './declarations.js'
import { asStorageError } from './disk-fault.js'
import { Gap, type PartOfEpoch } from './gap.js'
import type { Images } from './images.js'
import { type InboundPosition, InboundState, nothingApplied } from './inbound-state.js'
import { describeInbound, type InboundStatus } from './inbound-status.js'
import type { InboxCalls } from './inbox.js'
import { INBOX_UNAVAILABLE } from './inbox-process.js'
import { Intake } from './intake.js'
import { type BatchLimits, type HeldPart, planSequence, receivedUpTo } from './sequencer.js'
import { showsState, tornReason, tornWhenGivenUp } from './shown-images.js'

const retryMs = 2_000
/** A folder is looked at this often without a hint that something came; a quiet one less often. */
const pollMs = 1_000
const quietPollMs = 5_000
/** Quiet is what nothing came from for so long. */
const quietAfterMs = 30_000
const gapPollMs = 250

export interface InboundStreamOptions {
  readonly pairingId: Buffer
  readonly streamId: Buffer
  readonly secret: Buffer
  readonly store: StateStore
  /** Private folder of this stream: arrivals, refused files. */
  readonly directory: string
  readonly images: Images
  readonly inbox: InboxCalls
  readonly worker: WorkerCalls
  readonly report: ReportEvent
  readonly limits?: BatchLimits
  /** Awaited after every batch of epochs that was applied; for tests that look at every epoch. */
  readonly onApplied?: (position: InboundPosition) => Promise<void>
  /** What gaps are timed by: a clock that never jumps, milliseconds. */
  readonly now?: () => number
}

/** The destination side of one stream: takes in what arrives, applies it in order, tells the source. */
export class InboundStream {
  readonly pause = new Pause()
  readonly #options: InboundStreamOptions
  readonly #state: InboundState
  readonly #arrivals: ArrivalBuffer
  readonly #intake: Intake
  readonly #gap: Gap
  /** Held while images change. */
  readonly #boundary = new Exclusive()
  /** Held while images are opened or removed; within #boundary, where both are. */
  readonly #opening = new Exclusive()
  #applying = false
  /** What keeps the next epoch from being applied; null: nothing. */
  #obstacle: StorageError | null = null
  #told = ''
  #busyAtMs = performance.now()

  constructor(options: InboundStreamOptions) {
    this.#options = options
    this.#state = new InboundState(options.store, options.pairingId.toString('hex'), options.streamId.toString('hex'))
    this.#arrivals = new ArrivalBuffer(options.directory)
    this.#gap = new Gap({ now: options.now, say: (...event) => this.#say(...event) })
    this.#intake = new Intake({
      ...options,
      arrivals: this.#arrivals,
      position: () => this.position,
      say: (severity, code, text) => this.#say(severity, code, text),
    })
  }

  get position(): InboundPosition {
    return this.#state.position
  }

  get waitingFiles(): number {
    return this.#intake.held.size
  }

  status(): InboundStatus {
    return describeInbound({
      position: this.position,
      obstacle: this.#obstacle,
      tooNew: this.#intake.nextIsTooNew,
      wanted: this.#wanted()[0],
      applying: this.#applying,
      newest: this.#intake.generation,
    })
  }

  /**
   * Run while no epoch is applied and each image shows a state of the source: for a snapshot of them. Epochs wait.
   * @throws StorageError BETWEEN_EPOCHS while an epoch that was cut short by a failure is not applied to its end, and
   * where that was given up, until the generation that follows is in place
   */
  atEpochBoundary<T>(action: () => Promise<T>): Promise<T> {
    return this.#boundary.run(async () => {
      if (showsState(this.position)) return action()
      const { intent, appliedEpoch, stream } = this.position
      const what = intent > appliedEpoch ? `Epoch ${appliedEpoch + 1} is applied in part. ` : ''
      throw new StorageError('BETWEEN_EPOCHS', {
        op: 'destage',
        object: stream,
        retry: 'later',
        hint: `${what}${this.status().reason}`,
      })
    })
  }

  /**
   * Forget the stream: its images, and what has arrived, are removed. What a source goes on to send of this generation
   * is dropped, and the source is told; one that it initializes anew begins here again.
   *
   * Steps: (1) the removal is recorded, (2) images and files go, (3) the volumes are recorded as gone. After a crash
   * behind (1) the next agent does the rest; (2) before (1) would leave a stream whose images nobody has.
   *
   * @throws StorageError VOLUME_OPEN, HAS_SNAPSHOTS, POOL_MISSING, DESTINATION_UNAVAILABLE: it is tried again until that is mended
   */
  async remove(): Promise<void> {
    await this.#boundary.run(async () => {
      const torn = !showsState(this.position)
      await this.#state.move({ removed: true, consistent: false, intent: 0, torn })
      this.#obstacle = null
      await this.#opening
        .run(() => this.#clear())
        .catch((error) => {
          throw asStorageError(error, this.#options.directory)
        })
    })
    this.pause.wake()
  }

  async #clear(): Promise<void> {
    await this.#options.images.remove(this.position.volumes)
    await this.#intake.clear()
    await this.#state.move({ volumes: [], torn: false })
  }

  async run(signal: AbortSignal): Promise<void> {
    this.#told = ''
    let reopened = false
    while (!signal.aborted) {
      let busy = false
      try {
        if (!reopened) await this.#intake.reopen()
        reopened = true
        busy = await this.#turn()
        await this.#tell()
      } catch (error) {
        await this.#meet(asStorageError(error, this.#options.directory), signal)
      }
      if (busy) this.#busyAtMs = performance.now()
      else await this.pause.wait(Math.min(this.#pollMs, this.#intake.listingDueMs), signal)
    }
  }

  /** Where others write over a network no hint comes: these find it by looking. */
  get #pollMs(): number {
    if (this.#gap.isOpen) return gapPollMs
    return performance.now() - this.#busyAtMs > quietAfterMs ? quietPollMs : pollMs
  }

  /** @returns whether there may be more to do at once */
  async #turn(): Promise<boolean> {
    await this.#opening.run(() => this.#settleImages())
    const taken = await this.#intake.take()
    await this.#dropRemoved()
    const plan = planSequence(this.position, this.#candidates(), this.#limits)
    for (const part of plan.obsolete) await this.#intake.drop(part)
    // What waits for a newer agent has been told.
    this.#gap.note(plan.missing, this.#intake.nextIsTooNew ? null : this.#intake.generation)
    if (plan.apply.length === 0) {
      // Images are open and arrivals were taken in: what was in the way is not any more.
      this.#noteOver()
      return taken > 0
    }
    try {
      await this.#boundary.run(async () => {
        // Removed meanwhile, with what had arrived.
        if (!plan.apply.flat().every(({ name }) => this.#intake.held.has(name))) return
        const { generation, beginning } = this.position
        if (plan.generation > generation || beginning) await this.#beginGeneration(plan.generation, plan.apply[0]!)
        await this.#apply(plan.apply)
      })
    } catch (error) {
      if (!(error instanceof StorageError) || error.code !== 'ARRIVAL_CHANGED') throw error
      await this.#intake.lookAgain(plan.apply.flat())
      return false
    }
    await this.#tell()
    for (const part of plan.apply.flat()) await this.#intake.drop(part)
    await this.#options.onApplied?.(this.position)
    return true
  }

  async #settleImages(): Promise<void> {
    const { removed, volumes } = this.position
    if (!removed) return this.#openImages()
    if (volumes.length === 0) return
    await this.#clear()
    this.#obstacle = null
  }

  /** Taken in while the stream was being removed. */
  async #dropRemoved(): Promise<void> {
    const { removed, generation } = this.position
    if (!removed) return
    for (const part of [...this.#intake.held.values()]) if (part.generation <= generation) await this.#intake.drop(part)
  }

  async #openImages(): Promise<void> {
    const { generation, volumes, consistent } = this.position
    if (generation > 0) await this.#options.images.open(volumes, consistent)
  }

  /**
   * An epoch that was half applied is applied whole before a newer generation is looked at: the image of the old one
   * stays readable meanwhile. Not when that has failed just now: then the new generation is the way out.
   */
  #candidates(): HeldPart[] {
    const { generation, appliedEpoch, intent, removed } = this.position
    const held = [...this.#intake.held.values()]
    const all = removed ? held.filter((part) => part.generation > generation) : held
    if (intent <= appliedEpoch || this.#obstacle) return all
    const current = all.filter((part) => part.generation === generation)
    return planSequence(this.position, current, this.#limits).apply.length > 0 ? current : all
  }

  /** After a failure one at a time, so that a bad epoch holds back none before it. */
  get #limits(): BatchLimits {
    if (this.#obstacle) return { epochs: 1, rawBytes: 1 }
    return this.#options.limits ?? { epochs: 16, rawBytes: 64 * 1024 * 1024 }
  }

  /**
   * The images of the generation before stay as they are until this one is consistent.
   *
   * Steps: (1) it is recorded that the generation begins, and whether what is shown is a state, (2) empty images are made,
   * (3) they are recorded. After a crash behind (1) they are made again. (2) before (1) could leave empty images to the
   * generation before: epochs of it that still arrive would be applied to them, and shown.
   */
  async #beginGeneration(generation: number, first: readonly HeldPart[]): Promise<void> {
    const declared = first.flatMap(({ name }) => this.#intake.held.get(name)?.declarations ?? [])
    const stream = declared[0]?.stream ?? this.position.streamId
    const checked = checkDeclarations(declared)
    const { images } = this.#options
    const wasTorn = this.position.torn
    const torn = await tornWhenGivenUp(this.position, images)
    const begun = {
      generation,
      stream,
      ...nothingApplied,
      consistent: false,
      intent: 0,
      removed: false,
      comparison: null,
    }
    await this.#state.move({ ...begun, torn, beginning: true })
    const volumes = await images.begin({ stream, volumes: checked, before: this.position.volumes })
    await this.#state.move({ volumes, beginning: false })
    await this.#openImages()
    this.#intake.forgetPassed()
    if (torn && !wasTorn) this.#say('warning', 'IMAGE_TORN', tornReason)
    this.#say('info', 'GENERATION_BEGUN', `generation ${generation}: ${volumes.map(({ name }) => name).join(', ')}`)
  }

  /**
   * Steps: (1) the files are durable here, (2) the intent is recorded, (3) the worker checks all, writes and syncs the
   * images, (4) a consistent generation takes its place, (5) the position is recorded, (6) the source is told and the
   * files are removed. A crash after (2) applies the same files again; telling the source before (5) could make it
   * drop what a crash still needs.
   */
  async #apply(epochs: readonly (readonly HeldPart[])[]): Promise<void> {
    const { secret, pairingId, streamId, images, worker } = this.#options
    const { generation, volumes, appliedEpoch, lastTag, consistent, intent: before } = this.position
    const last = appliedEpoch + epochs.length
    // Epochs beyond may be applied in part since an attempt that failed.
    const intent = Math.max(last, before)
    this.#applying = true
    try {
      await this.#arrivals.settle()
      await this.#state.move({ intent })
      const targets = volumes.map(async (volume) => ({
        index: volume.index,
        path: await images.target(volume, consistent),
        sizeBytes: volume.sizeBytes,
        disks: await images.disks(volume, consistent),
      }))
      const job = {
        secret,
        pairingId,
        streamId,
        generation,
        firstEpoch: appliedEpoch + 1,
        previousTag: Buffer.from(lastTag, 'hex'),
        images: await Promise.all(targets),
      }
      const files = epochs.map((parts) => ({
        files: parts.map(({ name }) => this.#arrivals.file(name)),
        rawBytes: parts.reduce((sum, part) => sum + part.rawBytes, 0),
      }))
      const result = await applyEpochs(worker, job, files).catch(async (error) => {
        // What can never be applied is found before anything is written.
        if (error instanceof StorageError && error.retry === 'never') await this.#state.move({ intent: before })
        throw error
      })
      const { compared } = result
      const { comparison } = this.position
      const nowConsistent = consistent || !epochs.at(-1)![0]!.initializing
      if (nowConsistent && !consistent) await images.promote(volumes)
      await this.#state.move({
        appliedEpoch: last,
        appliedLsn: result.endLsn.toString(),
        lastTag: Buffer.from(result.tag).toString('hex'),
        consistent: nowConsistent,
        ...(nowConsistent && { torn: false }),
        appliedTimeMs: Number(result.lastTimeNs / 1_000_000n),
        intent: last < intent ? intent : 0,
        ...(compared && { comparison: addComparison(comparison, compared) }),
      })
      if (compared && isWorthSaying(comparison, compared)) {
        const where = rangesText(compared.differing, volumes)
        this.#say('error', 'IMAGE_DIFFERS', `${compared.differingBytes} bytes differ from the source: ${where}`)
      }
      if (nowConsistent && !consistent)
        this.#say('info', 'GENERATION_COMPLETE', `generation ${generation} is consistent`)
    } finally {
      this.#applying = false
    }
    this.#intake.forgetPassed()
    this.#noteOver()
  }

  #wanted(): PartOfEpoch[] {
    const { generation } = this.#intake
    if (this.position.removed && generation === this.position.generation) return []
    const applied = generation === this.position.generation ? this.position.appliedEpoch : 0
    return this.#gap.wanted(this.#intake.refused(generation), applied)
  }

  /** What waits here for an epoch whose end is a state, durably: the source needs not keep it. */
  async #received(): Promise<number> {
    const last = this.position.consistent ? receivedUpTo(this.position, this.#intake.held.values()) : 0
    if (last > this.position.appliedEpoch) await this.#arrivals.settle()
    return last
  }

  /** Write an acknowledgement when there is something new to tell. */
  async #tell(): Promise<void> {
    const { sequence } = this.position
    const { generation } = this.#intake
    if (generation === 0) return
    const begun = generation === this.position.generation
    const { appliedEpoch, appliedLsn, lastTag: appliedTag } = begun ? this.position : nothingApplied
    const { state, reason } = this.status()
    const receivedEpoch = begun ? await this.#received() : 0
    const comparison = begun ? (this.position.comparison ?? null) : null
    const wanted = this.#wanted()
    const applied = { generation, appliedEpoch, appliedLsn, appliedTag, receivedEpoch }
    const message = { ...applied, state, reason, wanted, reads: PART_VERSION, comparison }
    const text = JSON.stringify(message)
    if (text === this.#told) return
    await this.#state.move({ sequence: sequence + 1 })
    const { inbox, secret, streamId } = this.#options
    const sealed = sealAcknowledgement({ ...message, sequence }, secret, streamId)
    if (await inbox.acknowledge(this.position.streamId, sealed)) this.#told = text
  }

  async #meet(error: StorageError, signal: AbortSignal): Promise<void> {
    // What was under way when all ends is no obstacle.
    if (signal.aborted) return
    if (this.#obstacle?.code !== error.code) this.#say('error', error.code, `${error.message}. ${error.hint}`)
    this.#obstacle = error
    // What tells the source is what cannot be reached.
    if (error.code !== INBOX_UNAVAILABLE) await this.#tell().catch(() => undefined)
    await new Pause().wait(retryMs, signal)
  }

  #noteOver(): void {
    if (this.#obstacle) this.#say('info', 'DESTAGE_RESUMED', 'nothing is in the way of epochs any more')
    this.#obstacle = null
  }

  #say(severity: 'info' | 'warning' | 'error', code: string, text: string): void {
    this.#options.report({ severity, code, object: this.position.stream, text })
  }
}
