import type { ReportEvent } from '../block/event-log.js'
import { Exclusive } from '../block/exclusive.js'
import { StorageError } from '../block/storage-error.js'
import { WorkerCalls } from '../block/worker-calls.js'
import type { ImageOrigin, ThinPool, ThinSnapshotFacts, ThinVolumeFacts } from '../pool/thin-pool.js'
import type { ImageCopyJob } from './image-copy-worker.js'
import { extentBytes, splitBatches, uniteExtents } from './image-extents.js'
import { baseName, equalledBase, isBase, isBaseOf, isOwn, ownName } from './image-names.js'
import type { ThinVolumes } from './thin-volumes.js'

export interface ImageCopiesOptions {
  readonly volumes: ThinVolumes
  /** Run while no epoch is applied to this volume: InboundStreams.atEpochBoundary. */
  readonly atBoundary: <T>(volume: string, action: () => Promise<T>) => Promise<T>
  /** What is written to this volume until the function is called appears at its destination at once: Streams.holdEpoch. */
  readonly holdEpoch: (volume: string) => Promise<() => Promise<void>>
  /** Whether a stream records this volume: its size is fixed then. */
  readonly isRecorded: (volume: string) => boolean
  readonly report: ReportEvent
}

export interface CopyProgress {
  readonly doneBytes: number
  readonly totalBytes: number
}

interface Copy {
  readonly pool: ThinPool
  readonly image: string
  readonly stop: AbortController
  progress: CopyProgress
  /** Never rejects. */
  ended: Promise<void>
  failure: unknown
}

/**
 * Complete images: copies of a snapshot that share nothing with it, and follow their source by what changed.
 *
 * What is copied is what differs between two hidden snapshots of the source (then and now), and what was written to the
 * image since it equalled the older one: its difference to a hidden snapshot of its own. Steps of a copy:
 *
 *  1. the source's snapshot is there, hidden unless it was named by an operator,
 *  2. the image is recorded as incomplete, from that snapshot on: no host may attach it,
 *  3. the stream that records the image, if any, is told that all to come belongs together,
 *  4. a worker copies, and syncs the image,
 *  5. the image's own snapshot is taken; its name tells what the image equals,
 *  6. the image is recorded as complete,
 *  7. the stream goes on, snapshots nobody needs any more are removed.
 *
 * A crash after 2 leaves what differs readable as before: the old pair of snapshots is removed only in 7, and what the
 * copy wrote so far counts as written to the image. So the copy is done again, and no step needs to know how far the
 * last attempt came. 6 before 5 would lose what the image equals; 7 before 6 the way to find out what differs.
 */
export class ImageCopies {
  readonly #options: ImageCopiesOptions
  readonly #worker = new WorkerCalls(new URL('./image-copy-worker.js', import.meta.url))
  readonly #copies = new Map<string, Copy>()
  /** A snapshot is made and recorded in one turn, so that a sweep in between does not take it for left over. */
  readonly #turns = new Exclusive()
  #stopping = false

  constructor(options: ImageCopiesOptions) {
    this.#options = options
  }

  /**
   * Make a complete image of a snapshot, or of the volume as it is now. Resolves when the image is there and recorded;
   * its copying goes on.
   * @throws StorageError NO_SUCH_VOLUME, NO_SUCH_SNAPSHOT, ALREADY_EXISTS, and those of the pool
   */
  create(pool: ThinPool, image: string, volume: string, snapshot: string | null): Promise<void> {
    return this.#turns.run(async () => {
      const base = await this.#base(pool, image, volume, snapshot)
      try {
        await pool.createVolume(image, base.sizeBytes)
        await pool.setImage(image, { volume, base: base.name, own: null, complete: false })
      } catch (error) {
        await this.#sweep(pool, volume)
        throw error
      }
      this.#begin(pool, image)
    })
  }

  /**
   * Make a complete image as its source is now, or as a snapshot of it was. Resolves when that is recorded; the copying
   * goes on.
   * @throws StorageError NO_SUCH_VOLUME, NO_SUCH_SNAPSHOT, NOT_AN_IMAGE, COPY_RUNNING, VOLUME_ATTACHED, SIZE_CHANGED
   */
  refresh(pool: ThinPool, image: string, snapshot: string | null): Promise<void> {
    return this.#turns.run(() => this.#refresh(pool, image, snapshot))
  }

  async #refresh(pool: ThinPool, image: string, snapshot: string | null): Promise<void> {
    const origin = this.#imageOf(pool, image)
    if (this.#copies.has(image)) throw running(image)
    const base = await this.#base(pool, image, origin.volume, snapshot)
    const host = this.#options.volumes.get(pool, image)
    try {
      await pool.setImage(image, { ...origin, base: base.name, complete: false })
      // An attach that was under way has ended with this; a later one is refused.
      await host.hold()
      try {
        if (host.device !== null) throw attached(image)
        await this.#fit(pool, image, base.sizeBytes)
      } finally {
        await host.release()
      }
    } catch (error) {
      await pool.setImage(image, origin)
      await this.#sweep(pool, origin.volume)
      throw error
    }
    this.#begin(pool, image)
  }

  /** After a start or import: copies that were interrupted begin again, what nobody needs is removed. */
  resume(pool: ThinPool): Promise<void> {
    return this.#turns.run(async () => {
      for (const { name } of pool.volumes()) await this.#sweep(pool, name)
      for (const { name, image } of pool.volumes()) {
        if (image?.complete === false && !this.#copies.has(name)) this.#begin(pool, name)
      }
    })
  }

  /** null: nothing is being copied. */
  progress(image: string): CopyProgress | null {
    return this.#copies.get(image)?.progress ?? null
  }

  /** Resolves when the copy that is under way, if any, has ended. @throws what it failed with */
  async wait(image: string): Promise<void> {
    const copy = this.#copies.get(image)
    await copy?.ended
    if (copy?.failure !== undefined) throw copy.failure
  }

  /** Ends the copy; the image stays incomplete until it is refreshed. */
  async abort(image: string): Promise<void> {
    const copy = this.#copies.get(image)
    copy?.stop.abort()
    await copy?.ended
  }

  /**
   * Before a volume is removed: its copy ends, hidden snapshots go that it needs as an image or keeps for images. Those
   * become volumes like any other.
   * @throws StorageError COPY_RUNNING when an image is being copied from it
   */
  async forget(pool: ThinPool, volume: string): Promise<void> {
    const followers = pool.volumes().filter(({ image }) => image?.volume === volume)
    const busy = followers.find(({ name, image }) => this.#copies.has(name) || !image?.complete)
    if (busy) throw running(busy.name)
    await this.abort(volume)
    await this.#turns.run(async () => {
      const { image } = pool.volume(volume)
      for (const name of [...followers.map((follower) => follower.name), volume]) {
        if (pool.volume(name).image) await pool.setImage(name, null)
        await this.#sweep(pool, name)
      }
      if (image) await this.#sweep(pool, image.volume)
    })
  }

  /** The agent stops: copies are cut short, and begin again with the next. */
  async stop(): Promise<void> {
    this.#stopping = true
    for (const { stop } of this.#copies.values()) stop.abort()
    for (const { ended } of [...this.#copies.values()]) await ended
    await this.#worker.close()
  }

  #begin(pool: ThinPool, image: string): void {
    const copy: Copy = {
      pool,
      image,
      stop: new AbortController(),
      progress: { doneBytes: 0, totalBytes: 0 },
      ended: Promise.resolve(),
      failure: undefined,
    }
    this.#copies.set(image, copy)
    copy.ended = this.#run(copy).catch((error) => {
      copy.failure = error
      const text = error instanceof StorageError ? `${error.message}. ${error.hint}` : String(error)
      if (!copy.stop.signal.aborted) this.#say('error', 'IMAGE_COPY_FAILED', image, `${text} It is incomplete.`)
    })
    void copy.ended.then(() => this.#copies.delete(image))
  }

  async #run(copy: Copy): Promise<void> {
    const { pool, image } = copy
    const letEpochsGo = await this.#options.holdEpoch(image)
    try {
      await this.#copy(copy)
    } finally {
      // An agent that stops leaves it recorded: no half of the copy is shown until the next agent has done the rest.
      if (!this.#stopping) await letEpochsGo()
    }
    const { volume } = this.#imageOf(pool, image)
    await this.#turns.run(async () => {
      await this.#sweep(pool, image)
      await this.#sweep(pool, volume)
    })
    this.#say('info', 'IMAGE_COMPLETE', image, `as ${volume}, ${copy.progress.totalBytes} bytes looked at`)
  }

  async #copy(copy: Copy): Promise<void> {
    const { pool, image, stop } = copy
    const origin = this.#imageOf(pool, image)
    const base = snapshotOf(pool, origin.volume, origin.base)
    const source = this.#options.volumes.get(pool, origin.volume, origin.base)
    const target = this.#options.volumes.get(pool, image)
    const extents = await differing(pool, image, origin, base)
    copy.progress = { doneBytes: 0, totalBytes: extentBytes(extents) }
    await source.hold()
    try {
      await target.hold()
      try {
        const job = { from: source.path, to: target.path, blockBytes: pool.facts().blockBytes }
        for (const batch of splitBatches(extents)) {
          stop.signal.throwIfAborted()
          await this.#worker.call('copy', { ...job, extents: batch } satisfies ImageCopyJob)
          const { doneBytes, totalBytes } = copy.progress
          copy.progress = { doneBytes: doneBytes + extentBytes(batch), totalBytes }
        }
        stop.signal.throwIfAborted()
        await this.#worker.call('sync', target.path)
      } finally {
        await target.release()
      }
    } finally {
      await source.release()
    }
    await this.#turns.run(async () => {
      const own = await this.#takeOwn(pool, image, base)
      await pool.setImage(image, { ...origin, own, complete: true })
    })
  }

  /** null where a full pool refuses it: the next refresh copies everything then. */
  async #takeOwn(pool: ThinPool, image: string, base: ThinSnapshotFacts): Promise<string | null> {
    const own = ownName(base)
    try {
      // Left by an attempt that ended here; what the image holds is another matter by now.
      if (pool.volume(image).snapshots.some(({ name }) => name === own)) await pool.removeSnapshot(image, own)
      await pool.createSnapshot(image, own, { hidden: true })
      return own
    } catch (error) {
      if (!(error instanceof StorageError) || !['POOL_FULL', 'POOL_NEARLY_FULL'].includes(error.code)) throw error
      this.#say('warning', 'IMAGE_UNTRACKED', image, `${error.message}. Its next refresh copies everything.`)
      return null
    }
  }

  /** The named snapshot, or a hidden one of the volume as it is now. */
  async #base(pool: ThinPool, image: string, volume: string, snapshot: string | null): Promise<ThinSnapshotFacts> {
    if (snapshot !== null) return snapshotOf(pool, volume, snapshot)
    const name = baseName(image, Date.now().toString(36))
    await this.#options.atBoundary(volume, () => pool.createSnapshot(volume, name, { hidden: true }))
    return snapshotOf(pool, volume, name)
  }

  /** The image gets the size of what it is copied from. */
  async #fit(pool: ThinPool, image: string, sizeBytes: number): Promise<void> {
    if (pool.volume(image).sizeBytes === sizeBytes) return
    if (!this.#options.isRecorded(image)) return pool.resizeVolume(image, sizeBytes)
    throw new StorageError('SIZE_CHANGED', {
      op: 'clone refresh',
      object: image,
      hint: 'Its source has another size now, and a stream records it with the old one. Remove the stream first.',
    })
  }

  /** Remove hidden snapshots of a volume that neither it nor an image of it needs. Within a turn. */
  async #sweep(pool: ThinPool, volume: string): Promise<void> {
    const all = pool.volumes()
    const facts = all.find(({ name }) => name === volume)
    if (!facts) return
    const needed = (snapshot: ThinSnapshotFacts): boolean => {
      if (isOwn(snapshot)) return facts.image?.own === snapshot.name
      return all.some(({ name, image }) => {
        if (image?.volume !== volume || !isBaseOf(name, snapshot)) return false
        return image.base === snapshot.name || image.own === ownName(snapshot)
      })
    }
    for (const snapshot of facts.snapshots) {
      if ((!isOwn(snapshot) && !isBase(snapshot)) || needed(snapshot)) continue
      await pool.removeSnapshot(volume, snapshot.name)
      this.#options.volumes.forget(volume, snapshot.name)
    }
  }

  #imageOf(pool: ThinPool, name: string): ImageOrigin {
    const { image } = pool.volume(name)
    if (image) return image
    throw new StorageError('NOT_AN_IMAGE', {
      op: 'clone refresh',
      object: name,
      hint: 'Only a complete image can be refreshed: tidemark clone create VOLUME NAME --full',
    })
  }

  #say(severity: 'info' | 'warning' | 'error', code: string, object: string, text: string): void {
    this.#options.report({ severity, code, object, text })
  }
}

/** What the image may have otherwise than the snapshot that it is copied from. */
async function differing(pool: ThinPool, image: string, origin: ImageOrigin, base: ThinSnapshotFacts) {
  const { volume } = origin
  const facts: ThinVolumeFacts = pool.volume(image)
  const before = equalledBase(origin, facts, pool.volume(volume))
  const { sizeBytes } = facts
  if (!before) {
    return uniteExtents([await pool.mapped(volume, base.name), await pool.mapped(image, null)], sizeBytes)
  }
  const changed = before.name === base.name ? [] : await pool.diff(volume, before.name, base.name)
  return uniteExtents([changed, await pool.diff(image, origin.own!, null)], sizeBytes)
}

function snapshotOf(pool: ThinPool, volume: string, name: string): ThinSnapshotFacts {
  const found = pool.volume(volume).snapshots.find((snapshot) => snapshot.name === name)
  if (found) return found
  throw new StorageError('NO_SUCH_SNAPSHOT', {
    op: 'clone',
    object: `${volume}@${name}`,
    hint: `See: tidemark snapshot list ${volume}`,
  })
}

function running(image: string): StorageError {
  return new StorageError('COPY_RUNNING', {
    op: 'clone',
    object: image,
    retry: 'later',
    hint: `It is being copied, or its copy was interrupted. See: tidemark volume show ${image}`,
  })
}

function attached(image: string): StorageError {
  return new StorageError('VOLUME_ATTACHED', {
    op: 'clone refresh',
    object: image,
    hint: `Its host would not see the change. Detach it first: tidemark volume detach ${image}`,
  })
}
