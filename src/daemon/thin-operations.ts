import type { DiffView, ImageView } from '../api/agent-operations.js'
import type { ReportEvent } from '../block/event-log.js'
import { checkName } from '../block/names.js'
import { formatBytes } from '../block/size.js'
import { StorageError } from '../block/storage-error.js'
import { sectorBytes } from '../block/units.js'
import type { ThinPool } from '../pool/thin-pool.js'
import type { ImageCopies } from '../volume/image-copies.js'
import type { ThinVolume } from '../volume/thin-volume.js'
import type { Pools } from './pools.js'
import type { Volumes } from './volumes.js'

/** Extents in one answer about what changed. */
const diffPageExtents = 50_000
const longestName = 63

export interface ThinOperationsOptions {
  readonly pools: Pools
  readonly volumes: Volumes
  readonly images: ImageCopies
  /** Run while no epoch is applied to this volume. */
  readonly atBoundary: <T>(volume: string, action: () => Promise<T>) => Promise<T>
  /** The stream that records a volume, or that it arrives in; in words, or undefined. */
  readonly streamOf: (volume: string) => string | undefined
  readonly report: ReportEvent
}

/**
 * What operators do with volumes of pools, beyond attaching them. Refusals name what is in the way and how to clear it;
 * what a command destroys it says first, and wants to be told yes.
 */
export class ThinOperations {
  readonly #options: ThinOperationsOptions

  constructor(options: ThinOperationsOptions) {
    this.#options = options
  }

  async createVolume(name: string, poolName: string, sizeBytes: number): Promise<void> {
    const op = 'volume create'
    this.#options.volumes.checkNew(op, name)
    if (sizeBytes % sectorBytes !== 0) {
      throw new StorageError('BAD_SIZE', { op, object: name, hint: 'Use a multiple of 512 bytes.' })
    }
    await this.#options.pools.get(poolName).createVolume(name, sizeBytes)
  }

  /** @param yes its data may be destroyed */
  async removeVolume(name: string, yes: boolean): Promise<void> {
    const op = 'volume remove'
    const { volumes } = this.#options
    const volume = volumes.thin(op, name)
    this.#mustNotStream(op, name, 'Remove that first.')
    this.checkRemovable(op, volume)
    if (!yes) {
      const what = `${formatBytes(volume.facts.allocatedBytes)} of data`
      throw confirmation(op, name, `${what} would be lost. To destroy them: tidemark volume remove ${name} --yes`)
    }
    await this.leave(volume)
    await volume.pool.removeVolume(name)
    await volumes.forget(name, null)
    this.#tell('VOLUME_DESTROYED', name, `its space comes back to the pool ${volume.pool.name}`)
  }

  /** Those of these names that volumes arrive under. What an operator made of such a name is not the stream's. */
  arriving(names: readonly string[]): ThinVolume[] {
    const { pools, volumes } = this.#options
    const arrives = (name: string): boolean => pools.ofVolume(name)?.volume(name).role === 'inbound'
    return names.filter(arrives).map((name) => volumes.thin('inbound remove', name))
  }

  /** Complete images that follow the volume become volumes like any other, and what was kept for them goes. */
  leave({ pool, name }: ThinVolume): Promise<void> {
    return this.#options.images.forget(pool, name)
  }

  /** @throws StorageError VOLUME_ATTACHED, HAS_SNAPSHOTS */
  checkRemovable(op: string, volume: ThinVolume): void {
    const { name } = volume
    this.#options.volumes.mustBeDetached(op, volume)
    const shown = volume.facts.snapshots.filter(({ hidden }) => !hidden)
    if (shown.length > 0) {
      throw new StorageError('HAS_SNAPSHOTS', {
        op,
        object: name,
        hint: `It has ${shown.length}. Remove them first: ${shown
          .slice(0, 3)
          .map((snapshot) => `tidemark snapshot remove ${name} ${snapshot.name}`)
          .join('; ')}`,
      })
    }
  }

  /** @param force it may become smaller */
  async resize(name: string, sizeBytes: number, force: boolean): Promise<void> {
    const op = 'volume resize'
    const { volumes } = this.#options
    const volume = volumes.thin(op, name)
    if (sizeBytes % sectorBytes !== 0) {
      throw new StorageError('BAD_SIZE', { op, object: name, hint: 'Use a multiple of 512 bytes.' })
    }
    this.#mustNotStream(op, name, 'The size of a volume in a stream cannot change; remove the stream first.')
    this.#mustBeWhole(op, volume)
    const smaller = sizeBytes < volume.sizeBytes
    if (smaller && !force) {
      const lost = formatBytes(volume.sizeBytes - sizeBytes)
      const hint = `Its last ${lost} would be lost. Shrink the file system on it first, then give --force.`
      throw confirmation(op, name, hint)
    }
    if (smaller) volumes.mustBeDetached(op, volume)
    await volume.pool.resizeVolume(name, sizeBytes)
  }

  async createSnapshot(name: string, snapshot: string): Promise<ThinVolume> {
    const op = 'snapshot create'
    checkName('snapshot', snapshot)
    const { volumes, atBoundary } = this.#options
    const volume = volumes.thin(op, name)
    this.#mustBeWhole(op, volume)
    await atBoundary(name, () => volume.pool.createSnapshot(name, snapshot))
    return volumes.snapshot(op, name, snapshot)
  }

  async removeSnapshot(name: string, snapshot: string): Promise<void> {
    const op = 'snapshot remove'
    const { volumes } = this.#options
    const found = volumes.snapshot(op, name, snapshot)
    volumes.mustBeDetached(op, found)
    mustNotBeCopied(op, found.pool, name, snapshot)
    await found.pool.removeSnapshot(name, snapshot)
    await volumes.forget(name, snapshot)
    this.#tell('SNAPSHOT_REMOVED', `${name}@${snapshot}`, 'what only it held comes back in the background')
  }

  /** The snapshot is as it was taken again. @param yes what was written to it may be lost */
  async discardWrites(name: string, snapshot: string, yes: boolean): Promise<ThinVolume> {
    const op = 'snapshot discard'
    const { volumes } = this.#options
    const found = volumes.snapshot(op, name, snapshot)
    volumes.mustBeDetached(op, found)
    const { writtenBytes = null } = found.facts.snapshots.find((known) => known.name === snapshot) ?? {}
    if (writtenBytes !== null && !yes) {
      const what = `${formatBytes(writtenBytes)} that were written to it since it was taken`
      const hint = `${what} would be lost. To do it: tidemark snapshot discard ${name} ${snapshot} --yes`
      throw confirmation(op, found.name, hint)
    }
    await found.pool.discardWrites(name, snapshot)
    if (writtenBytes !== null) this.#tell('SNAPSHOT_DISCARDED', found.name, 'it is as it was taken again')
    return found
  }

  /** @param yes what was written since may be lost */
  async rollback(name: string, snapshot: string, yes: boolean): Promise<void> {
    const op = 'snapshot rollback'
    const { volumes } = this.#options
    const { pool, facts } = volumes.snapshot(op, name, snapshot)
    if (facts.role === 'inbound') {
      throw new StorageError('VOLUME_ARRIVES', {
        op,
        object: name,
        hint: `It arrives from a source and follows that. Make a clone: tidemark clone create ${name}@${snapshot} NAME`,
      })
    }
    const volume = volumes.thin(op, name)
    volumes.mustBeDetached(op, volume)
    this.#mustBeWhole(op, volume)
    this.#mustNotStream(op, name, `Use a clone of ${name}@${snapshot} instead, or remove the stream first.`)
    if (!yes) {
      const hint = `What was written to ${name} since is lost, unless a newer snapshot has it. To do it: tidemark snapshot rollback ${name} ${snapshot} --yes`
      throw confirmation(op, `${name}@${snapshot}`, hint)
    }
    await pool.rollback(name, snapshot)
    this.#tell('VOLUME_ROLLED_BACK', name, `to ${snapshot}`)
  }

  /** @param snapshot undefined: one is made, as the volume is now */
  async clone(volume: string, snapshot: string | undefined, name: string, full: boolean): Promise<void> {
    const op = 'clone create'
    const { volumes, images, atBoundary } = this.#options
    volumes.checkNew(op, name)
    const source = volumes.thin(op, volume)
    const { pool } = source
    if (snapshot === undefined) this.#mustBeWhole(op, source)
    else volumes.snapshot(op, volume, snapshot)
    if (full) return images.create(pool, name, volume, snapshot ?? null)
    const from = snapshot ?? freeSnapshotName(source, name)
    if (snapshot === undefined) await atBoundary(volume, () => pool.createSnapshot(volume, from))
    try {
      await pool.createClone(name, volume, from)
    } catch (error) {
      if (snapshot === undefined) await pool.removeSnapshot(volume, from)
      throw error
    }
  }

  /** @param from a snapshot of the volume it follows; null: that volume as it is now */
  async refresh(name: string, from: string | null): Promise<void> {
    const op = 'clone refresh'
    const { volumes, images } = this.#options
    const image = volumes.thin(op, name)
    volumes.mustBeDetached(op, image)
    const { pool, facts } = image
    const source = facts.image && pool.volumes().find((known) => known.name === facts.image?.volume)
    if (source) {
      if (from === null) this.#mustBeWhole(op, volumes.thin(op, source.name))
      else volumes.snapshot(op, source.name, from)
    }
    await images.refresh(pool, name, from)
  }

  /** From metadata alone. @param to null: the volume now */
  async diff(name: string, from: string, to: string | null, afterOffset: number): Promise<DiffView> {
    const op = 'volume diff'
    const { volumes } = this.#options
    const { pool } = volumes.snapshot(op, name, from)
    if (to !== null) volumes.snapshot(op, name, to)
    const all = await pool.diff(name, from, to)
    const first = all.findIndex(({ offset }) => offset >= afterOffset)
    const extents = first < 0 ? [] : all.slice(first, first + diffPageExtents)
    const changedBytes = all.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)
    const next = first < 0 ? undefined : all[first + diffPageExtents]
    return { volume: name, from, to, changedBytes, extents, next: next?.offset ?? null }
  }

  /** Of a complete image, else null. */
  imageView(name: string): ImageView | null {
    const { pools, images } = this.#options
    const pool = pools.ofVolume(name)
    const image = pool?.volume(name).image
    if (!pool || !image) return null
    const { volume, base, complete } = image
    const progress = images.progress(name)
    const source = pool.volumes().find((known) => known.name === volume)
    const createdAt = source?.snapshots.find((snapshot) => snapshot.name === base)?.createdAt
    const state = complete ? `as ${volume} was${createdAt ? ` at ${createdAt}` : ''}` : 'its copy was interrupted'
    const reason = progress ? `being copied from ${volume}` : state
    return { volume, complete: complete && progress === null, progress, reason }
  }

  /** Who took what away is asked for later. */
  #tell(code: string, object: string, text: string): void {
    this.#options.report({ severity: 'info', code, object, text })
  }

  #mustNotStream(op: string, name: string, what: string): void {
    const stream = this.#options.streamOf(name)
    if (stream === undefined) return
    const { role } = this.#options.volumes.thin(op, name).facts
    // What arrives follows its source: there is nothing to do about it here.
    const hint = role === 'inbound' ? stream : `${stream} ${what}`
    throw new StorageError('VOLUME_IN_USE', { op, object: name, hint })
  }

  /** Half an image looks like a whole one. @throws StorageError IMAGE_INCOMPLETE */
  #mustBeWhole(op: string, { name, facts }: ThinVolume): void {
    if (facts.image?.complete !== false) return
    throw new StorageError('IMAGE_INCOMPLETE', {
      op,
      object: name,
      retry: 'later',
      hint: `It is being copied, or its copy was interrupted. See: tidemark volume show ${name}`,
    })
  }
}

/** @throws StorageError SNAPSHOT_IN_USE while an image is copied from it */
function mustNotBeCopied(op: string, pool: ThinPool, volume: string, snapshot: string): void {
  for (const { name, image } of pool.volumes()) {
    if (image?.volume !== volume || image.base !== snapshot || image.complete) continue
    throw new StorageError('SNAPSHOT_IN_USE', {
      op,
      object: `${volume}@${snapshot}`,
      retry: 'later',
      hint: `The image ${name} is copied from it. See: tidemark volume show ${name}`,
    })
  }
}

/** `for-CLONE`, or with a number behind it. */
function freeSnapshotName({ facts }: ThinVolume, clone: string): string {
  const taken = new Set(facts.snapshots.map(({ name }) => name))
  for (let number = 1; ; number++) {
    const end = number === 1 ? '' : `-${number}`
    const name = `for-${clone}`.slice(0, longestName - end.length) + end
    if (!taken.has(name)) return name
  }
}

function confirmation(op: string, object: string, hint: string): StorageError {
  return new StorageError('CONFIRMATION_NEEDED', { op, object, hint })
}
