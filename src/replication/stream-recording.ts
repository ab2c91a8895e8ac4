import { Exclusive } from '../block/exclusive.js'
import { insist } from '../block/insist.js'
import { lsn } from '../block/units.js'
import type { RegionMap } from '../journal/region-map.js'
import { removeJournal, StreamJournal, type StreamJournalOptions } from '../journal/stream-journal.js'
import { Backoff } from './backoff.js'
import { leftText } from './buffer-files.js'
import { CatchUp } from './catch-up.js'
import { MappingStream, recordAgainDelays } from './mapping-stream.js'
import { PhaseChanges } from './phase-changes.js'
import type { RecordedVolumes } from './recorded-volumes.js'
import type { StreamRecordingOptions } from './recording-options.js'
import { RegionKeeper } from './region-keeper.js'
import { RunningStream } from './running-stream.js'
import type { StreamHealth } from './stream-health.js'
import { recoverStream } from './stream-recovery.js'
import {
  initializing,
  initialPosition,
  nextJournalLsn,
  overtaken,
  type PositionChange,
  regionsLost,
  type StreamPosition,
  type StreamState,
} from './stream-state.js'
import { JournalAnswers } from './strict-policy.js'
import { replayOrDiscard } from './unreplayed-journal.js'

type JournalEvent = Parameters<StreamJournalOptions['onEvent']>[0]

/**
 * How the writes of a stream are recorded, from one life of the agent to the next: in a journal, or, while that cannot be,
 * in the map of regions alone. Knows the order in which one takes the place of the other; see DESIGN.md.
 */
export class StreamRecording {
  readonly catchUp: CatchUp
  readonly regions: RegionKeeper
  readonly #options: StreamRecordingOptions
  readonly #state: StreamState
  readonly #volumes: RecordedVolumes
  readonly #health: StreamHealth
  readonly #phases: PhaseChanges
  readonly #turns = new Exclusive()
  readonly #journalOptions: StreamJournalOptions
  readonly #backoff = new Backoff(recordAgainDelays)
  readonly #answers: JournalAnswers
  /** What a journal has raised and nobody answered. */
  #unanswered: JournalEvent | undefined
  #running: RunningStream | undefined
  #mapping: MappingStream | undefined

  constructor(options: StreamRecordingOptions) {
    const { journal, store, definition, regions, health } = options
    this.#options = options
    this.#state = options.state
    this.#volumes = options.volumes
    this.#health = health
    this.#phases = new PhaseChanges(options)
    const onEvent: StreamJournalOptions['onEvent'] = (event) => this.#noteJournalEvent(event)
    this.#journalOptions = { ...journal, stream: definition.name, state: store, onEvent }
    this.regions = new RegionKeeper({
      ...regions,
      streamId: Buffer.from(definition.id, 'hex'),
      volumeBytes: definition.volumes.map(({ sizeBytes }) => sizeBytes),
      intercept: journal.intercept,
      onLimit: () => this.#running?.checkpoints.pause.wake(),
      onFailed: (message) => void this.#regionsFailed(message),
      onDamage: (path) => health.say('error', 'REGIONS_DAMAGED', `${path} is damaged, wholly or in part`),
    })
    this.catchUp = new CatchUp(this.regions)
    this.#answers = new JournalAnswers(options)
  }

  /** While writes go into a journal. */
  get running(): RunningStream | undefined {
    return this.#running
  }

  get loops(): RunningStream | MappingStream | undefined {
    return this.#running ?? this.#mapping
  }

  get #position(): StreamPosition {
    return this.#state.position
  }

  start(): Promise<void> {
    return this.turn(() => this.#start())
  }

  async #start(): Promise<void> {
    const { phase } = this.#position
    if (this.loops) return
    if (phase !== 'running' && phase !== 'mapping') {
      this.#health.failure = undefined
      return
    }
    try {
      await this.#options.buffer.open()
      await this.#volumes.hold()
      await this.#phases.compareHolders()
      const regions = this.#position.regionsLost ? undefined : await this.regions.load()
      if (this.#position.phase === 'running') await this.#recover(regions)
      else if (this.#position.phase === 'mapping') await this.#goOnMapping(regions)
      this.#health.failure = undefined
    } catch (error) {
      this.#health.noteFailure(error)
      throw error
    }
  }

  async #recover(regions: RegionMap | undefined): Promise<void> {
    const recovered = await recoverStream({ ...this.#parts, journal: this.#journalOptions }, regions)
    if ('journal' in recovered) return this.#goOnRecording(recovered.journal)
    const { reason, lacking } = recovered
    if (!lacking) return this.#phases.diverge(reason)
    await this.#phases.map(reason, 0n)
    await this.#goOnMapping(lacking)
  }

  async #goOnRecording(journal: StreamJournal): Promise<void> {
    this.#unanswered = undefined
    await this.#volumes.record(journal, this.regions.native).catch(async (error) => {
      await this.#volumes.release(journal, false)
      throw error
    })
    this.#startLoops(journal)
  }

  async #goOnMapping(regions: RegionMap | undefined): Promise<void> {
    if (!regions) return this.#phases.diverge('The record of the regions to catch up is lost.')
    await this.regions.open(regions, lsn(0n))
    await this.#volumes.record(null, this.regions.native)
    this.#startMapping()
  }

  /** What takes over from what is in the order of #recordAgain(), which says why. @throws StorageError as of replayOrDiscard() */
  initialize(discardJournal: boolean): Promise<void> {
    return this.turn(async () => {
      const { buffer, hold, holders } = this.#options
      if (!this.loops) await replayOrDiscard(this.#options, 'stream initialize', discardJournal, () => this.#start())
      await this.#volumes.hold()
      await this.#mustNotCount()
      await this.#state.move(initializing)
      await this.#halt(true)
      await buffer.clear()
      this.#unanswered = undefined
      const journal = await StreamJournal.create(this.#journalOptions)
      try {
        await buffer.open()
        await this.regions.open(this.regions.fresh(), journal.counters().publishedLsn)
        await this.#volumes.takeOver(journal, this.regions.native)
        // Nothing fails from here on: a journal that counts is never dropped, for it would be replayed over what came later.
        await this.#state.move((position) => initialPosition(position, hold.active, holders()))
        await this.catchUp.load(this.#position)
        journal.native.doubt(false)
      } catch (error) {
        journal.native.abandon()
        this.regions.giveUp()
        await this.#volumes.record(null, null)
        await journal.close(false)
        throw error
      }
      this.#health.reset()
      this.#startLoops(journal)
      this.#health.say('info', 'INITIALIZE_STARTED', `generation ${this.#position.generation}`)
    })
  }

  /** What failed is tried again, unless that is over when its turn comes. */
  again(isOver: () => boolean): Promise<void> {
    return this.turn(async () => {
      const { loops } = this
      if (isOver() || this.#health.failure === undefined) return
      if (!loops) return this.#start()
      loops.stop.abort()
      await loops.ended
      this.#health.failure = undefined
      const { phase } = this.#position
      // Else the next state is under way, and waits for this turn.
      if (this.#running && phase === 'running') this.#startLoops(this.#running.journal)
      if (this.#mapping && phase === 'mapping') this.#startMapping()
    })
  }

  stop(): Promise<void> {
    return this.turn(async () => {
      if (!this.#volumes.someAttached) return this.#halt(false)
      this.loops?.stop.abort()
      await this.loops?.ended
      if (this.#position.phase === 'running') await this.#running?.journal.sync()
    })
  }

  /** @throws StorageError as of replayOrDiscard() */
  remove(discardJournal: boolean): Promise<void> {
    return this.turn(async () => {
      const { buffer, store, definition, journal, health, regions } = this.#options
      const left = (where: string) => (error: unknown) => health.say('warning', 'BUFFER_LEFT', leftText(where, error))
      if (!this.loops) await replayOrDiscard(this.#options, 'stream remove', discardJournal, () => this.#start())
      await this.#end({ phase: 'diverged', divergedReason: 'Its removal was interrupted.' })
      await buffer.remove()
      await StreamJournal.forget(store, definition.name)
      // No other stream has their names: what a disk does not let go of harms nobody.
      await removeJournal(journal.directory).catch(left(journal.directory))
      await this.regions.forget().catch(left(regions.path))
      await this.#state.remove()
    })
  }

  #overtaken(generation: number): Promise<void> {
    return this.turn(async () => {
      if (!this.loops) return
      await this.#end(overtaken(generation))
      this.#phases.sayDiverged()
    })
  }

  /** Nothing of what was recorded is needed any more. */
  async #end(change: PositionChange): Promise<void> {
    if (!this.loops) return
    await this.#mustNotCount()
    await this.#state.move(change)
    await this.#halt(true)
  }

  /** One at a time; and whatever fails, a stream that records nothing holds no volume. */
  turn(action: () => Promise<void>): Promise<void> {
    return this.#turns.run(async () => {
      try {
        await action()
      } finally {
        if (!this.loops) {
          this.regions.close()
          await this.#volumes.letGo()
        }
      }
    })
  }

  #startLoops(journal: StreamJournal): void {
    this.#health.failure = undefined
    this.#running = new RunningStream({ ...this.#options, ...this.#parts, journal })
    this.#options.hold.resume()
    if (this.#unanswered) this.#noteJournalEvent(this.#unanswered)
  }

  #startMapping(): void {
    this.#health.failure = undefined
    this.#mapping = new MappingStream({
      ...this.#options,
      ...this.#parts,
      delayMs: this.#backoff.next(performance.now()),
      onRoom: () => this.turn(() => this.#recordAgain()),
    })
    this.#options.changes.announce()
  }

  get #parts() {
    const { state, volumes, health, changes } = this.#options
    const { regions, catchUp } = this
    // Not waited for: its turn ends the loop that tells. What keeps it from that is met again when it is told again.
    const onOvertaken = (generation: number): void => void this.#overtaken(generation).catch(() => undefined)
    return { state, volumes, health, regions, catchUp, onOvertaken, onChange: () => changes.announce() }
  }

  /** Flushes are not answered by the journal alone any more, and what it has promised so far is on the backing. */
  async #mustNotCount(): Promise<void> {
    if (!this.#running) return
    this.#running.journal.native.doubt(true)
    await this.#volumes.sync()
  }

  /**
   * @param drop nothing that was recorded is needed any more. It is given up at once: a writer that waits for room in the
   * journal, or for the record, would hold up the rest.
   */
  async #halt(drop: boolean): Promise<void> {
    const { loops, running } = this
    if (!loops) return
    this.#running = undefined
    this.#mapping = undefined
    this.#options.hold.stop()
    loops.stop.abort()
    if (drop) {
      running?.journal.native.abandon()
      this.regions.giveUp()
    }
    await loops.ended
    if (running) await this.#volumes.release(running.journal, !drop)
    else await this.#volumes.unrecord()
    this.regions.close()
    this.#options.changes.announce()
  }

  /** Raised once, and hosts wait for the answer: kept until then, over the beginning of the stream and its loops. */
  #noteJournalEvent(event: JournalEvent): void {
    this.#unanswered = event
    const running = this.#running
    const answered = (): void => {
      if (running && this.#running === running && this.#unanswered === event) this.#unanswered = undefined
    }
    this.#answerJournal(event).then(answered, (error) => this.#health.noteFailure(error))
  }

  async #answerJournal(event: JournalEvent): Promise<void> {
    const running = this.#running
    if (!running || this.#isOver(running)) return
    const reason = await this.#answers.answer(event, running, () => this.#isOver(running))
    if (reason !== undefined) await this.#journalStopped(running, reason)
  }

  /**
   * The journal cannot take more writes and hosts wait. (1) Flushes sync the backing from here on, (2) what the journal
   * promised is on the backing, (3) it is recorded that writes are mapped, (4) they go on without the journal. With 2
   * before 1, or without them, a power cut takes flushed writes, for this journal is not replayed; with 4 before 3 nobody
   * would know that the far side misses something.
   */
  async #journalStopped(running: RunningStream, reason: string): Promise<void> {
    const end = running.journal.counters().publishedLsn
    if (!(await this.#answers.mayGiveUp(running, this.#mustNotCount()))) return
    await insist(
      () => this.#isOver(running) || this.#phases.map(reason, end).then(() => this.#isOver(running)),
      (error) => this.#health.say('error', 'STATE_UNAVAILABLE', `${error}. Hosts of this stream wait for it.`),
    )
    // An initialisation or removal that came first has ended this journal itself.
    if (this.#running?.journal !== running.journal) return
    this.#running.stop.abort()
    running.journal.native.abandon()
    this.#options.changes.announce()
    await this.turn(() => this.#leaveJournal(running.journal))
  }

  /** Its loops may have begun again meanwhile. */
  #isOver({ journal }: RunningStream): boolean {
    return this.#running?.journal !== journal || this.#position.phase !== 'running'
  }

  async #leaveJournal(journal: StreamJournal): Promise<void> {
    const running = this.#running
    if (running?.journal !== journal || this.#position.phase !== 'mapping') return
    await running.ended
    await this.#volumes.record(null, this.regions.native)
    this.#running = undefined
    this.#options.hold.stop()
    await journal.close(false).catch(() => undefined)
    this.#startMapping()
  }

  /**
   * Writes are mapped, and there is room again. (1) They go into a new journal, which flushes do not rely on yet, (2) what
   * was written without one is on the backing, (3) the map is what shall be caught up, durably, (4) the position says so;
   * from here on the journal is replayed, and relied on. A crash before 4 finds the map as it was, with all that was
   * written meanwhile; in any other order there would be writes that neither names.
   */
  async #recordAgain(): Promise<void> {
    const mapping = this.#mapping
    const { native } = this.regions
    if (!mapping || !native || this.#position.phase !== 'mapping') return
    const start = nextJournalLsn(this.#position, this.#options.journal.segmentBytes)
    this.#unanswered = undefined
    let journal: StreamJournal | undefined
    try {
      journal = await StreamJournal.create(this.#journalOptions, start)
      await this.#volumes.takeOver(journal, native)
      const { mappingReason: reason, held } = this.#position
      const change = { phase: 'running', cutLsn: start.toString(), held: held || this.#options.hold.active } as const
      await this.catchUp.begin(this.#state, { regions: this.regions.active(), reason, afterLsn: start }, change)
      journal.native.doubt(false)
    } catch (error) {
      this.#health.say('warning', 'STILL_MAPPING', String(error))
      journal?.native.abandon()
      await this.#volumes.record(null, native)
      await journal?.close(false).catch(() => undefined)
      return
    }
    this.#mapping = undefined
    mapping.stop.abort()
    await mapping.ended
    this.#health.sayCatchUp(this.#position)
    this.#startLoops(journal)
    // Not waited for: a journal that fails now answers only when it is given up, which may need this turn.
    this.regions.rotate(journal, false).catch(() => undefined)
  }

  /** The record cannot be written and hosts wait for it. That it is worth nothing is recorded, then they go on. */
  async #regionsFailed(message: string): Promise<void> {
    const { native } = this.regions
    this.#health.say('error', 'REGIONS_UNWRITABLE', `${message}. Without it a lost journal needs an initialisation.`)
    const reason = `The record of the regions to catch up was lost: ${message}.`
    await insist(() => this.regions.native !== native || this.#state.move(regionsLost(reason)).then(() => true))
    if (this.regions.native !== native) return
    this.regions.giveUp()
    if (this.#position.phase === 'diverged') {
      this.#mapping?.stop.abort()
      this.#phases.sayDiverged()
    }
  }
}
