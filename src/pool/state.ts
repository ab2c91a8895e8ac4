import assert from 'node:assert/strict'
import { applyOperation, type Catalog, type Operation } from './catalog.js'
import type { LayerHoles } from './catalog-codec.js'
import {
  type BlockIndex,
  type Geometry,
  type LayerId,
  type Location,
  type LogSequence,
  noLayer,
  type UnitIndex,
  type UnitNumber,
} from './geometry.js'
import { HoleSet } from './hole-set.js'
import { LayerMap } from './layer-map.js'
import { type LogRecord, sequenceAfter } from './log-record.js'
import { SlotChanges } from './slot-changes.js'
import type { UnitMap } from './unit-map.js'
import { freeSlot } from './unit-page.js'
import { UnitTable } from './unit-table.js'

/** What applying records means for those who give out slots and serve volumes. Called after the state has changed. */
export interface StateObserver {
  /** `count` slots from the location on, of one unit, map nothing any more, since the record with this sequence. */
  freed(location: Location, count: number, sequence: LogSequence): void
  mapped(layer: LayerId, block: BlockIndex, location: Location): void
  /** The unit, with these blocks in its slots, was another layer's. */
  moved(unit: UnitIndex, layer: LayerId, blocks: Float64Array): void
  operated(operation: Operation, sequence: LogSequence): void
}

/** As of a checkpoint. */
export interface PoolOrigin {
  readonly geometry: Geometry
  /** Taken over and changed. */
  readonly catalog: Catalog
  readonly holes: LayerHoles
  readonly units: UnitMap
  readonly logSequence: LogSequence
  /** An operation adds this device: the geometry has it when this returns. */
  readonly admitDevice: (device: number) => void
}

/**
 * What a pool is, between two records of its log.
 *
 * Changed by apply() alone: the rules of DESIGN.md, "The effect of each record", for records that were just appended and
 * for records that are read back. A record that does not fit is a broken invariant and asserts.
 *
 * Invariants (audit.ts looks at all of them): a slot in use is in exactly one place of one layer's map, the map of the
 * unit's owner; a unit's count is that of its slots in use; a unit without any has no owner.
 */
export class PoolState {
  readonly geometry: Geometry
  readonly catalog: Catalog
  readonly units: UnitTable
  /** Of every layer that has any. */
  readonly holes = new Map<LayerId, HoleSet>()
  /** Of layers that are needed now. A layer that is made on one of these has its own, empty, from the beginning. */
  readonly maps = new Map<LayerId, LayerMap>()
  /** What the slots of units hold that an OWN is about to name. */
  readonly contents = new Map<UnitIndex, Float64Array>()
  #changes = new SlotChanges()
  #unwritten = this.#changes
  #sequence: LogSequence
  #observer: StateObserver | undefined
  readonly #admitDevice: (device: number) => void

  constructor({ geometry, catalog, holes, units, logSequence, admitDevice }: PoolOrigin) {
    this.geometry = geometry
    this.#admitDevice = admitDevice
    this.catalog = catalog
    this.units = new UnitTable(units)
    for (const [layer, extents] of holes) this.holes.set(layer, HoleSet.fromExtents(extents))
    this.#sequence = logSequence
  }

  /** The sequence of the next record. */
  get sequence(): LogSequence {
    return this.#sequence
  }

  /** What the pages of the last checkpoint do not say: these changes and all that follow them. */
  get unwritten(): SlotChanges {
    return this.#unwritten
  }

  observe(observer: StateObserver): void {
    this.#observer = observer
  }

  /** The log goes on here: what lies between was never written. */
  jump(sequence: LogSequence): void {
    assert(sequence >= this.#sequence, 'a log goes forward')
    this.#sequence = sequence
  }

  /** The changes so far are being written; the next ones are kept apart. */
  freezeChanges(): SlotChanges {
    const frozen = this.#changes
    this.#changes = frozen.freeze()
    return frozen
  }

  /** The frozen ones are in the pages now. */
  changesWritten(): void {
    this.#unwritten = this.#changes
  }

  /** The frozen ones were not written after all. */
  changesNotWritten(): void {
    if (this.#unwritten !== this.#changes) SlotChanges.join(this.#unwritten, this.#changes)
    this.#unwritten = this.#changes
  }

  /** The device's units are there, free. A second time it changes nothing. */
  admitDevice(device: number): void {
    if (device < this.geometry.devices.length) return
    this.#admitDevice(device)
    this.units.grow(this.geometry.unitCount)
  }

  apply(records: Iterable<LogRecord>): void {
    for (const record of records) {
      assert.equal(record.sequence, this.#sequence, 'records come in the order of the log')
      this.#applyOne(record)
      this.#sequence = sequenceAfter(record)
    }
  }

  #applyOne(record: LogRecord): void {
    switch (record.kind) {
      case 'map':
        this.#map(record.layer, record.block, record.location, record.sequence)
        return
      case 'hole':
        this.#hole(record.layer, record.block, record.count, record.sequence)
        return
      case 'own':
        this.#own(this.#indexOf(record.unit), record.layer, record.sequence)
        return
      case 'release':
        this.#release(this.#indexOf(record.unit), record.sequence)
        return
      case 'operation':
        this.#operation(JSON.parse(record.text) as Operation, record.sequence)
        return
      case 'commit':
        // Says something about the disk, nothing about the pool.
        return
    }
  }

  #map(layer: LayerId, block: BlockIndex, location: Location, sequence: LogSequence): void {
    assert(this.geometry.hasLocation(location), `location ${location} is one of this pool`)
    const index = this.#indexOf(this.geometry.unitOf(location))
    const owner = this.units.owner(index)
    assert(owner === layer || owner === noLayer, `layer ${layer} maps block ${block} in a unit of layer ${owner}`)
    assert(this.catalog.layers.has(layer), `layer ${layer} exists`)
    const before = this.#mapOf(layer).set(block, location)
    assert(before !== location, `block ${block} of layer ${layer} is mapped to its place once`)
    const used = this.units.used(index)
    const slot = this.geometry.slotOf(location)
    this.#changes.set(index, slot, block, used)
    const contents = this.contents.get(index)
    if (contents) contents[slot] = block
    this.units.setOwner(index, layer)
    this.units.setUsed(index, used + 1)
    this.#changes.settle(index, layer, used + 1)
    this.#observer?.mapped(layer, block, location)
    if (before !== undefined) this.#free(before, sequence)
  }

  #hole(layer: LayerId, block: BlockIndex, count: number, sequence: LogSequence): void {
    const parent = this.catalog.layers.get(layer)
    assert(parent !== undefined, `layer ${layer} exists`)
    const map = this.#mapOf(layer)
    map.forEach(block, (block + count) as BlockIndex, (mapped, location) => {
      map.delete(mapped)
      this.#free(location, sequence)
    })
    if (parent !== noLayer) this.#holesOf(layer).add(block, count)
  }

  #own(index: UnitIndex, layer: LayerId, sequence: LogSequence): void {
    const contents = this.contents.get(index)
    assert(contents, `what unit ${index} holds is known`)
    const before = this.units.owner(index)
    assert(before !== noLayer && before !== layer, `unit ${index} is another layer's`)
    assert(this.catalog.layers.has(layer), `layer ${layer} exists`)
    const map = this.#mapOf(layer)
    const holes = this.holes.get(layer)
    const from = this.maps.get(before)
    const unit = this.geometry.unitAt(index)
    this.units.setOwner(index, layer)
    this.#changes.settle(index, layer, this.units.used(index))
    // Told first: who gives out this layer's slots must know the unit before a slot of it becomes free.
    this.#observer?.moved(index, layer, contents)
    for (let slot = 0; slot < contents.length; slot += 1) {
      const block = contents[slot] as BlockIndex
      if (block === freeSlot) continue
      const location = this.geometry.locationOf(unit, slot)
      from?.delete(block)
      if (map.has(block) || holes?.has(block)) this.#free(location, sequence)
      else map.set(block, location)
    }
  }

  #release(index: UnitIndex, sequence: LogSequence): void {
    const layer = this.units.owner(index)
    assert(layer !== noLayer, `unit ${index} belongs to a layer`)
    // A layer whose units are released has no children: nobody looks at what it mapped.
    this.maps.delete(layer)
    this.contents.get(index)?.fill(freeSlot)
    this.#changes.clear(index, this.units.used(index))
    this.#empty(index)
    const { geometry } = this
    this.#observer?.freed(geometry.locationOf(geometry.unitAt(index), 0), geometry.blocksPerUnit, sequence)
  }

  #operation(operation: Operation, sequence: LogSequence): void {
    if (operation.op === 'merged') this.#moveHoles(operation.layer, operation.child)
    if (operation.op === 'merged' || operation.op === 'dropped') {
      assert.equal(this.units.unitCount(operation.layer), 0, `layer ${operation.layer} has no units left`)
      this.holes.delete(operation.layer)
      this.maps.delete(operation.layer)
    }
    if (operation.op === 'add-device') this.admitDevice(operation.device)
    const parent = this.#topOf(operation)
    applyOperation(this.catalog, operation)
    if (operation.op === 'snapshot' && parent !== undefined && this.maps.has(parent)) {
      this.maps.set(operation.layer, new LayerMap())
    }
    this.#observer?.operated(operation, sequence)
  }

  #topOf(operation: Operation): LayerId | undefined {
    return operation.op === 'snapshot' ? this.catalog.volumes.get(operation.volume)?.layer : undefined
  }

  /**
   * The garbage's holes become the child's. Where the child has an own entry that hides the hole, as everywhere. A root
   * needs none.
   */
  #moveHoles(garbage: LayerId, child: LayerId): void {
    if (this.catalog.layers.get(garbage) === noLayer) {
      this.holes.delete(child)
      return
    }
    const moved = this.holes.get(garbage)
    if (moved) this.#holesOf(child).addAll(moved)
  }

  #free(location: Location, sequence: LogSequence): void {
    const index = this.#indexOf(this.geometry.unitOf(location))
    const slot = this.geometry.slotOf(location)
    const used = this.units.used(index)
    assert(used > 0, `unit ${index} has a slot in use`)
    const contents = this.contents.get(index)
    if (contents) contents[slot] = freeSlot
    if (used === 1) {
      this.#changes.clear(index, used)
      this.#empty(index)
    } else {
      this.#changes.set(index, slot, freeSlot, used)
      this.units.setUsed(index, used - 1)
      this.#changes.settle(index, this.units.owner(index), used - 1)
    }
    this.#observer?.freed(location, 1, sequence)
  }

  #empty(index: UnitIndex): void {
    this.units.setUsed(index, 0)
    this.units.setOwner(index, noLayer)
    this.#changes.settle(index, noLayer, 0)
  }

  #indexOf(unit: UnitNumber): UnitIndex {
    assert(this.geometry.hasUnit(unit), `unit ${unit} is one of this pool`)
    return this.geometry.indexOf(unit)
  }

  #mapOf(layer: LayerId): LayerMap {
    const map = this.maps.get(layer)
    assert(map, `the map of layer ${layer} is here`)
    return map
  }

  #holesOf(layer: LayerId): HoleSet {
    let holes = this.holes.get(layer)
    if (!holes) {
      holes = new HoleSet()
      this.holes.set(layer, holes)
    }
    return holes
  }
}
