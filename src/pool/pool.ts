import { stat } from 'node:fs/promises'
import type { ReportEvent } from '../block/event-log.js'
import { StorageError } from '../block/storage-error.js'
import type { Intercept, NativePool, PoolEvent } from '../intercept/addon.js'
import { intercept as realIntercept } from '../intercept/intercept.js'
import { auditPool } from './audit.js'
import { isWritten, type Operation, type VolumeEntry } from './catalog.js'
import type { CheckpointStep } from './checkpoint-writer.js'
import { prepareDevice } from './create-pool.js'
import { byteExtents, changedBlocks, mappedBlocks } from './diff.js'
import type { LogSequence } from './geometry.js'
import { encodeOperation } from './log-record.js'
import { defaultMarks } from './marks.js'
import { MetadataStore } from './metadata-store.js'
import { volumeFacts, writtenLayers } from './pool-facts.js'
import { recoverPool } from './recovery.js'
import { RunningPool } from './running-pool.js'
import type { ByteExtent, ImageOrigin, OpenThinVolume, PoolFacts, ThinPool, ThinVolumeFacts } from './thin-pool.js'

export interface OpenPoolOptions {
  readonly report: ReportEvent
  /** O_DIRECT for the data. */
  readonly direct?: boolean
  /** How long a write waits when the pool is full. */
  readonly waitForSpaceMs?: number
  /** Percentages, ascending. */
  readonly marks?: readonly number[]
  readonly intercept?: Pick<Intercept, 'openPool' | 'openVolume'>
  /** A sync of it failed since it was opened last; see onFailed(). */
  readonly afterFailure?: boolean
  /**
   * It cannot be written any more. What was not committed is not on the disk for certain, although this machine goes on: that it
   * failed must be remembered, and said when it is opened or checked next.
   * @param id the pool's
   */
  readonly onFailed?: (id: string) => void
  /** For tests: where a checkpoint may be cut short. */
  readonly onCheckpointStep?: (step: CheckpointStep) => void
}

const defaultWaitForSpaceMs = 60_000

/** One pool, open in this agent. DESIGN.md says how it works. */
export class Pool implements ThinPool {
  readonly afterCrash: boolean
  readonly #pool: RunningPool

  private constructor(pool: RunningPool, afterCrash: boolean) {
    this.#pool = pool
    this.afterCrash = afterCrash
  }

  /**
   * Open a pool by all its devices, in any order; after a crash it is recovered. It is held against other agents.
   *
   * @throws StorageError as of MetadataStore.open(), recoverPool() and Intercept.openPool(); nothing stays open then
   */
  static async open(paths: readonly string[], options: OpenPoolOptions): Promise<Pool> {
    const { report, onCheckpointStep, intercept = realIntercept, afterFailure = false } = options
    const { waitForSpaceMs = defaultWaitForSpaceMs, marks = defaultMarks } = options
    const store = await MetadataStore.open(paths, {
      lock: true,
      afterFailure,
      ...(onCheckpointStep && { onStep: onCheckpointStep }),
    })
    let native: NativePool | undefined
    let pool: RunningPool | undefined
    const onFailed = (): void => options.onFailed?.(store.poolId.toString('hex'))
    try {
      const { state, head, needed } = await recoverPool(store)
      await store.unlock()
      native = openNative(store, head, intercept, options.direct ?? false, (event) => pool?.onPoolEvent(event))
      await store.assertUnchanged()
      pool = new RunningPool({ report, intercept, waitForSpaceMs, marks, onFailed }, store, state, native)
      // From here on the pool says that it is open, and on which boot; what was recovered is in both trees.
      await pool.checkpointer.runAs({ twice: needed })
      begin(pool)
      return new Pool(pool, needed)
    } catch (error) {
      // The checkpoint that was to begin it.
      if (pool) onFailed()
      await native?.close().catch(() => undefined)
      await store.close()
      throw error
    }
  }

  get name(): string {
    return this.#pool.state.catalog.name
  }

  get id(): string {
    return this.#pool.store.poolId.toString('hex')
  }

  get holder(): string | null {
    return this.#pool.state.catalog.holder
  }

  facts(): PoolFacts {
    this.#pool.take()
    const { units, geometry } = this.#pool.state
    let virtualBytes = 0
    for (const volume of this.#shownVolumes()) virtualBytes += volume.sizeBytes
    return {
      name: this.name,
      id: this.id,
      devices: geometry.devices.map(({ index, sizeBytes }) => ({ path: this.#pool.store.paths[index]!, sizeBytes })),
      unitBytes: geometry.unitBytes,
      blockBytes: geometry.blockBytes,
      sizeBytes: units.length * geometry.unitBytes,
      allocatedBytes: units.ownedUnits * geometry.unitBytes,
      mappedBytes: units.usedSlots * geometry.blockBytes,
      virtualBytes,
      marks: this.#pool.marks.percentages,
      ...this.#pool.health(),
      background: this.#pool.merging.background,
    }
  }

  volumes(): ThinVolumeFacts[] {
    this.#pool.take()
    const written = writtenLayers(this.#pool.state)
    return this.#shownVolumes().map((volume) => volumeFacts(this.#pool.state, volume, written))
  }

  volume(name: string): ThinVolumeFacts {
    this.#pool.take()
    const { state, operations } = this.#pool
    return volumeFacts(state, operations.volume('volume show', name), writtenLayers(state))
  }

  createVolume(name: string, sizeBytes: number, role: 'volume' | 'inbound' = 'volume'): Promise<void> {
    return this.#pool.operations.createVolume(name, sizeBytes, role)
  }

  removeVolume(name: string): Promise<void> {
    return this.#pool.operations.removeVolume(name)
  }

  renameVolume(name: string, newName: string, replace = false): Promise<void> {
    return this.#pool.operations.renameVolume(name, newName, replace)
  }

  resizeVolume(name: string, sizeBytes: number): Promise<void> {
    return this.#pool.operations.resizeVolume(name, sizeBytes)
  }

  createSnapshot(volume: string, name: string, options: { hidden?: boolean; durable?: boolean } = {}): Promise<void> {
    return this.#pool.operations.createSnapshot(volume, name, options.hidden ?? false, options.durable ?? true)
  }

  removeSnapshot(volume: string, name: string): Promise<void> {
    return this.#pool.operations.removeSnapshot(volume, name)
  }

  discardWrites(volume: string, snapshot: string): Promise<void> {
    return this.#pool.operations.discardWrites(volume, snapshot)
  }

  rollback(volume: string, snapshot: string): Promise<void> {
    return this.#pool.operations.rollback(volume, snapshot)
  }

  createClone(name: string, volume: string, snapshot: string): Promise<void> {
    return this.#pool.operations.createClone(name, volume, snapshot)
  }

  setImage(name: string, image: ImageOrigin | null): Promise<void> {
    return this.#pool.operations.setImage(name, image)
  }

  setStream(name: string, stream: string | null): Promise<void> {
    return this.#pool.operations.setStream(name, stream)
  }

  diff(volume: string, from: string, to: string | null): Promise<ByteExtent[]> {
    const { state, loader, structure, log } = this.#pool
    return structure.run(async () => {
      log.take()
      const [begin, end] = [this.#shown('volume diff', volume, from), this.#shown('volume diff', volume, to)]
      const blocks = await changedBlocks(state, loader, begin.layer, end.layer)
      return byteExtents(blocks, state.geometry.blockBytes, end.sizeBytes)
    })
  }

  mapped(volume: string, snapshot: string | null): Promise<ByteExtent[]> {
    const { state, loader, structure, log } = this.#pool
    return structure.run(async () => {
      log.take()
      const { layer, sizeBytes } = this.#shown('volume map', volume, snapshot)
      return byteExtents(await mappedBlocks(state, loader, layer), state.geometry.blockBytes, sizeBytes)
    })
  }

  /** @throws StorageError VOLUME_OPEN, POOL_NEARLY_FULL, POOL_DAMAGED, and as of Intercept.openVolume() */
  async open(
    volume: string,
    snapshot: string | null,
    options: { readOnly: boolean; threads: number; onLost: (message: string) => void },
  ): Promise<OpenThinVolume> {
    const op = 'volume open'
    const { operations, open } = this.#pool
    const entry = operations.volume(op, volume)
    if (snapshot === null) return open.openVolume(entry, options)
    const { layer, sizeBytes } = operations.snapshot(op, entry, snapshot)
    if (options.readOnly) return open.openSnapshot(`${volume}@${snapshot}`, layer, sizeBytes, options)
    return open.openVolume(await operations.writtenTo(volume, snapshot), options)
  }

  async extend(path: string, sizeBytes?: number): Promise<void> {
    const { operations, log, store, checkpointer, native } = this.#pool
    const facts = await stat(path).catch(() => undefined)
    const kind = facts?.isBlockDevice() ? 'raw' : 'file'
    await operations.exclusively(async () => {
      log.check()
      const layout = await prepareDevice(store, { path, kind, ...(sizeBytes !== undefined && { sizeBytes }) })
      const operation: Operation = { op: 'add-device', device: layout.index, sizeBytes: layout.sizeBytes, path }
      operations.checkFits(operation)
      await store.openDevice(path)
      let added = false
      await log.whenRoom(() =>
        // A checkpoint is of the devices that were there when it began.
        checkpointer.between(async () => {
          if (!added) native.addDevice({ path, sizeBytes: layout.sizeBytes })
          added = true
          log.append([encodeOperation(operation)])
        }),
      )
    })
    await log.sync()
    this.#pool.report('info', 'POOL_EXTENDED', `${path} is part of the pool now.`)
    this.#pool.onSpace()
  }

  hold(holder: string): Promise<void> {
    return this.#pool.operations.hold(holder)
  }

  async close(): Promise<void> {
    const { operations, open } = this.#pool
    await operations.exclusively(async () => {
      if (this.#pool.isClosed) return
      if (!open.isEmpty) {
        const hint = 'Detach its volumes and snapshots first.'
        throw new StorageError('VOLUME_OPEN', { op: 'pool close', object: this.name, hint })
      }
      await this.#pool.close()
    })
  }

  /** Everything that can be looked at is as it should be. While nothing is being written. @throws AssertionError */
  audit(): Promise<void> {
    const { state, loader, slots, structure, log } = this.#pool
    log.take()
    return structure.run(() => auditPool(state, loader, slots))
  }

  /** Nothing goes on in the background, and what was freed can be given out. */
  async settled(): Promise<void> {
    await this.#pool.merging.idle()
    await this.#pool.reclaim.settle()
  }

  checkpoint(): Promise<void> {
    return this.#pool.checkpointer.run()
  }

  #shownVolumes(): VolumeEntry[] {
    return [...this.#pool.state.catalog.volumes.values()].filter((volume) => !isWritten(volume))
  }

  #shown(op: string, name: string, snapshot: string | null) {
    const { operations } = this.#pool
    const volume = operations.volume(op, name)
    return snapshot === null ? volume : operations.snapshot(op, volume, snapshot)
  }
}

/** What an open pool does of its own accord. */
function begin(pool: RunningPool): void {
  pool.lookAtMarks()
  for (const { where, what } of pool.store.damage) {
    pool.report('warning', 'POOL_METADATA_DAMAGED', `${where}: ${what}. The other copy was read.`)
  }
  pool.merging.look()
  sweep(pool).catch((error) => pool.log.fail(error))
}

/** Files alone: punching a hole in one is cheap and leaves zeros for certain. */
async function sweep(pool: RunningPool): Promise<void> {
  const isFile = (path: string): Promise<boolean> =>
    stat(path).then(
      (facts) => facts.isFile(),
      () => false,
    )
  const files = await Promise.all(pool.store.paths.map(isFile))
  await pool.reclaim.sweep((device) => files[device] === true)
}

function openNative(
  { geometry, paths, catalog, seed }: MetadataStore,
  head: LogSequence,
  intercept: Pick<Intercept, 'openPool'>,
  direct: boolean,
  onEvent: (event: PoolEvent) => void,
): NativePool {
  return intercept.openPool({
    name: catalog.name,
    devices: geometry.devices.map(({ index, sizeBytes }) => ({ path: paths[index]!, sizeBytes })),
    blockBytes: geometry.blockBytes,
    direct,
    log: {
      offset: geometry.head.logOffset,
      capacityRecords: geometry.head.logRecords,
      seed,
      head: BigInt(head),
      tail: BigInt(head),
    },
    onEvent,
  })
}
