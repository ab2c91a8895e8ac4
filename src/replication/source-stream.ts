import { Changes } from '../block/changes.js'
import type { ReportEvent } from '../block/event-log.js'
import type { StateStore } from '../block/state-store.js'
import { StorageError } from '../block/storage-error.js'
import { type Lsn, lsn } from '../block/units.js'
import type { StreamJournalOptions } from '../journal/stream-journal.js'
import { DIGEST_SINCE_VERSION } from '../replication-file/part-index.js'
import type { Transport } from '../transport/transport.js'
import type { HostVolume } from '../volume/host-volume.js'
import { copyProgress } from './copy-planner.js'
import { EpochHold } from './epoch-hold.js'
import { FailureRetry } from './failure-retry.js'
import { Forecast } from './forecast.js'
import type { Packer } from './pack-workers.js'
import { RecordedVolumes } from './recorded-volumes.js'
import type { RegionOptions } from './region-keeper.js'
import type { RunningStream } from './running-stream.js'
import { type BufferMove, SourceBuffer } from './source-buffer.js'
import { StreamHealth } from './stream-health.js'
import { StreamRecording } from './stream-recording.js'
import {
  defaultPolicy,
  isGathering,
  type PoolHolders,
  type StreamDefinition,
  type StreamPolicy,
  type StreamPosition,
  StreamState,
} from './stream-state.js'
import { describeStream, describeVerify, type SourceStreamState, type VerifyStatus } from './stream-status.js'
import { verifySalt } from './stream-verify.js'
import { beginVerify, endVerify, isVerifying } from './verify-state.js'

/** A flush is answered after so long, done or not. */
const flushLimitMs = 240_000
/** A destination that can be reached is heard within this time. */
const hearLimitMs = 10_000
/** What was written before a hold is cut first, if that takes no longer. */
const beforeHoldMs = 5_000

export interface SourceStreamOptions {
  readonly definition: StreamDefinition
  /** A volume by its name. @throws StorageError when it is not there now */
  readonly findVolume: (name: string) => HostVolume
  readonly holders: () => PoolHolders
  readonly pairingId: Buffer
  readonly secret: Buffer
  readonly store: StateStore
  readonly journal: Omit<StreamJournalOptions, 'stream' | 'state' | 'onEvent'>
  readonly regions: RegionOptions
  readonly bufferDirectory: string
  readonly bufferLimitBytes: number
  readonly transport: Transport
  readonly packer: Packer
  readonly report: ReportEvent
  /** What had kept it from recording is over: its volumes can be attached again. */
  readonly onRecovered: () => void
}

/** The source side of one stream: journal, epochs, source buffer, transfer. */
export class SourceStream {
  readonly #state: StreamState
  readonly #changes = new Changes()
  readonly #health: StreamHealth
  /** Of what made it fail. */
  readonly #retry: FailureRetry
  readonly #limitBytes: number
  readonly #hold: EpochHold
  readonly #buffer: SourceBuffer
  readonly #recording: StreamRecording
  readonly #fill = new Forecast()
  readonly #drain = new Forecast()
  readonly #onRecovered: () => void
  #definition: StreamDefinition

  constructor(options: SourceStreamOptions) {
    const { definition, store, report, bufferDirectory, findVolume } = options
    this.#definition = definition
    this.#limitBytes = options.bufferLimitBytes
    this.#onRecovered = options.onRecovered
    this.#retry = new FailureRetry({
      attempt: () => this.#recovering(() => this.#recording.again(() => this.#retry.closed)),
      onWorks: () => this.#health.noteWorks(),
    })
    this.#health = new StreamHealth(definition.name, report, this.#retry)
    this.#state = new StreamState(store, definition.name)
    this.#hold = new EpochHold(this.#state, async () =>
      this.position.phase === 'running' ? this.#running?.journal.sync() : undefined,
    )
    this.#buffer = new SourceBuffer({
      home: bufferDirectory,
      state: this.#state,
      say: (severity, code, text) => this.#health.say(severity, code, text),
    })
    this.#recording = new StreamRecording({
      ...options,
      volumes: new RecordedVolumes(definition.volumes, findVolume),
      state: this.#state,
      buffer: this.#buffer,
      health: this.#health,
      hold: this.#hold,
      changes: this.#changes,
      paused: () => this.#definition.paused,
      policy: () => this.policy,
    })
  }

  get #running(): RunningStream | undefined {
    return this.#recording.running
  }

  get definition(): StreamDefinition {
    return this.#definition
  }

  get position(): StreamPosition {
    return this.#state.position
  }

  /** Why transfers fail now, or null. */
  get link(): StorageError | null {
    return this.#health.link
  }

  get bytesPerSecond(): number {
    return this.#recording.loops?.sender.rate.bytesPerSecond() ?? 0
  }

  /**
   * Replay what a crash left in the journal, then record and send on. Before any of its volumes is attached; again, as
   * long as it failed. What the journal cannot say any more the region record does: those regions are caught up. Only
   * where that is lost, too, the stream diverges, and its volumes go on without it.
   *
   * @throws StorageError what kept the journal from being replayed
   */
  async start(): Promise<void> {
    try {
      await this.#recovering(() => this.#recording.start())
    } finally {
      await this.#buffer.resumeMove()
    }
  }

  async #recovering(action: () => Promise<void>): Promise<void> {
    const { failure } = this.#health
    await action()
    if (failure !== undefined && this.#health.failure === undefined) this.#onRecovered()
  }

  /**
   * Copy everything, then mirror: a new generation. Hosts go on writing.
   *
   * First the backing holds what the old journal promised, then the stream is marked diverged: an agent that dies before
   * the new generation is recorded would pair the old position with the new journal otherwise.
   */
  async initialize(discardJournal: boolean): Promise<void> {
    const { verify } = this.position
    await this.#recovering(() => this.#recording.initialize(discardJournal))
    if (isVerifying(verify)) this.#health.say('warning', 'VERIFY_ABORTED', 'ended by an initialisation')
  }

  /**
   * Compare both sides while hosts go on, in the epochs of the stream; resolves when it has begun. It goes on after a restart.
   * @param repair what differs is sent again; null: end the comparison that goes on
   * @throws StorageError STREAM_NOT_REPLICATING, VERIFY_RUNNING, VERIFY_UNSUPPORTED, NO_VERIFY, and those of flush()
   */
  async verify(repair: boolean | null): Promise<void> {
    if (repair === null) return this.#abortVerify()
    const { acknowledgements } = this.#mustRun()
    const { state, reason } = this.status()
    if (state !== 'replicating') {
      throw this.#refuse('STREAM_NOT_REPLICATING', `It is ${state}: ${reason}. Compare when it is replicating.`)
    }
    const heard = await acknowledgements.ask(hearLimitMs)
    if (this.position.farReads < DIGEST_SINCE_VERSION) {
      const why = heard ? 'The agent at the destination is too old' : 'The destination was not heard'
      throw this.#refuse('VERIFY_UNSUPPORTED', `${why}: its agent has to know digests. Upgrade it, then try again.`)
    }
    const totalBytes = this.#definition.volumes.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
    const salt = verifySalt()
    await this.#state.move(({ verify }) => {
      if (isVerifying(verify)) {
        throw this.#refuse('VERIFY_RUNNING', 'It goes on. Follow it with: tidemark stream status; end it with --abort.')
      }
      return { verify: beginVerify(verify, repair, salt, totalBytes) }
    })
    this.#running?.cutter.flush(lsn(0n))
  }

  /** What was found so far stays known. What is being sent again is sent to its end. */
  async #abortVerify(): Promise<void> {
    await this.#state.move(({ verify }) => {
      if (!isVerifying(verify)) throw this.#refuse('NO_VERIFY', 'Nothing is being compared.')
      return { verify: endVerify(verify, 'aborted', 'ended by an operator') }
    })
    this.#health.say('warning', 'VERIFY_ABORTED', 'ended by an operator')
  }

  /** The comparison that goes on, or the last one of this generation; null when there was none. */
  verifyStatus(): VerifyStatus | null {
    return describeVerify(this.position.verify, this.#definition, this.status().state)
  }

  /**
   * Close the open epoch. Resolves to the epoch after which the destination holds everything written before the call;
   * during an initialisation that is the first consistent one.
   * @throws StorageError NOT_INITIALIZED, STREAM_MAPPING, STREAM_DIVERGED, STREAM_FAILED
   */
  async flush(): Promise<{ epoch: number; lsn: Lsn }> {
    const running = this.#mustRun()
    const target = await running.journal.sync()
    running.cutter.flush(target)
    const cut = (): boolean => {
      // Another journal has other LSNs, and what was mapped before it lies in none of them.
      if (this.#mustRun() !== running) throw this.#refuseMapping()
      return BigInt(this.position.cutLsn) >= target && this.position.consistentEpoch > 0
    }
    if (!(await this.#changes.until(cut, flushLimitMs))) {
      throw this.#refuse('FLUSH_PENDING', `It goes on, but takes long: ${this.status().reason}. Look again later.`)
    }
    return { epoch: this.position.cutEpoch, lsn: target }
  }

  /**
   * What is written from here until the function this resolves to is called appears at the destination at once, with
   * what hosts write meanwhile; but more than the source buffer holds in several epochs, and an event says so.
   */
  async holdEpoch(): Promise<() => Promise<void>> {
    const { journal, cutter } = this.#running ?? {}
    if (journal && cutter) {
      const target = await journal.sync()
      cutter.flush(target)
      await this.#changes.until(() => BigInt(this.position.cutLsn) >= target || !this.#running, beforeHoldMs)
    }
    await this.#recording.turn(() => this.#hold.begin())
    return () => this.#recording.turn(() => this.#endHold())
  }

  async #endHold(): Promise<void> {
    await this.#hold.end()
    this.#running?.cutter.flush(lsn(BigInt(this.position.copyEndLsn)))
  }

  /** Wait until the destination is consistent and has applied the epoch; false when the time is over first. */
  async applied(epoch: number, timeoutMs: number): Promise<boolean> {
    const { generation } = this.position
    return this.#changes.until(() => {
      this.#mustLive()
      if (this.position.generation !== generation) {
        throw this.#refuse('STREAM_REINITIALIZED', 'A new initialisation has begun meanwhile. Wait for that one.')
      }
      const { appliedEpoch, consistentEpoch } = this.position
      return consistentEpoch > 0 && appliedEpoch >= Math.max(epoch, consistentEpoch)
    }, timeoutMs)
  }

  get policy(): StreamPolicy {
    return this.#definition.policy ?? defaultPolicy
  }

  /** Takes effect at once, also for hosts that wait. */
  setPolicy(policy: StreamPolicy): void {
    this.#definition = { ...this.#definition, policy }
  }

  /** Pausing holds the transfer back, at once. */
  setPaused(paused: boolean): void {
    this.#definition = { ...this.#definition, paused }
    this.#recording.loops?.sender.pause.wake()
  }

  /** Transfers are not paused any more: what failed is tried again. */
  resume(): Promise<void> {
    return this.#recovering(() => this.#recording.again(() => this.#definition.paused))
  }

  /**
   * End in order: what is journaled stays journaled and is sent after the next start. A volume that is still attached
   * (a host has it mounted) stays recorded to the last moment; the next start replays as after a crash.
   */
  async stop(): Promise<void> {
    this.#retry.close()
    await this.#buffer.close()
    await this.#recording.stop()
  }

  /** Stop recording and forget everything at this site; the copy at the destination stays. */
  remove(discardJournal: boolean): Promise<void> {
    this.#retry.cancel()
    return this.#recording.remove(discardJournal)
  }

  /** State and why, for people. */
  status(): { state: SourceStreamState; reason: string } {
    const { position, waitingBytes } = this
    const facts = { definition: this.#definition, position, health: this.#health, waitingBytes }
    return describeStream({ ...facts, catchUp: this.catchUpProgress() })
  }

  /** Of an initialisation, until the destination has all of it; else null. */
  copyProgress(): { doneBytes: number; totalBytes: number } | null {
    const { phase, copy, catchUp, consistentEpoch, appliedEpoch } = this.position
    if (phase !== 'running' || (consistentEpoch > 0 && appliedEpoch >= consistentEpoch)) return null
    if (catchUp) return this.catchUpProgress() ?? copyProgress(this.#definition.volumes, copy)
    return copyProgress(this.#definition.volumes, copy)
  }

  /** Regions that are sent again, or will be: what of them was read; null when there are none. */
  catchUpProgress(): { reason: string; doneBytes: number; totalBytes: number } | null {
    const { phase, copy, catchUp, mappingReason } = this.position
    if (phase === 'mapping') {
      return { reason: mappingReason, doneBytes: 0, totalBytes: this.#recording.regions.activeBytes }
    }
    if (phase !== 'running' || !catchUp || !isGathering(this.position)) return null
    const { reason, totalBytes } = catchUp
    return { reason, totalBytes, doneBytes: copy ? this.#recording.catchUp.doneBytes(copy) : totalBytes }
  }

  /** Raw bytes journaled and not yet applied at the destination. */
  get waitingBytes(): number {
    return (this.#running?.cutter.openBytes ?? 0) + this.#state.unappliedBytes
  }

  /** Called about every second, by a clock that never jumps back: what the forecasts are made from. */
  watch(nowMs: number): void {
    this.#fill.note(this.#buffer.bytes, nowMs)
    this.#drain.note(this.waitingBytes, nowMs)
  }

  /** When nothing waits any more if it goes on so, or null. */
  get caughtUpInSeconds(): number | null {
    return this.position.phase === 'running' ? this.#drain.secondsToNothing : null
  }

  /** Replication files go to another folder, in the background; journal and region record stay where they are. */
  moveBuffer(directory: string): Promise<void> {
    return this.#buffer.moveTo(directory)
  }

  abortBufferMove(): Promise<void> {
    return this.#buffer.abortMove()
  }

  get buffer(): {
    directory: string
    usedBytes: number
    limitBytes: number
    fullInSeconds: number | null
    move: BufferMove | null
  } {
    const { directory, bytes: usedBytes, move } = this.#buffer
    const { phase } = this.position
    const fullInSeconds = phase === 'running' ? this.#fill.secondsToReach(this.#limitBytes) : null
    return { directory, usedBytes, limitBytes: this.#limitBytes, fullInSeconds, move }
  }

  get oldestUnsentSeconds(): number {
    const oldestMs = Math.min(this.#state.oldestUnsentMs, this.#running?.cutter.openSinceMs ?? Number.POSITIVE_INFINITY)
    return oldestMs === Number.POSITIVE_INFINITY ? 0 : (performance.now() - oldestMs) / 1000
  }

  get journalLsn(): bigint {
    return this.#running?.journal.counters().publishedLsn ?? BigInt(this.position.cutLsn)
  }

  get sentLsn(): string {
    return this.#state.sentLsn
  }

  #mustRun(): RunningStream {
    this.#mustLive()
    if (this.position.phase === 'mapping') throw this.#refuseMapping()
    const running = this.#running
    if (!running) throw this.#refuse('STREAM_STOPPED', 'The agent is stopping, or the stream was removed.')
    return running
  }

  #refuseMapping(): StorageError {
    const { state, reason } = this.status()
    const now = state === 'mapping' ? reason : 'It was mapped meanwhile, and catches up now.'
    return this.#refuse('STREAM_MAPPING', `${now} Flush again when the stream catches up.`)
  }

  /** It may get to where a caller waits for it. */
  #mustLive(): void {
    const { state, reason } = this.status()
    if (state === 'new') throw this.#refuse('NOT_INITIALIZED', 'Run: tidemark stream initialize')
    if (state === 'diverged') throw this.#refuse('STREAM_DIVERGED', reason)
    if (state === 'failed') throw this.#refuse('STREAM_FAILED', reason)
    if (!this.#recording.loops) {
      throw this.#refuse('STREAM_STOPPED', 'The agent is stopping, or the stream was removed.')
    }
  }

  #refuse(code: string, hint: string): StorageError {
    return new StorageError(code, { op: 'stream', object: this.#definition.name, hint })
  }
}
