import type { ReportEvent } from '../block/event-log.js'
import { Exclusive } from '../block/exclusive.js'
import type { Intercept, NativePool, PoolEvent } from '../intercept/addon.js'
import type { Operation } from './catalog.js'
import { Checkpointer } from './checkpointer.js'
import type { LogSequence } from './geometry.js'
import { LayerLoader } from './layer-loader.js'
import { Marks } from './marks.js'
import { Merging } from './merging.js'
import type { MetadataStore } from './metadata-store.js'
import { OpenVolumes } from './open-volumes.js'
import { PoolLog } from './pool-log.js'
import { PoolOperations } from './pool-operations.js'
import { Reclaim } from './reclaim.js'
import { Slots } from './slots.js'
import type { PoolState } from './state.js'
import type { PoolFacts } from './thin-pool.js'

export interface RunningPoolOptions {
  readonly report: ReportEvent
  readonly intercept: Pick<Intercept, 'openVolume'>
  readonly waitForSpaceMs: number
  readonly marks: readonly number[]
  /** Called once, before anybody is told. */
  readonly onFailed: () => void
}

/** The parts of an open pool, and what each tells the others. */
export class RunningPool {
  readonly store: MetadataStore
  readonly state: PoolState
  readonly native: NativePool
  readonly log: PoolLog
  readonly slots: Slots
  readonly reclaim: Reclaim
  readonly loader: LayerLoader
  readonly checkpointer: Checkpointer
  /** Taken by whatever needs units to stay with their layers while it waits for pages. */
  readonly structure = new Exclusive()
  readonly merging: Merging
  readonly marks: Marks
  readonly open: OpenVolumes
  readonly operations: PoolOperations
  readonly #report: ReportEvent
  #isFull = false
  #closed = false

  constructor(options: RunningPoolOptions, store: MetadataStore, state: PoolState, native: NativePool) {
    this.store = store
    this.state = state
    this.native = native
    this.#report = options.report
    this.marks = new Marks(state.catalog.name, options.marks, options.report)
    this.log = new PoolLog(native, state, {
      onTaken: () => this.lookAtMarks(),
      onDurable: (sequence) => this.reclaim.durable(sequence),
      makeRoom: () => this.checkpointer.run(),
      onBroken: (error) => {
        options.onFailed()
        this.#onBroken(error)
      },
    })
    this.slots = new Slots(state.geometry, state.units, () => this.reclaim.look())
    this.reclaim = new Reclaim(native, state.geometry, this.slots, {
      sync: () => this.log.sync(),
      onSpace: () => this.onSpace(),
      onBroken: (error) => this.log.fail(error),
      onTrimFailed: (error) => this.report('warning', 'POOL_TRIM_FAILED', `Space was freed but not trimmed: ${error}`),
    })
    this.loader = new LayerLoader(state, store)
    this.checkpointer = new Checkpointer(native, store, state, this.log, this.loader, (haveRoom) =>
      this.#onHoles(haveRoom),
    )
    this.merging = new Merging(state, this.log, this.loader, this.structure, (error) =>
      this.report('error', error.code, `${error.message}. ${error.hint}`),
    )
    this.open = new OpenVolumes({
      ...this.#shared(),
      intercept: options.intercept,
      native,
      slots: this.slots,
      waitForSpaceMs: options.waitForSpaceMs,
      onNoSpace: () => this.#onNoSpace(),
    })
    this.operations = new PoolOperations({ ...this.#shared(), open: this.open, marks: this.marks })
    state.observe({
      freed: (location, count, sequence) => this.slots.freed.add(location, count, sequence),
      mapped: (layer, block, location) => {
        this.slots.published(layer, location)
        this.open.published(layer, block, location)
      },
      moved: (unit, layer, blocks) => this.slots.moved(unit, layer, blocks),
      operated: (operation, sequence) => this.#onOperated(operation, sequence),
    })
  }

  onPoolEvent(event: PoolEvent): void {
    if (this.#closed) return
    switch (event.kind) {
      case 'appended':
        this.log.take()
        return
      case 'log-filling':
      case 'log-full':
        // When it fails the pool has failed, and says so.
        void this.checkpointer.run().catch(() => undefined)
        return
      case 'failed':
        this.log.fail(new Error(event.message))
    }
  }

  /** There may be room for writes that wait. */
  onSpace(): void {
    if (this.slots.space.freeUnits > 0) this.#isFull = false
    this.open.retry()
  }

  lookAtMarks(): void {
    this.marks.look(this.state.units.ownedUnits, this.state.units.length)
  }

  /** What is told from here on is as of now, also when the pool is closed. */
  take(): void {
    if (!this.#closed) this.log.take()
  }

  report(severity: 'info' | 'warning' | 'error', code: string, text: string): void {
    this.#report({ severity, code, object: this.state.catalog.name, text })
  }

  health(): Pick<PoolFacts, 'state' | 'reason'> {
    const { units } = this.state
    if (this.log.isBroken) return { state: 'failed', reason: this.log.reason }
    if (this.open.waitForSpace) return { state: 'full', reason: 'Writes wait for space.' }
    if (this.loader.damaged.size > 0) {
      return { state: 'damaged', reason: 'Pages of some volumes cannot be read: tidemark pool check --repair' }
    }
    if (this.slots.space.freeUnits === 0 && this.slots.freed.isSettled) {
      return { state: 'full', reason: 'No unit is free.' }
    }
    if (this.marks.isNearlyFull(units.ownedUnits, units.length)) {
      return { state: 'nearly-full', reason: 'It is above its last mark: snapshots and clones are refused.' }
    }
    return { state: 'online', reason: '' }
  }

  get isClosed(): boolean {
    return this.#closed
  }

  /** No volume is open. Closed in any case; what it throws was not written. */
  async close(): Promise<void> {
    try {
      await this.merging.stop()
      this.reclaim.stopSweep()
      if (!this.log.isBroken) await this.#writeLast()
    } finally {
      this.#closed = true
      this.reclaim.stop()
      await this.native.close()
      await this.store.close()
    }
  }

  async #writeLast(): Promise<void> {
    await this.log.sync()
    await this.reclaim.settle()
    // Nothing is appended between this and the checkpoint, so the log ends where the checkpoint says.
    await this.log.sync()
    await this.checkpointer.runAs({ clean: true, twice: true })
  }

  #shared() {
    const { state, log, loader, structure } = this
    return { state, log, loader, structure }
  }

  #onOperated(operation: Operation, sequence: LogSequence): void {
    if (operation.op === 'add-device') this.slots.space.grow(this.state.units.length)
    if (makesGarbage.has(operation.op)) this.merging.look(sequence)
  }

  #onHoles(haveRoom: boolean): void {
    if (this.open.makesHoles === haveRoom) return
    this.open.setHoles(haveRoom)
    if (haveRoom) this.report('info', 'POOL_HOLES_AGAIN', 'There is room to record trims again.')
    else {
      const text =
        'There is no room to record more trims of what snapshots and clones still hold: trims do nothing and zeros take space. Remove snapshots or clones.'
      this.report('warning', 'POOL_HOLES_FULL', text)
    }
  }

  #onNoSpace(): void {
    void this.reclaim.hurry()
    if (this.#isFull) return
    this.#isFull = true
    const text = 'Writes that need space wait, then fail. Extend the pool, or remove snapshots or volumes.'
    this.report('error', 'POOL_FULL', text)
  }

  #onBroken(error: unknown): void {
    const why = error instanceof Error ? error.message : String(error)
    const text = `Nothing can be allocated or changed any more: ${why}. Restart the agent: it recovers the pool.`
    this.report('error', 'POOL_FAILED', text)
    this.open.retry()
  }
}

const makesGarbage: ReadonlySet<Operation['op']> = new Set([
  'remove-volume',
  'remove-snapshot',
  'rollback',
  'rename-volume',
])
