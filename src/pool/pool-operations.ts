import { Exclusive } from '../block/exclusive.js'
import { StorageError } from '../block/storage-error.js'
import { sectorBytes } from '../block/units.js'
import {
  findSnapshot,
  findVolume,
  findWritten,
  isWritten,
  type Operation,
  type SnapshotEntry,
  type VolumeEntry,
  type VolumeId,
  volumeId,
  writtenName,
} from './catalog.js'
import { wouldFit } from './catalog-room.js'
import { blockIndex, type LayerId, layerId } from './geometry.js'
import type { LayerLoader } from './layer-loader.js'
import { encodeOperation, nativeRecords } from './log-record.js'
import type { Marks } from './marks.js'
import type { OpenVolumes } from './open-volumes.js'
import type { PoolLog } from './pool-log.js'
import type { PoolState } from './state.js'
import type { ImageOrigin } from './thin-pool.js'

/** Of an extent of holes in the catalog, at the most. */
const holeBytes = 5

interface Parts {
  readonly state: PoolState
  readonly log: PoolLog
  readonly loader: LayerLoader
  readonly structure: Exclusive
  readonly open: OpenVolumes
  readonly marks: Marks
}

/**
 * What operators do to a pool's volumes and snapshots: each is one OPERATION in the log, made from the catalog as it is
 * when it is appended. One at a time, so that none is made from what another is about to change.
 */
export class PoolOperations {
  readonly #parts: Parts
  readonly #exclusive = new Exclusive()

  constructor(parts: Parts) {
    this.#parts = parts
  }

  createVolume(name: string, sizeBytes: number, role: 'volume' | 'inbound'): Promise<void> {
    return this.#durably(async () => {
      checkSize(name, sizeBytes)
      await this.#append(() => {
        this.#checkNew('volume create', name)
        const ids = this.#newIds()
        return { op: 'create-volume', ...ids, name, sizeBytes, createdAt: now(), role }
      })
    })
  }

  removeVolume(name: string): Promise<void> {
    return this.#durably(() =>
      this.#append(() => {
        const volume = this.volume('volume remove', name)
        this.#checkClosed('volume remove', volume)
        if (volume.snapshots.length > 0) throw hasSnapshots(volume)
        return { op: 'remove-volume', volume: volume.id }
      }),
    )
  }

  renameVolume(name: string, newName: string, replace: boolean): Promise<void> {
    const op = 'volume rename'
    return this.#durably(() =>
      this.#append(() => {
        const volume = this.volume(op, name)
        const replaced = findVolume(this.#parts.state.catalog, newName)
        if (!replaced || replaced === volume) return { op: 'rename-volume', volume: volume.id, name: newName }
        if (!replace) throw exists(op, newName, 'Choose another name, or remove that volume first.')
        this.#checkClosed(op, replaced)
        const twice = replaced.snapshots.find((snapshot) => findSnapshot(volume, snapshot.name))
        if (twice)
          throw exists(op, `${newName}@${twice.name}`, 'Both volumes have a snapshot of this name: remove one.')
        return { op: 'rename-volume', volume: volume.id, name: newName, replace: replaced.id }
      }),
    )
  }

  resizeVolume(name: string, sizeBytes: number): Promise<void> {
    const op = 'volume resize'
    return this.#durably(async () => {
      checkSize(name, sizeBytes)
      const { id, sizeBytes: before } = this.volume(op, name)
      const operation: Operation = { op: 'resize', volume: id, sizeBytes }
      if (sizeBytes < before) {
        await this.#shrink(id, operation)
      } else if (sizeBytes > before) {
        await this.#append(() => operation)
        const opened = await this.#parts.open.volume(id)
        await opened?.native.resize(sizeBytes)
      }
    })
  }

  /** @param durable false: a sync is begun, nobody waits for it */
  async createSnapshot(name: string, snapshot: string, hidden: boolean, durable: boolean): Promise<void> {
    const op = 'snapshot create'
    await this.#exclusive.run(async () => {
      const make = (): Operation & { op: 'snapshot' } => {
        const volume = this.volume(op, name)
        if (findSnapshot(volume, snapshot)) throw exists(op, `${name}@${snapshot}`, 'Choose another name.')
        this.#checkRoom(op, `${name}@${snapshot}`)
        const { layer } = this.#newIds()
        return { op: 'snapshot', volume: volume.id, name: snapshot, layer, createdAt: now(), hidden }
      }
      const opened = await this.#parts.open.volume(this.volume(op, name).id)
      if (!opened?.thin.layer) return this.#append(make)
      await this.#parts.log.whenRoom(async () => {
        this.#parts.log.check()
        const operation = this.#fitting(make())
        await opened.thin.freeze(opened.native, operation.layer, encodeOperation(operation))
        this.#parts.log.check()
      })
    })
    const synced = this.#parts.log.sync()
    if (durable) await synced
    else synced.catch(() => undefined)
  }

  removeSnapshot(name: string, snapshot: string): Promise<void> {
    const op = 'snapshot remove'
    return this.#durably(() =>
      this.#append(() => {
        const volume = this.volume(op, name)
        const { layer } = this.snapshot(op, volume, snapshot)
        const written = findWritten(this.#parts.state.catalog, volume, snapshot)
        if (this.#parts.open.isLayerOpen(layer)) throw isOpen(op, `${name}@${snapshot}`)
        if (written) this.#checkClosed(op, written)
        return { op: 'remove-snapshot', volume: volume.id, name: snapshot }
      }),
    )
  }

  rollback(name: string, snapshot: string): Promise<void> {
    const op = 'snapshot rollback'
    return this.#durably(() =>
      this.#append(() => {
        const volume = this.volume(op, name)
        this.snapshot(op, volume, snapshot)
        this.#checkClosed(op, volume)
        const { layer } = this.#newIds()
        return { op: 'rollback', volume: volume.id, name: snapshot, layer }
      }),
    )
  }

  createClone(name: string, from: string, snapshot: string): Promise<void> {
    const op = 'clone create'
    return this.#durably(() =>
      this.#append(() => {
        const source = this.volume(op, from)
        this.snapshot(op, source, snapshot)
        this.#checkNew(op, name)
        this.#checkRoom(op, name)
        return { op: 'clone', ...this.#newIds(), name, from: source.id, snapshot, createdAt: now() }
      }),
    )
  }

  /** The thin clone that takes what a host writes to a snapshot: made when there is none. */
  async writtenTo(name: string, snapshot: string): Promise<VolumeEntry> {
    const op = 'snapshot write'
    const find = (): VolumeEntry | undefined => this.#written(op, name, snapshot)
    const make = (): Operation => {
      const from = this.volume(op, name)
      this.snapshot(op, from, snapshot)
      this.#checkRoom(op, `${name}@${snapshot}`)
      const written = writtenName(name, snapshot)
      return { op: 'clone', ...this.#newIds(), name: written, from: from.id, snapshot, createdAt: now() }
    }
    if (!find()) {
      await this.#durably(async () => {
        if (!find()) await this.#append(make)
      })
    }
    const made = find()
    if (made) return made
    const hint = 'What was written to it was discarded in the meantime.'
    throw new StorageError('NO_SUCH_SNAPSHOT', { op, object: `${name}@${snapshot}`, retry: 'later', hint })
  }

  /** What was written to a snapshot goes, the snapshot stays. Nothing to do when there is nothing. */
  discardWrites(name: string, snapshot: string): Promise<void> {
    const op = 'snapshot discard'
    return this.#durably(async () => {
      const written = this.#written(op, name, snapshot)
      if (!written) return
      await this.#append(() => {
        this.#checkClosed(op, written)
        return { op: 'remove-volume', volume: written.id }
      })
    })
  }

  setImage(name: string, image: ImageOrigin | null): Promise<void> {
    return this.#durably(() =>
      this.#append(() => ({ op: 'set-image', volume: this.volume('volume image', name).id, image })),
    )
  }

  setStream(name: string, stream: string | null): Promise<void> {
    return this.#durably(() =>
      this.#append(() => ({ op: 'set-stream', volume: this.volume('stream record', name).id, stream })),
    )
  }

  hold(holder: string): Promise<void> {
    return this.#durably(() => this.#append(() => ({ op: 'hold', holder })))
  }

  /** Another kind of change to the catalog, in line with these. */
  exclusively<T>(step: () => Promise<T>): Promise<T> {
    return this.#exclusive.run(step)
  }

  /** @throws StorageError CATALOG_FULL */
  checkFits(operation: Operation): void {
    const { state } = this.#parts
    let holes = 0
    for (const set of state.holes.values()) holes += (set.extentCount + 1) * holeBytes
    if (wouldFit(state.catalog, operation, holes, state.geometry)) return
    throw new StorageError('CATALOG_FULL', {
      op: operation.op,
      object: state.catalog.name,
      hint: 'The pool has as many volumes and snapshots as it can. Remove some, or create a larger pool.',
    })
  }

  /** @throws StorageError NO_SUCH_VOLUME */
  volume(op: string, name: string): VolumeEntry {
    const volume = findVolume(this.#parts.state.catalog, name)
    if (volume && !isWritten(volume)) return volume
    const hint = `The pool ${this.#parts.state.catalog.name} has no volume of this name. See: tidemark volume list`
    throw new StorageError('NO_SUCH_VOLUME', { op, object: name, hint })
  }

  /** @throws StorageError NO_SUCH_SNAPSHOT */
  snapshot(op: string, volume: VolumeEntry, name: string): SnapshotEntry {
    const snapshot = findSnapshot(volume, name)
    if (snapshot) return snapshot
    const hint = `See: tidemark snapshot list ${volume.name}`
    throw new StorageError('NO_SUCH_SNAPSHOT', { op, object: `${volume.name}@${name}`, hint })
  }

  #written(op: string, name: string, snapshot: string): VolumeEntry | undefined {
    const volume = this.volume(op, name)
    this.snapshot(op, volume, snapshot)
    return findWritten(this.#parts.state.catalog, volume, snapshot)
  }

  /** What is cut off is trimmed in the same step. */
  async #shrink(id: VolumeId, operation: Operation & { op: 'resize' }): Promise<void> {
    const { state, log, loader, structure, open } = this.#parts
    const op = 'volume resize'
    this.#checkClosed(op, state.catalog.volumes.get(id)!)
    // Before the operation: after it a crash would leave bytes that come back when the volume grows.
    await open.zeroBlockEnd(state.catalog.volumes.get(id)!, operation.sizeBytes)
    await log.whenRoom(() =>
      structure.run(async () => {
        const volume = state.catalog.volumes.get(id)!
        this.#checkClosed(op, volume)
        const need = loader.need(() => [volume.layer])
        try {
          await loader.loadLayer(volume.layer)
          const blocks = (bytes: number): number => Math.ceil(bytes / state.geometry.blockBytes)
          const first = blocks(operation.sizeBytes)
          const count = blocks(volume.sizeBytes) - first
          const cut = count > 0 ? [nativeRecords.hole(volume.layer, blockIndex(first), count)] : []
          log.append([...cut, encodeOperation(operation)])
        } finally {
          need.done()
        }
      }),
    )
  }

  /** Resolves when the operation, and what it stands on, is durable. */
  async #durably(step: () => Promise<void>): Promise<void> {
    await this.#exclusive.run(step)
    await this.#parts.log.sync()
  }

  async #append(make: () => Operation): Promise<void> {
    await this.#parts.log.appendWhenRoom(() => [encodeOperation(this.#fitting(make()))])
  }

  #fitting<T extends Operation>(operation: T): T {
    this.checkFits(operation)
    return operation
  }

  #newIds(): { volume: VolumeId; layer: LayerId } {
    const { nextId } = this.#parts.state.catalog
    return { volume: volumeId(nextId), layer: layerId(nextId + 1) }
  }

  #checkNew(op: string, name: string): void {
    if (findVolume(this.#parts.state.catalog, name)) throw exists(op, name, 'Choose another name.')
  }

  #checkClosed(op: string, volume: VolumeEntry): void {
    if (this.#parts.open.isClaimed(volume.id)) throw isOpen(op, volume.name)
  }

  #checkRoom(op: string, object: string): void {
    const { state, marks } = this.#parts
    if (!marks.isNearlyFull(state.units.ownedUnits, state.units.length)) return
    throw new StorageError('POOL_NEARLY_FULL', {
      op,
      object,
      retry: 'later',
      hint: `The pool ${state.catalog.name} is above its last mark: what is left is for writes. Extend it, or remove snapshots or volumes.`,
    })
  }
}

function now(): string {
  return new Date().toISOString()
}

function checkSize(name: string, sizeBytes: number): void {
  if (Number.isSafeInteger(sizeBytes) && sizeBytes > 0 && sizeBytes % sectorBytes === 0) return
  const hint = `A volume has a multiple of ${sectorBytes} bytes, not ${sizeBytes}.`
  throw new StorageError('BAD_SIZE', { op: 'volume size', object: name, hint })
}

function exists(op: string, object: string, hint: string): StorageError {
  return new StorageError('ALREADY_EXISTS', { op, object, hint })
}

function isOpen(op: string, object: string): StorageError {
  return new StorageError('VOLUME_OPEN', { op, object, retry: 'later', hint: `Detach ${object} first.` })
}

function hasSnapshots(volume: VolumeEntry): StorageError {
  const names = volume.snapshots.map(({ name }) => name).join(', ')
  return new StorageError('HAS_SNAPSHOTS', {
    op: 'volume remove',
    object: volume.name,
    hint: `Remove its snapshots first: ${names}.`,
  })
}
