import { AssertionError } from 'node:assert/strict'
import { StorageError } from '../block/storage-error.js'
import type { Operation } from './catalog.js'
import { type LayerId, type LogSequence, logSequence, type UnitIndex, type UnitNumber } from './geometry.js'
import { LayerLoader } from './layer-loader.js'
import { LayerMap } from './layer-map.js'
import type { LogRecord } from './log-record.js'
import type { MetadataStore } from './metadata-store.js'
import { PoolState } from './state.js'

export interface Recovered {
  readonly state: PoolState
  /** The log goes on here. */
  readonly head: LogSequence
  /** The pool was not closed: what the log said is in the state, not yet in the pages. */
  readonly needed: boolean
}

/**
 * The state of a pool that nobody has open: its last checkpoint and what the log says since.
 *
 * Two passes: the first finds out whose maps are needed, the second applies. Nothing is written. After a crash the log
 * goes on a whole ring behind the last record that is right, so that one that did not count now never will.
 *
 * @throws StorageError POOL_DAMAGED: a page that the log changes cannot be read, or the log is not what the pages go
 * with; `pool check --repair` goes on from what is left
 */
export async function recoverPool(store: MetadataStore): Promise<Recovered> {
  const state = new PoolState({
    geometry: store.geometry,
    catalog: store.catalog,
    holes: store.holes,
    units: store.units,
    logSequence: store.logSequence,
    admitDevice: (device) => store.admitDevice(device),
  })
  const touched = new Touched()
  const { end } = await store.readLog((records) => orDamaged(store, () => touched.note(records, state)))
  if (store.clean && end === store.logSequence) return { state, head: end, needed: false }
  await touched.load(state, new LayerLoader(state, store))
  await store.readLog((records) => orDamaged(store, () => state.apply(records)))
  state.maps.clear()
  state.contents.clear()
  const head = logSequence(end + store.geometry.head.logRecords)
  state.jump(head)
  return { state, head, needed: true }
}

/** A log whose records do not go with the pages, or say what no program writes, is damage. */
function orDamaged(store: MetadataStore, step: () => void): void {
  try {
    step()
  } catch (cause) {
    if (!isMisfit(cause)) throw cause
    throw new StorageError('POOL_DAMAGED', {
      op: 'pool recovery',
      object: store.catalog.name,
      cause,
      hint: 'The log does not go with the pages. Run: tidemark pool check --repair',
    })
  }
}

/** What a record does to a state that it does not fit: a broken invariant, a text that is no JSON or no operation. */
export function isMisfit(error: unknown): error is Error {
  return [AssertionError, SyntaxError, TypeError, RangeError].some((kind) => error instanceof kind)
}

/** What records change: the maps of these layers and the slots of these units are needed to apply them. */
class Touched {
  readonly #layers = new Set<LayerId>()
  readonly #units = new Set<UnitNumber>()

  note(records: readonly LogRecord[], state: PoolState): void {
    for (const record of records) {
      if (record.kind === 'map' || record.kind === 'hole') this.#layers.add(record.layer)
      if (record.kind === 'own') {
        this.#layers.add(record.layer)
        this.#units.add(record.unit)
      }
      if (record.kind !== 'operation') continue
      const operation = JSON.parse(record.text) as Operation
      if (operation.op === 'add-device') state.admitDevice(operation.device)
    }
  }

  async load(state: PoolState, loader: LayerLoader): Promise<void> {
    for (const layer of this.#layers) {
      // A layer that the log makes begins empty.
      if (state.catalog.layers.has(layer)) await loader.loadLayer(layer)
      else state.maps.set(layer, new LayerMap())
    }
    const units: UnitIndex[] = []
    for (const unit of this.#units) if (state.geometry.hasUnit(unit)) units.push(state.geometry.indexOf(unit))
    await loader.readUnits(
      units.sort((a, b) => a - b),
      (index, blocks) => state.contents.set(index, blocks),
    )
  }
}
