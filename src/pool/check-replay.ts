import {
  type BlockIndex,
  blockIndex,
  type Geometry,
  type LayerId,
  type LogSequence,
  noLayer,
  type UnitIndex,
  type UnitNumber,
} from './geometry.js'
import { LayerLoader, type PageSource } from './layer-loader.js'
import { type LogRing, readLog } from './log-reader.js'
import { type LogRecord, sequenceAfter } from './log-record.js'
import type { MetadataStore } from './metadata-store.js'
import { isMisfit } from './recovery.js'
import { PoolState } from './state.js'
import type { UnitMap } from './unit-map.js'
import { freeSlot, type UnitPage, usedSlots } from './unit-page.js'

/** A unit no copy of whose page is left. */
export interface LostUnit {
  readonly index: UnitIndex
  /** Whose it is; noLayer once the log gave it back. */
  layer: LayerId
  /** Slots that were in use at the checkpoint. */
  readonly used: number
  /** Exact, as far as it goes: what the log before the checkpoint says of its slots. */
  readonly saved: Float64Array | undefined
  /** What an older copy of its page had: may be true no more. */
  readonly older: Float64Array | null
}

/** A store's pages; of lost units what could be saved. */
export class SavedPages implements PageSource {
  readonly units: UnitMap
  readonly #lost: ReadonlyMap<UnitIndex, LostUnit>
  readonly #store: MetadataStore

  /** Units of which nothing could be saved become free in the store's unit map. */
  constructor(store: MetadataStore, lost: ReadonlyMap<UnitIndex, LostUnit>) {
    this.#store = store
    this.#lost = lost
    this.units = store.units
    for (const { index, saved } of lost.values()) {
      if (saved) this.units.used[index] = usedSlots(saved)
      else this.units.clear(index)
    }
  }

  async readPages(indices: Iterable<UnitIndex>, visit: (page: UnitPage, index: UnitIndex) => void): Promise<void> {
    const rest: UnitIndex[] = []
    for (const index of indices) {
      const saved = this.#lost.get(index)?.saved
      if (!saved) {
        rest.push(index)
        continue
      }
      const layer = this.units.layer[index] as LayerId
      visit({ unit: this.#store.geometry.unitAt(index), layer, checkpoint: 0, blocks: saved.slice() }, index)
    }
    await this.#store.readPages(rest, visit)
  }
}

export interface Replayed {
  readonly state: PoolState
  readonly loader: LayerLoader
  /** Behind the last record that is right, whether it counted or not. */
  readonly end: LogSequence
  /** The first record that does not fit, in words; it and those behind it were not applied. */
  readonly misfit: string | undefined
  /** Layers that recovery has to load. */
  readonly needed: ReadonlySet<LayerId>
  /** Blocks whose slot the log gave to another block as well. */
  readonly displaced: readonly { readonly layer: LayerId; readonly blocks: number[] }[]
}

/** Apply the log to what the pages say, as far as it goes; also when parts of both are lost. */
export async function replayLog(
  store: MetadataStore,
  pages: SavedPages,
  lost: ReadonlyMap<UnitIndex, LostUnit>,
): Promise<Replayed> {
  const state = new PoolState({
    geometry: store.geometry,
    catalog: store.catalog,
    holes: store.holes,
    units: pages.units,
    logSequence: store.logSequence,
    admitDevice: (device) => store.admitDevice(device),
  })
  const loader = new LayerLoader(state, pages)
  const needed = new Set<LayerId>()
  let misfit: string | undefined
  const { end } = await store.readLog(async (records) => {
    for (const record of records) {
      if (misfit !== undefined) return
      if (record.kind === 'map' || record.kind === 'hole' || record.kind === 'own') needed.add(record.layer)
      misfit = await applyOne(state, loader, record, lost)
    }
  }, true)
  const displaced = await findDisplaced(state, loader)
  state.maps.clear()
  state.contents.clear()
  return { state, loader, end, misfit, needed, displaced }
}

/** Where the maps that the log was applied to say something else than the slots. Uses the maps up. */
async function findDisplaced(state: PoolState, loader: LayerLoader): Promise<Replayed['displaced'][number][]> {
  const displaced: Replayed['displaced'][number][] = []
  for (const [layer, map] of state.maps) {
    await loader.readUnits(state.units.unitsOf(layer), (index, held) => {
      const unit = state.geometry.unitAt(index)
      for (let slot = 0; slot < held.length; slot += 1) {
        const block = held[slot] as BlockIndex
        if (block !== freeSlot && map.get(block) === state.geometry.locationOf(unit, slot)) map.delete(block)
      }
    })
    const blocks: number[] = []
    map.forEach(blockIndex(0), blockIndex(Number.MAX_SAFE_INTEGER), (block) => blocks.push(block))
    if (blocks.length > 0) displaced.push({ layer, blocks })
  }
  return displaced
}

/** @returns why it does not fit */
async function applyOne(
  state: PoolState,
  loader: LayerLoader,
  record: LogRecord,
  lost: ReadonlyMap<UnitIndex, LostUnit>,
): Promise<string | undefined> {
  try {
    if (record.kind === 'map' || record.kind === 'hole' || record.kind === 'own') await loader.loadLayer(record.layer)
    if ((record.kind === 'own' || record.kind === 'release') && state.geometry.hasUnit(record.unit)) {
      const index = state.geometry.indexOf(record.unit)
      const unit = lost.get(index)
      if (unit) unit.layer = record.kind === 'own' ? record.layer : noLayer
      if (unit && state.units.owner(index) === noLayer) {
        state.jump(sequenceAfter(record))
        return undefined
      }
      if (record.kind === 'own' && !state.contents.has(index)) {
        await loader.readUnits([index], (_, blocks) => state.contents.set(index, blocks))
      }
    }
    state.apply([record])
    return undefined
  } catch (error) {
    if (!isMisfit(error)) throw error
    return `record ${record.sequence} (${record.kind}) does not go with the pages (${error.message}): it and what follows is given up`
  }
}

/**
 * What the log before a checkpoint says of units whose page at that checkpoint is lost: slots that were mapped since, and
 * that nothing took away again.
 *
 * @param range from a sequence that may still be there up to the checkpoint's
 */
export async function saveFromLog(
  ring: LogRing,
  geometry: Geometry,
  range: { from: LogSequence; to: LogSequence },
  units: UnitMap,
  lost: ReadonlySet<UnitIndex>,
): Promise<Map<UnitIndex, Float64Array>> {
  const slots = new Map<UnitIndex, Float64Array>()
  const owners = new Map<UnitIndex, LayerId>()
  const lostIndex = (unit: UnitNumber): UnitIndex | undefined => {
    const index = geometry.hasUnit(unit) ? geometry.indexOf(unit) : undefined
    return index !== undefined && lost.has(index) ? index : undefined
  }
  /** The layer's blocks of this range are somewhere else, or nowhere. */
  const forget = (layer: LayerId, block: BlockIndex, count: number): void => {
    for (const [index, blocks] of slots) {
      if (owners.get(index) !== layer) continue
      for (let slot = 0; slot < blocks.length; slot += 1) {
        if (blocks[slot]! >= block && blocks[slot]! < block + count) blocks[slot] = freeSlot
      }
    }
  }
  const { end } = await readLog(ring, range.from, range.to, (records) => {
    for (const record of records) {
      if (record.kind === 'map') {
        forget(record.layer, record.block, 1)
        const index = geometry.hasLocation(record.location) && lostIndex(geometry.unitOf(record.location))
        if (index === false || index === undefined) continue
        const blocks = slots.get(index) ?? new Float64Array(geometry.blocksPerUnit).fill(freeSlot)
        blocks[geometry.slotOf(record.location)] = record.block
        slots.set(index, blocks)
        owners.set(index, record.layer)
      } else if (record.kind === 'hole') {
        forget(record.layer, record.block, record.count)
      } else if (record.kind === 'own' || record.kind === 'release') {
        // Which of its blocks a new owner kept is not known.
        const index = lostIndex(record.unit)
        if (index !== undefined) slots.delete(index)
      }
    }
  })
  for (const [index, blocks] of slots) {
    // A log that ends early may have said later that they are gone.
    if (end < range.to || owners.get(index) !== units.layer[index] || usedSlots(blocks) === 0) slots.delete(index)
  }
  return slots
}
