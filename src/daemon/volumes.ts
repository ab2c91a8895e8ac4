import type { ImageView, SnapshotView, VolumeView } from '../api/agent-operations.js'
import { checkName, isName } from '../block/names.js'
import type { StateStore } from '../block/state-store.js'
import { StorageError } from '../block/storage-error.js'
import type { ThinPool } from '../pool/thin-pool.js'
import type { HostVolume } from '../volume/host-volume.js'
import type { ThinVolume } from '../volume/thin-volume.js'
import type { ThinVolumes } from '../volume/thin-volumes.js'
import { checkHeadroom } from './headroom.js'
import type { PathVolumes } from './path-volumes.js'
import type { Pools } from './pools.js'

export interface VolumesOptions {
  readonly store: StateStore
  readonly paths: PathVolumes
  readonly pools: Pools
  readonly thin: ThinVolumes
  /** A stream that arrives here is making this one, under a name that no operator can give. */
  readonly isIncoming: (name: string) => boolean
  /** Why an arriving volume of this name shows no state of its source now; undefined: it does, or is another volume. */
  readonly whyNoState: (name: string) => string | undefined
  /** The stream that records a volume of this name, which may be away with its pool. */
  readonly streamOf: (name: string) => string | undefined
}

/** How a volume or snapshot is to be attached by an agent that starts. */
interface Wish {
  readonly readOnly: boolean
}

/**
 * Every volume of this agent under one name: those with a path, and those of the open pools with their snapshots
 * (VOLUME@SNAPSHOT). What pools hold is in the pools; the store keeps what shall be attached.
 */
export class Volumes {
  readonly #options: VolumesOptions
  /** Why the last attach failed. */
  readonly #failures = new Map<string, string>()

  constructor(options: VolumesOptions) {
    this.#options = options
  }

  find(name: string): HostVolume | undefined {
    const { paths, pools, thin } = this.#options
    const pool = pools.ofVolume(name)
    return paths.find(name) ?? (pool && thin.get(pool, name))
  }

  /** @throws StorageError NO_SUCH_VOLUME */
  get(name: string): HostVolume {
    const volume = this.find(name)
    if (volume) return volume
    throw new StorageError('NO_SUCH_VOLUME', { op: 'volume', object: name, hint: 'See: tidemark volume list' })
  }

  /** @throws StorageError NO_SUCH_VOLUME, NOT_THIN */
  thin(op: string, name: string): ThinVolume {
    const { pools, thin } = this.#options
    const pool = pools.ofVolume(name)
    if (pool) return thin.get(pool, name)
    const { path } = this.get(name)
    throw new StorageError('NOT_THIN', {
      op,
      object: name,
      hint: `It lies at ${path}, not in a pool; only volumes of a pool can do this.`,
    })
  }

  /** @throws StorageError NO_SUCH_VOLUME, NOT_THIN, NO_SUCH_SNAPSHOT */
  snapshot(op: string, name: string, snapshot: string): ThinVolume {
    const { pool, facts } = this.thin(op, name)
    if (facts.snapshots.some((known) => known.name === snapshot && !known.hidden)) {
      return this.#options.thin.get(pool, name, snapshot)
    }
    throw new StorageError('NO_SUCH_SNAPSHOT', {
      op,
      object: `${name}@${snapshot}`,
      hint: `See: tidemark snapshot list ${name}`,
    })
  }

  snapshots(name: string): ThinVolume[] {
    const { pool, facts } = this.thin('snapshot list', name)
    return facts.snapshots
      .filter(({ hidden }) => !hidden)
      .map((known) => this.#options.thin.get(pool, name, known.name))
  }

  /** Without snapshots. */
  all(): HostVolume[] {
    const { paths, pools, thin, isIncoming } = this.#options
    // What came with a pool and is nobody's is shown, so that it can be removed.
    const shown = (pool: ThinPool) => pool.volumes().filter(({ name }) => isName(name) || !isIncoming(name))
    const inPools = pools.all().flatMap((pool) => shown(pool).map(({ name }) => thin.get(pool, name)))
    return [...paths.all(), ...inPools].sort((a, b) => a.name.localeCompare(b.name))
  }

  /** With snapshots. */
  attached(): HostVolume[] {
    const { paths, thin } = this.#options
    return [...paths.all(), ...thin.known()].filter(({ device }) => device !== null)
  }

  /** @throws StorageError BAD_NAME, ALREADY_EXISTS, VOLUME_IN_USE */
  checkNew(op: string, name: string): void {
    checkName('volume', name)
    const stream = this.#options.streamOf(name)
    if (!this.find(name) && stream !== undefined) {
      throw new StorageError('VOLUME_IN_USE', {
        op,
        object: name,
        hint: `The stream ${stream} records a volume of this name, which is not here now. Choose another name.`,
      })
    }
    if (!this.find(name)) return
    throw new StorageError('ALREADY_EXISTS', {
      op,
      object: name,
      hint: 'A volume of this name exists. Choose another name.',
    })
  }

  async attach(volume: HostVolume, readOnly: boolean): Promise<void> {
    const { name } = volume
    if (volume.device === null) await checkHeadroom('volume attach', name)
    try {
      await volume.attach({ readOnly })
      this.#failures.delete(name)
      await this.#wish(volume, { readOnly })
    } catch (error) {
      if (volume.device === null) this.#failures.set(name, error instanceof Error ? error.message : String(error))
      throw error
    }
  }

  async detach(volume: HostVolume): Promise<void> {
    await volume.detach()
    this.#failures.delete(volume.name)
    await this.#wish(volume, null)
  }

  /** What was attached when the agent stopped, and how. */
  wanted(): { readonly name: string; readonly readOnly: boolean }[] {
    const { store, paths } = this.#options
    const atPaths = paths.all().flatMap(({ name }) => {
      const wish = paths.wish(name)
      return wish ? { name, ...wish } : []
    })
    const thin = store
      .list<Wish>('attached/')
      .map(({ key, value }) => ({ name: key.slice('attached/'.length), ...value }))
    return [...atPaths, ...thin]
  }

  /** By the name under which it is wanted. @throws StorageError NO_SUCH_VOLUME, NO_SUCH_SNAPSHOT */
  named(name: string): HostVolume {
    const [volume = '', snapshot] = name.split('@')
    return snapshot === undefined ? this.get(volume) : this.snapshot('volume attach', volume, snapshot)
  }

  /** The volume or snapshot is gone, or has another name. */
  async forget(volume: string, snapshot: string | null): Promise<void> {
    const name = snapshot === null ? volume : `${volume}@${snapshot}`
    this.#failures.delete(name)
    this.#options.thin.forget(volume, snapshot)
    await this.#options.store.remove([`attached/${name}`])
  }

  /** The pool is closed, by command: nothing of it is wanted any more. */
  async forgetPool(pool: ThinPool, volumes: readonly string[]): Promise<void> {
    this.#options.thin.forgetPool(pool)
    const gone = this.#options.store.list<Wish>('attached/').filter(({ key }) => {
      const [volume = ''] = key.slice('attached/'.length).split('@')
      return volumes.includes(volume)
    })
    await this.#options.store.remove(gone.map(({ key }) => key))
  }

  /** Refused while a host has it, or may wait for it. @throws StorageError VOLUME_ATTACHED */
  mustBeDetached(op: string, { name, device }: HostVolume): void {
    const detach = `tidemark volume detach ${name}`
    const waits = `It could not be attached again, and its host may wait. Let go of that: tidemark keeper abort ${name}; then: ${detach}`
    if (device === null && !this.wanted().some((wish) => wish.name === name)) return
    throw new StorageError('VOLUME_ATTACHED', {
      op,
      object: name,
      hint: device === null ? waits : `Detach it first: ${detach}`,
    })
  }

  view(volume: HostVolume, stream: string | null, image: ImageView | null): VolumeView {
    const { name, kind, sizeBytes, device, link, logicalBlockBytes } = volume
    const { reads, writes, flushes, trims, readBytes, writtenBytes, errors } = volume.counters()
    const pool = this.#options.pools.ofVolume(name)
    const facts = pool?.volume(name)
    return {
      name,
      path: kind === 'thin' ? null : volume.path,
      kind,
      pool: pool?.name ?? null,
      sizeBytes,
      device,
      link,
      ...this.#state(volume),
      readOnly: device === null ? volume.readOnly : volume.attachedReadOnly,
      stream,
      allocatedBytes: facts?.allocatedBytes ?? null,
      snapshots: facts?.snapshots.filter(({ hidden }) => !hidden).length ?? 0,
      origin: facts?.origin ?? null,
      role: facts?.role ?? 'volume',
      image,
      logicalBlockBytes,
      counters: { reads, writes, flushes, trims, readBytes, writtenBytes, errors },
    }
  }

  snapshotView(snapshot: ThinVolume): SnapshotView {
    const { volume, pool, device, link, facts } = snapshot
    const found = facts.snapshots.find(({ name }) => name === snapshot.snapshot)
    if (!found)
      throw new StorageError('NO_SUCH_SNAPSHOT', { op: 'snapshot', object: snapshot.name, hint: 'It is gone.' })
    const { name, createdAt, sizeBytes, allocatedBytes, writtenBytes } = found
    return {
      volume,
      name,
      pool: pool.name,
      createdAt,
      sizeBytes,
      allocatedBytes,
      writtenBytes,
      device,
      link,
      readOnly: snapshot.attachedReadOnly,
      ...this.#state(snapshot),
    }
  }

  #state(volume: HostVolume): Pick<VolumeView, 'state' | 'reason'> {
    const failure = volume.lost ?? this.#failures.get(volume.name)
    if (failure !== undefined) return { state: 'failed', reason: failure }
    if (!isName(volume.name.split('@')[0]!)) {
      return { state: 'detached', reason: 'incomplete: the stream that brought it does not arrive here' }
    }
    const why = this.#options.whyNoState(volume.name)
    const told = (reason: string): string => (why === undefined ? reason : `${reason}; ${why}`)
    return volume.device === null
      ? { state: 'detached', reason: told('not attached') }
      : { state: 'attached', reason: told('serves its host') }
  }

  async #wish(volume: HostVolume, wish: Wish | null): Promise<void> {
    const { store, paths } = this.#options
    if (volume.kind !== 'thin') await paths.recordWish(volume.name, wish)
    else if (wish) await store.put({ [`attached/${volume.name}`]: wish })
    else await store.remove([`attached/${volume.name}`])
  }
}
