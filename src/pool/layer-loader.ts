import { StorageError } from '../block/storage-error.js'
import { chainOf } from './catalog.js'
import type { BlockIndex, LayerId, UnitIndex } from './geometry.js'
import { LayerMap } from './layer-map.js'
import type { PoolState } from './state.js'
import type { UnitMap } from './unit-map.js'
import { freeSlot, type UnitPage } from './unit-page.js'

/** Slots that are read and worked on in one turn of the event loop. */
const turnSlots = 32_768

/** The part of the metadata store that reads pages. */
export interface PageSource {
  readonly units: UnitMap
  readPages(indices: Iterable<UnitIndex>, visit: (page: UnitPage, index: UnitIndex) => void): Promise<void>
}

/**
 * Reads what units hold, as of now: the pages of the last checkpoint and everything since. Keeps the maps of layers that
 * somebody needs.
 *
 * Loads run inside the pool's structure lock: units do not change hands meanwhile.
 */
export class LayerLoader {
  readonly #state: PoolState
  readonly #pages: PageSource
  /** Reads in progress: their pages must not be overwritten. */
  readonly #reads = new Set<Promise<unknown>>()
  /** Each names the layers it needs, as of when it is asked. */
  readonly #needs = new Set<() => readonly LayerId[]>()
  /** Layers with a page that cannot be read. */
  readonly damaged = new Set<LayerId>()

  constructor(state: PoolState, pages: PageSource) {
    this.#state = state
    this.#pages = pages
  }

  /** Keep the maps of these layers, once they are loaded, until done(). */
  need(layers: () => readonly LayerId[]): { done: () => void } {
    this.#needs.add(layers)
    return {
      done: () => {
        this.#needs.delete(layers)
        const needed = new Set([...this.#needs].flatMap((need) => need()))
        for (const layer of this.#state.maps.keys()) if (!needed.has(layer)) this.#state.maps.delete(layer)
      },
    }
  }

  /** Load what is missing of a chain of layers. @throws StorageError POOL_DAMAGED */
  async loadChain(top: LayerId): Promise<void> {
    for (const layer of chainOf(this.#state.catalog, top)) await this.loadLayer(layer)
  }

  /** @throws StorageError POOL_DAMAGED */
  async loadLayer(layer: LayerId): Promise<void> {
    if (this.#state.maps.has(layer)) return
    const { geometry, units } = this.#state
    const map = new LayerMap()
    await this.readLayer(layer, units.unitsOf(layer), (index, blocks) => {
      const unit = geometry.unitAt(index)
      for (let slot = 0; slot < blocks.length; slot += 1) {
        if (blocks[slot] !== freeSlot) map.set(blocks[slot] as BlockIndex, geometry.locationOf(unit, slot))
      }
    })
    this.#state.maps.set(layer, map)
  }

  /** What units of this layer hold. @throws StorageError POOL_DAMAGED: the layer is known as damaged from here on */
  async readLayer(
    layer: LayerId,
    indices: readonly UnitIndex[],
    visit: (index: UnitIndex, blocks: Float64Array) => void,
  ): Promise<void> {
    if (this.damaged.has(layer)) throw this.#damagedError()
    try {
      await this.readUnits(indices, visit)
    } catch (error) {
      if (error instanceof StorageError && error.code === 'POOL_DAMAGED') this.damaged.add(layer)
      throw error
    }
  }

  /**
   * What units hold, in some order. `visit` may keep the blocks; they are as of the moment it is called.
   * @throws StorageError POOL_DAMAGED
   */
  async readUnits(
    indices: readonly UnitIndex[],
    visit: (index: UnitIndex, blocks: Float64Array) => void,
  ): Promise<void> {
    const turnUnits = Math.max(1, Math.floor(turnSlots / this.#state.geometry.blocksPerUnit))
    for (let at = 0; at < indices.length; at += turnUnits) {
      const read = this.#readTurn(indices.slice(at, at + turnUnits), visit)
      this.#reads.add(read)
      try {
        await read
      } finally {
        this.#reads.delete(read)
      }
    }
  }

  /** The reads that began before this call have ended. */
  async readsDone(): Promise<void> {
    await Promise.allSettled([...this.#reads])
  }

  async #readTurn(
    indices: readonly UnitIndex[],
    visit: (index: UnitIndex, blocks: Float64Array) => void,
  ): Promise<void> {
    // Held from here on, also when a checkpoint ends meanwhile: which page is read is decided now.
    const { unwritten, geometry } = this.#state
    const stored = indices.filter((index) => this.#pages.units.used[index]! > 0)
    const pages = new Map<UnitIndex, Float64Array>()
    await this.#pages.readPages(stored, (page, index) => pages.set(index, page.blocks))
    for (const index of indices) {
      const blocks = pages.get(index) ?? new Float64Array(geometry.blocksPerUnit).fill(freeSlot)
      unwritten.apply(index, blocks)
      visit(index, blocks)
    }
  }

  #damagedError(): StorageError {
    return new StorageError('POOL_DAMAGED', {
      op: 'pool read',
      object: this.#state.catalog.name,
      hint: 'Export the pool and run: tidemark pool check --repair. What is not damaged can be used meanwhile.',
    })
  }
}
