import { Changes } from '../block/changes.js'
import type { ReportEvent } from '../block/event-log.js'
import { Exclusive } from '../block/exclusive.js'
import type { StateStore } from '../block/state-store.js'
import { StorageError } from '../block/storage-error.js'
import { type Lsn, lsn } from '../block/units.js'
import type { WorkerCalls } from '../block/worker-calls.js'
import { StreamJournal, type StreamJournalOptions } from '../journal/stream-journal.js'
import type { Transport } from '../transport/transport.js'
import type { HostVolume } from '../volume/host-volume.js'
import { copyProgress } from './copy-planner.js'
import { EpochHold } from './epoch-hold.js'
import { RecordedVolumes } from './recorded-volumes.js'
import { openReplayed } from './replayed-journal.js'
import { RunningStream } from './running-stream.js'
import { SourceBuffer } from './source-buffer.js'
import { StreamHealth } from './stream-health.js'
import { newPosition, type StreamDefinition, type StreamPosition, StreamState } from './stream-state.js'
import { describeStream, type SourceStreamState } from './stream-status.js'

/** Codes that mean: what the journal held cannot be had any more. */
const journalLost = new Set(['JOURNAL_DAMAGED', 'FOREIGN_SEGMENT'])
/** A flush is answered after so long, done or not. */
const flushLimitMs = 240_000
/** What was written before a hold is cut first, if that takes no longer. */
const beforeHoldMs = 5_000
/** A fact that must be on the disk before hosts go on is tried again this often. */
const insistMs = 1_000

export interface SourceStreamOptions {
  readonly definition: StreamDefinition
  readonly volumes: readonly HostVolume[]
  readonly pairingId: Buffer
  readonly secret: Buffer
  readonly store: StateStore
  readonly journal: Omit<StreamJournalOptions, 'stream' | 'state' | 'onEvent'>
  readonly bufferDirectory: string
  readonly bufferLimitBytes: number
  readonly transport: Transport
  readonly packer: WorkerCalls
  readonly report: ReportEvent
}

type JournalEvent = Parameters<StreamJournalOptions['onEvent']>[0]

/** The source side of one stream: journal, epochs, source buffer, transfer. */
export class SourceStream {
  readonly #options: SourceStreamOptions
  readonly #state: StreamState
  readonly #buffer: SourceBuffer
  readonly #exclusive = new Exclusive()
  readonly #changes = new Changes()
  readonly #health: StreamHealth
  readonly #volumes: RecordedVolumes
  readonly #hold: EpochHold
  readonly #journalOptions: StreamJournalOptions
  #definition: StreamDefinition
  /** What a journal raised before it was running. */
  #early: JournalEvent | undefined
  #running: RunningStream | undefined

  constructor(options: SourceStreamOptions) {
    this.#options = options
    this.#definition = options.definition
    this.#health = new StreamHealth(options.definition.name, options.report)
    this.#volumes = new RecordedVolumes(options.definition.volumes, options.volumes)
    this.#state = new StreamState(options.store, options.definition.name)
    this.#hold = new EpochHold(this.#state, async () =>
      this.position.phase === 'running' ? this.#running?.journal.sync() : undefined,
    )
    this.#buffer = new SourceBuffer(options.bufferDirectory, this.#state)
    const { journal, store } = options
    const onEvent: StreamJournalOptions['onEvent'] = (event) => this.#noteJournalEvent(event)
    this.#journalOptions = { ...journal, stream: options.definition.name, state: store, onEvent }
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
    return this.#running?.sender.rate.bytesPerSecond() ?? 0
  }

  /**
   * Replay what a crash left in the journal, then record and send on. Before any of its volumes is attached; again, as
   * long as it failed. A journal that cannot be read any more diverges the stream, and its volumes go on without it.
   *
   * @throws StorageError what kept the journal from being replayed
   */
  start(): Promise<void> {
    return this.#turn(() => this.#start())
  }

  async #start(): Promise<void> {
    if (this.#running || this.position.phase !== 'running') return
    try {
      await this.#recover()
      this.#health.failure = undefined
    } catch (error) {
      if (!(error instanceof StorageError) || !journalLost.has(error.code)) {
        this.#health.noteFailure(error)
        throw error
      }
      await this.#diverge(`${error.message}.`)
    }
  }

  async #recover(): Promise<void> {
    await this.#buffer.open()
    await this.#volumes.hold()
    const { journal, report } = await openReplayed(this.#journalOptions, this.#volumes)
    if (report.records > 0) {
      this.#health.say(
        'info',
        'JOURNAL_REPLAYED',
        `${report.records} records replayed, ${report.voids} never acknowledged`,
      )
    }
    if (!report.afterPowerCut) return this.#run(journal)
    try {
      await this.#diverge('The machine was restarted while writes were under way.')
    } finally {
      await journal.close(false)
    }
  }

  /**
   * Copy everything, then mirror: a new generation. Hosts go on writing.
   *
   * First the backing holds what the old journal promised, then the stream is marked diverged: an agent that dies before
   * the new generation is recorded would pair the old position with the new journal otherwise.
   */
  initialize(): Promise<void> {
    return this.#turn(async () => {
      await this.#volumes.hold()
      if (this.#running) await this.#volumes.sync()
      await this.#state.move({ phase: 'diverged', divergedReason: 'An initialisation was interrupted as it began.' })
      await this.#halt(true)
      await this.#buffer.clear()
      const journal = await StreamJournal.create(this.#journalOptions)
      const held = this.#hold.active
      const { generation, counters } = this.position
      const copy = { slot: 0, offset: 0 }
      await this.#state.move({ ...newPosition, phase: 'running', generation: generation + 1, copy, counters, held })
      await this.#buffer.open()
      this.#health.reset()
      await this.#run(journal)
      this.#health.say('info', 'INITIALIZE_STARTED', `generation ${generation + 1}`)
    })
  }

  /**
   * Close the open epoch. Resolves to the epoch after which the destination holds everything written before the call;
   * during an initialisation that is the first consistent one.
   * @throws StorageError NOT_INITIALIZED, STREAM_DIVERGED, STREAM_FAILED
   */
  async flush(): Promise<{ epoch: number; lsn: Lsn }> {
    const target = await this.#mustRun().journal.sync()
    this.#mustRun().cutter.flush(target)
    const cut = (): boolean => {
      this.#mustRun()
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
    await this.#exclusive.run(() => this.#hold.begin())
    return () => this.#exclusive.run(() => this.#endHold())
  }

  async #endHold(): Promise<void> {
    await this.#hold.end()
    this.#running?.cutter.flush(lsn(BigInt(this.position.copyEndLsn)))
  }

  /** Wait until the destination is consistent and has applied the epoch; false when the time is over first. */
  async applied(epoch: number, timeoutMs: number): Promise<boolean> {
    const { generation } = this.position
    return this.#changes.until(() => {
      this.#mustRun()
      if (this.position.generation !== generation) {
        throw this.#refuse('STREAM_REINITIALIZED', 'A new initialisation has begun meanwhile. Wait for that one.')
      }
      const { appliedEpoch, consistentEpoch } = this.position
      return consistentEpoch > 0 && appliedEpoch >= Math.max(epoch, consistentEpoch)
    }, timeoutMs)
  }

  /** Pausing holds the transfer back; resuming also tries again what failed. */
  setPaused(paused: boolean): Promise<void> {
    return this.#turn(async () => {
      this.#definition = { ...this.#definition, paused }
      const running = this.#running
      running?.sender.pause.wake()
      if (paused || this.#health.failure === undefined) return
      if (!running) return this.#start()
      await running.ended
      this.#health.failure = undefined
      this.#startLoops(running.journal)
    })
  }

  /**
   * End in order: what is journaled stays journaled and is sent after the next start. A volume that is still attached
   * (a host has it mounted) stays recorded to the last moment; the next start replays as after a crash.
   */
  stop(): Promise<void> {
    return this.#turn(async () => {
      if (!this.#volumes.someAttached) return this.#halt(false)
      this.#running?.stop.abort()
      await this.#running?.ended
      if (this.position.phase === 'running') await this.#running?.journal.sync()
    })
  }

  /** Stop recording and forget everything at this site; the copy at the destination stays. */
  remove(): Promise<void> {
    return this.#turn(async () => {
      if (this.#running) {
        await this.#volumes.sync()
        await this.#state.move({ phase: 'diverged', divergedReason: 'Its removal was interrupted.' })
      }
      await this.#halt(true)
      await this.#buffer.clear()
      await StreamJournal.forget(this.#options.store, this.#definition.name, this.#options.journal.directory)
      await this.#state.remove()
    })
  }

  /** State and why, for people. */
  status(): { state: SourceStreamState; reason: string } {
    const { position, waitingBytes } = this
    return describeStream({ definition: this.#definition, position, health: this.#health, waitingBytes })
  }

  /** Of an initialisation, until the destination has all of it; else null. */
  copyProgress(): { doneBytes: number; totalBytes: number } | null {
    const { phase, copy, consistentEpoch, appliedEpoch } = this.position
    if (phase !== 'running' || (consistentEpoch > 0 && appliedEpoch >= consistentEpoch)) return null
    return copyProgress(this.#definition.volumes, copy)
  }

  /** Raw bytes journaled and not yet applied at the destination. */
  get waitingBytes(): number {
    return (this.#running?.cutter.openBytes ?? 0) + this.#state.unappliedBytes
  }

  get oldestUnsentSeconds(): number {
    const oldestMs = Math.min(this.#state.oldestUnsentMs, this.#running?.cutter.openSinceMs ?? Number.POSITIVE_INFINITY)
    return oldestMs === Number.POSITIVE_INFINITY ? 0 : Math.max(0, (Date.now() - oldestMs) / 1000)
  }

  get journalLsn(): bigint {
    return this.#running?.journal.counters().publishedLsn ?? BigInt(this.position.cutLsn)
  }

  get sentLsn(): string {
    return this.#state.sentLsn
  }

  /** One at a time; and whatever fails, a stream that does not run holds no volume. */
  #turn(action: () => Promise<void>): Promise<void> {
    return this.#exclusive.run(async () => {
      try {
        await action()
      } finally {
        if (!this.#running) await this.#volumes.letGo()
      }
    })
  }

  /** Record from here on, then cut and send. */
  async #run(journal: StreamJournal): Promise<void> {
    this.#early = undefined
    try {
      await this.#volumes.record(journal)
    } catch (error) {
      await this.#volumes.release(journal, false)
      throw error
    }
    this.#startLoops(journal)
  }

  #startLoops(journal: StreamJournal): void {
    const { pairingId, secret, packer, bufferLimitBytes, transport } = this.#options
    this.#running = new RunningStream({
      definition: this.#definition,
      pairingId,
      secret,
      state: this.#state,
      buffer: this.#buffer,
      bufferLimitBytes,
      journal,
      volumes: this.#volumes,
      packer,
      transport,
      health: this.#health,
      paused: () => this.#definition.paused,
      onChange: () => this.#changes.announce(),
    })
    this.#hold.resume()
    if (this.#early) this.#noteJournalEvent(this.#early)
  }

  /**
   * @param drop nothing in the journal is needed any more. It is abandoned at once: a writer that waits for room in it
   * would hold up the rest.
   */
  async #halt(drop: boolean): Promise<void> {
    const running = this.#running
    if (!running) return
    this.#running = undefined
    this.#hold.stop()
    running.stop.abort()
    if (drop) running.journal.native.abandon()
    await running.ended
    await this.#volumes.release(running.journal, !drop)
    this.#changes.announce()
  }

  /** One that comes before the stream runs is kept until it does: it is raised once, and hosts wait for the answer. */
  #noteJournalEvent(event: JournalEvent): void {
    this.#early = this.#running ? undefined : event
    this.#answerJournal(event).catch((error) => this.#health.noteFailure(error))
  }

  async #answerJournal(event: JournalEvent): Promise<void> {
    const running = this.#running
    if (!running || this.position.phase !== 'running') return
    if (event.kind === 'failed') return this.#journalStopped(running, `The journal failed: ${event.message}.`)
    const cutting = (): boolean => !running.stop.signal.aborted && !this.#health.bufferFull && !this.#health.trouble
    const room = await running.checkpoints.makeRoom(cutting).catch(() => false)
    if (!room) await this.#journalStopped(running, 'The journal is at its limit, and epochs are not cut fast enough.')
  }

  /**
   * The journal cannot take more writes and hosts wait. (1) What it promised is on the backing, (2) the stream is
   * recorded as diverged, (3) the writes go on without it. Without 1 a power cut takes flushed writes, for a diverged
   * stream is not replayed; with 3 before 2 nobody would know that the far side misses something.
   */
  async #journalStopped(running: RunningStream, reason: string): Promise<void> {
    const sync = (): Promise<void> =>
      this.#volumes.sync().catch((error) => this.#health.say('error', 'SYNC_FAILED', String(error)))
    await sync()
    for (let told = false; this.#running === running && this.position.phase === 'running'; told = true) {
      await this.#diverge(reason).catch((error) => {
        if (!told) this.#health.say('error', 'STATE_UNAVAILABLE', `${error}. Hosts of this stream wait for it.`)
        return new Promise((resolve) => setTimeout(resolve, insistMs))
      })
    }
    // An initialisation or removal that came first has ended this journal itself.
    if (this.#running !== running) return
    running.journal.native.abandon()
    running.stop.abort()
    await sync()
    this.#changes.announce()
  }

  async #diverge(reason: string): Promise<void> {
    await this.#state.move({ phase: 'diverged', divergedReason: reason })
    this.#health.say('error', 'STREAM_DIVERGED', `${reason} Hosts go on; initialize the stream again.`)
  }

  #mustRun(): RunningStream {
    const { state, reason } = this.status()
    if (state === 'new') throw this.#refuse('NOT_INITIALIZED', 'Run: tidemark stream initialize')
    if (state === 'diverged') throw this.#refuse('STREAM_DIVERGED', reason)
    if (state === 'failed') throw this.#refuse('STREAM_FAILED', reason)
    if (!this.#running) throw this.#refuse('STREAM_STOPPED', 'The agent is stopping, or the stream was removed.')
    return this.#running
  }

  #refuse(code: string, hint: string): StorageError {
    return new StorageError(code, { op: 'stream', object: this.#definition.name, hint })
  }
}
