import type { Exclusive } from '../block/exclusive.js'
import { StorageError } from '../block/storage-error.js'
import type { Intercept, NativePool, NativeVolume } from '../intercept/addon.js'
import { chainOf, type VolumeEntry, type VolumeId } from './catalog.js'
import { type BlockIndex, type LayerId, type Location, noLayer, type UnitIndex } from './geometry.js'
import type { LayerLoader } from './layer-loader.js'
import type { PoolLog } from './pool-log.js'
import type { Slots } from './slots.js'
import type { PoolState } from './state.js'
import type { OpenThinVolume } from './thin-pool.js'
import { ThinVolume } from './thin-volume.js'

export interface OpenOptions {
  readonly readOnly: boolean
  readonly threads: number
  readonly onLost: (message: string) => void
}

interface Opened {
  readonly thin: ThinVolume
  readonly native: NativeVolume
  /** Set once close() has begun. */
  closing?: Promise<void> | undefined
}

interface Parts {
  readonly intercept: Pick<Intercept, 'openVolume'>
  readonly native: NativePool
  readonly state: PoolState
  readonly slots: Slots
  readonly log: PoolLog
  readonly loader: LayerLoader
  readonly structure: Exclusive
  readonly waitForSpaceMs: number
  /** A fault found no room. */
  readonly onNoSpace: () => void
}

/** The volumes and snapshots of a pool that are open. */
export class OpenVolumes {
  readonly #parts: Parts
  readonly #volumes = new Map<VolumeId, Opened>()
  /** Open, or being opened or closed. */
  readonly #claimed = new Set<VolumeId>()
  readonly #snapshots = new Map<ThinVolume, LayerId>()
  #makesHoles = true

  constructor(parts: Parts) {
    this.#parts = parts
  }

  get isEmpty(): boolean {
    return this.#claimed.size === 0 && this.#snapshots.size === 0
  }

  /** Writes wait for room. */
  get waitForSpace(): boolean {
    for (const { thin } of this.#volumes.values()) if (thin.waitsForSpace) return true
    return false
  }

  /** Undefined when it is not open; one that is being closed is waited for. */
  async volume(id: VolumeId): Promise<Opened | undefined> {
    const closing = this.#volumes.get(id)?.closing
    await closing?.catch(() => undefined)
    return this.#volumes.get(id)
  }

  isClaimed(id: VolumeId): boolean {
    return this.#claimed.has(id)
  }

  isLayerOpen(layer: LayerId): boolean {
    for (const open of this.#snapshots.values()) if (open === layer) return true
    return false
  }

  published(layer: LayerId, block: BlockIndex, location: Location): void {
    for (const { thin } of this.#volumes.values()) thin.published(layer, block, location)
  }

  /** There may be room for writes that wait. */
  retry(): void {
    for (const { thin } of this.#volumes.values()) thin.retry()
  }

  get makesHoles(): boolean {
    return this.#makesHoles
  }

  /** Of all that are open now or later. */
  setHoles(allowed: boolean): void {
    this.#makesHoles = allowed
    for (const { native } of this.#volumes.values()) native.setHoles(allowed)
  }

  /** @throws StorageError VOLUME_OPEN, POOL_DAMAGED */
  async openVolume(volume: VolumeEntry, options: OpenOptions, endBytes?: number): Promise<OpenThinVolume> {
    const { id } = volume
    if (this.#claimed.has(id)) throw alreadyOpen(volume.name)
    this.#claimed.add(id)
    const top = (): LayerId => this.#parts.state.catalog.volumes.get(id)?.layer ?? noLayer
    const sizeBytes = (): number => endBytes ?? this.#parts.state.catalog.volumes.get(id)?.sizeBytes ?? 0
    const thin = this.#thinVolume(top)
    return this.#open(thin, volume.name, sizeBytes, options, {
      admit: (opened) => this.#volumes.set(id, opened),
      forget: () => {
        this.#volumes.delete(id)
        this.#claimed.delete(id)
      },
    })
  }

  /**
   * Make what lies behind `fromBytes` in the same block read as zeros: it is about to be cut off, and must not come back
   * when the volume grows. May need space. @throws StorageError VOLUME_OPEN, POOL_DAMAGED, IO_FAILED
   */
  async zeroBlockEnd(volume: VolumeEntry, fromBytes: number): Promise<void> {
    const { blockBytes } = this.#parts.state.geometry
    const endBytes = Math.min(Math.ceil(fromBytes / blockBytes) * blockBytes, volume.sizeBytes)
    if (endBytes === fromBytes) return
    const opened = await this.openVolume(volume, { readOnly: false, threads: 1, onLost: () => {} }, endBytes)
    try {
      await opened.native.resize(fromBytes)
    } finally {
      await opened.close()
    }
  }

  /** Only to be read. @throws StorageError POOL_DAMAGED */
  async openSnapshot(name: string, layer: LayerId, sizeBytes: number, options: OpenOptions): Promise<OpenThinVolume> {
    const thin = this.#thinVolume(() => layer)
    this.#snapshots.set(thin, layer)
    return this.#open(thin, name, () => sizeBytes, options, {
      admit: () => {},
      forget: () => this.#snapshots.delete(thin),
    })
  }

  async #open(
    thin: ThinVolume,
    name: string,
    sizeBytes: () => number,
    options: OpenOptions,
    registry: { admit: (opened: Opened) => void; forget: () => void },
  ): Promise<OpenThinVolume> {
    const { state, loader, log, structure } = this.#parts
    const need = loader.need(() => (thin.top === noLayer ? [] : chainOf(state.catalog, thin.top)))
    let opened: Opened
    try {
      log.check()
      opened = await structure.run(async () => {
        const roomy = await this.#load(thin, name, options)
        // From here to admit() in one turn: nothing is appended about the volume in between.
        if (!options.readOnly) this.#admitWrites(thin, roomy)
        const native = this.#openNative(thin, name, sizeBytes(), options)
        const made: Opened = { thin, native }
        registry.admit(made)
        return made
      })
    } catch (error) {
      thin.close()
      registry.forget()
      need.done()
      throw error
    }
    const close = async (): Promise<void> => {
      await opened.native.close()
      // What was published before it closed.
      log.take()
      thin.close()
      registry.forget()
      need.done()
    }
    return {
      native: opened.native,
      nextMapped: (offset) => this.#nextMapped(thin, sizeBytes(), offset),
      close: () => {
        opened.closing ??= close().catch((error) => {
          opened.closing = undefined
          throw error
        })
        return opened.closing
      },
    }
  }

  /**
   * The maps of the chain, and what the top layer's units hold that have room. Inside the structure lock: only a snapshot
   * or rollback can change anything meanwhile, and then it is looked at again.
   */
  async #load(thin: ThinVolume, name: string, options: OpenOptions): Promise<[UnitIndex, Float64Array][]> {
    const { state, loader } = this.#parts
    for (;;) {
      const { top } = thin
      if (top === noLayer) {
        const hint = 'It was removed in the meantime.'
        throw new StorageError('NO_SUCH_VOLUME', { op: 'volume open', object: name, hint })
      }
      await loader.loadChain(top)
      const found: [UnitIndex, Float64Array][] = []
      if (!options.readOnly) {
        const { units, geometry } = state
        const roomy = units.unitsOf(top).filter((index) => units.used(index) < geometry.blocksPerUnit)
        roomy.sort((a, b) => a - b)
        await loader.readLayer(top, roomy, (index, blocks) => found.push([index, blocks]))
      }
      if (thin.top === top) return found
    }
  }

  #admitWrites(thin: ThinVolume, roomy: readonly [UnitIndex, Float64Array][]): void {
    const layer = thin.top
    const writer = this.#parts.slots.openLayer(layer)
    thin.admitWrites(layer, writer)
    for (const [index, blocks] of roomy) writer.addUnit(index, blocks)
  }

  #openNative(thin: ThinVolume, name: string, sizeBytes: number, options: OpenOptions): NativeVolume {
    const { intercept, native, state } = this.#parts
    const opened = intercept.openVolume({
      name,
      path: '',
      sizeBytes,
      direct: false,
      readOnly: options.readOnly,
      syncBacking: false,
      threads: options.threads,
      table: { blockBytes: state.geometry.blockBytes },
      pool: { pool: native, layer: thin.top },
      onFaults: thin.onFaults,
      onLost: options.onLost,
    })
    thin.connect(opened)
    opened.setHoles(this.#makesHoles)
    return opened
  }

  #nextMapped(thin: ThinVolume, sizeBytes: number, offset: number): number | undefined {
    const { blockBytes } = this.#parts.state.geometry
    this.#parts.log.take()
    const block = thin.view().nextMapped(Math.floor(offset / blockBytes) as BlockIndex)
    if (block === undefined || block * blockBytes >= sizeBytes) return undefined
    return Math.max(offset, block * blockBytes)
  }

  #thinVolume(top: () => LayerId): ThinVolume {
    const { state, slots, log, waitForSpaceMs, onNoSpace } = this.#parts
    return new ThinVolume(
      {
        state,
        slots,
        waitForSpaceMs,
        take: () => log.take(),
        onNoSpace,
        isBroken: () => log.isBroken,
        onBroken: (error) => log.fail(error),
      },
      top,
    )
  }
}

function alreadyOpen(name: string): StorageError {
  return new StorageError('VOLUME_OPEN', { op: 'volume open', object: name, hint: 'It is in use already.' })
}
