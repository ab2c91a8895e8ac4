import assert from 'node:assert/strict'
import { FreedSlots, type SlotRun } from './freed-slots.js'
import { type Geometry, type LayerId, type Location, noLayer, type UnitIndex } from './geometry.js'
import { allSlots, clearSlot, countSlots, hasSlot, nextSlot, noSlots, type SlotBits, setSlot } from './slot-bits.js'
import { Space } from './space.js'
import { freeSlot } from './unit-page.js'
import type { UnitTable } from './unit-table.js'

interface OpenUnit {
  /** Slots that can be given out. */
  readonly free: SlotBits
  freeCount: number
  /** Slots given out and not published yet. */
  granted: number
}

/**
 * Who may have which slot: units that are free, slots of layers that are written, slots that are free but may not be
 * given out yet. Nothing of it is stored; after a restart the state says it all.
 *
 * A unit goes back when it has no slot in use, none given out, and none held.
 */
export class Slots {
  readonly space: Space
  readonly freed: FreedSlots
  readonly #geometry: Geometry
  readonly #units: UnitTable
  readonly #writers = new Map<LayerId, LayerSlots>()
  /** Of units with a free or granted slot. */
  readonly #writerOf = new Map<UnitIndex, LayerSlots>()

  /** @param onHeld slots are on their way to being free: look at `freed` */
  constructor(geometry: Geometry, units: UnitTable, onHeld: () => void) {
    this.#geometry = geometry
    this.#units = units
    this.space = new Space(units)
    this.freed = new FreedSlots(geometry, onHeld)
  }

  /** The layer is going to be written; addUnit() its units that are not full. */
  openLayer(layer: LayerId): LayerSlots {
    assert(!this.#writers.has(layer), `layer ${layer} has one writer`)
    const writer = new LayerSlots(this.#geometry, this.space, this.freed, this.#writerOf)
    this.#writers.set(layer, writer)
    return writer
  }

  /** It is written no more. What was granted has been published or given back. */
  closeLayer(layer: LayerId): void {
    this.#writers.get(layer)?.close()
    this.#writers.delete(layer)
  }

  published(layer: LayerId, location: Location): void {
    this.#writers.get(layer)?.published(location)
  }

  /** A unit with these blocks now belongs to the layer. */
  moved(index: UnitIndex, layer: LayerId, blocks: Float64Array): void {
    this.#writers.get(layer)?.addUnit(index, blocks)
  }

  /** A free unit was claimed only to be trimmed. */
  addClaimed(index: UnitIndex): void {
    this.freed.addUnpublished(this.#firstOf(index), this.#geometry.blocksPerUnit)
  }

  /** The run was trimmed. @param zeros it reads as zeros now, for certain */
  settle(run: SlotRun, zeros: boolean): void {
    const index = this.#geometry.indexOf(this.#geometry.unitOf(run.location))
    const wholeUnit = run.count === this.#geometry.blocksPerUnit
    if (!this.freed.settle(run)) return
    if (!zeros) this.space.setReadsAsZeros(index, false)
    else if (wholeUnit) this.space.setReadsAsZeros(index, true)
    const writer = this.#writerOf.get(index) ?? this.#writers.get(this.#units.owner(index))
    writer?.settled(run)
    if (this.#units.owner(index) !== noLayer || this.freed.heldIn(index) || (writer && !writer.letGo(index))) return
    // Trimmed as a whole it can be given out without filling it with zeros.
    if (zeros && !wholeUnit && !this.space.readsAsZeros(index)) this.addClaimed(index)
    else this.space.free(index)
  }

  /** For the audit: every unit with a slot that can be given out, or was. */
  *openUnits(): Generator<{ layer: LayerId; index: UnitIndex; free: SlotBits; granted: number }> {
    for (const [layer, writer] of this.#writers) {
      for (const [index, { free, granted }] of writer.openUnits()) yield { layer, index, free, granted }
    }
  }

  #firstOf(index: UnitIndex): Location {
    return this.#geometry.locationOf(this.#geometry.unitAt(index), 0)
  }
}

/** The slots one layer can be written to. */
export class LayerSlots {
  readonly #geometry: Geometry
  readonly #space: Space
  readonly #freed: FreedSlots
  readonly #writerOf: Map<UnitIndex, LayerSlots>
  readonly #open = new Map<UnitIndex, OpenUnit>()
  /** Of these, those with a free slot. */
  readonly #roomy = new Set<UnitIndex>()
  #current: UnitIndex | undefined
  #cursor = 0

  constructor(geometry: Geometry, space: Space, freed: FreedSlots, writerOf: Map<UnitIndex, LayerSlots>) {
    this.#geometry = geometry
    this.#space = space
    this.#freed = freed
    this.#writerOf = writerOf
  }

  openUnits(): Iterable<readonly [UnitIndex, OpenUnit]> {
    return this.#open
  }

  /** Slots given out and not published yet. */
  get grantedSlots(): number {
    let granted = 0
    for (const unit of this.#open.values()) granted += unit.granted
    return granted
  }

  /** A unit of the layer with these blocks in its slots; nothing of it is given out. */
  addUnit(index: UnitIndex, blocks: Float64Array): void {
    assert(!this.#open.has(index), `unit ${index} is new to the layer`)
    const free = noSlots(blocks.length)
    const held = this.#freed.heldIn(index)
    for (let slot = 0; slot < blocks.length; slot += 1) {
      if (blocks[slot] === freeSlot && !(held && hasSlot(held, slot))) setSlot(free, slot)
    }
    if (countSlots(free) > 0) this.#add(index, free)
  }

  /**
   * A slot for a block, beside the one that holds the block before it if that can be.
   *
   * @returns undefined: there is none in the pool
   */
  grant(beside: Location | undefined): Location | undefined {
    const next = beside === undefined ? undefined : this.#grantAfter(beside)
    if (next !== undefined) return next
    const index = this.#roomyUnit()
    if (index === undefined) return undefined
    const unit = this.#open.get(index)!
    const slot = nextSlot(unit.free, index === this.#current ? this.#cursor : 0)
    this.#current = index
    return this.#take(index, unit, slot)
  }

  published(location: Location): void {
    this.#ungranted(location)
  }

  /** Native did not use it, or not to the end. */
  giveBack(location: Location): void {
    this.#ungranted(location)
    this.#freed.addUnpublished(location, 1)
  }

  settled(run: SlotRun): void {
    const index = this.#unitOf(run.location)
    const unit = this.#open.get(index) ?? this.#add(index, noSlots(this.#geometry.blocksPerUnit))
    const first = this.#geometry.slotOf(run.location)
    for (let slot = first; slot < first + run.count; slot += 1) {
      if (hasSlot(unit.free, slot)) continue
      setSlot(unit.free, slot)
      unit.freeCount += 1
    }
    this.#roomy.add(index)
  }

  /** False while slots of the unit are given out; true: it is none of this layer's any more. */
  letGo(index: UnitIndex): boolean {
    const unit = this.#open.get(index)
    if (unit && unit.granted > 0) return false
    this.#forget(index)
    return true
  }

  close(): void {
    assert.equal(this.grantedSlots, 0, 'nothing is given out')
    for (const index of [...this.#open.keys()]) this.#forget(index)
  }

  #grantAfter(beside: Location): Location | undefined {
    const slot = this.#geometry.slotOf(beside) + 1
    const index = this.#unitOf(beside)
    const unit = this.#open.get(index)
    if (!unit || slot === this.#geometry.blocksPerUnit || !hasSlot(unit.free, slot)) return undefined
    return this.#take(index, unit, slot)
  }

  #roomyUnit(): UnitIndex | undefined {
    if (this.#current !== undefined && this.#roomy.has(this.#current)) return this.#current
    for (const index of this.#roomy) return index
    const index = this.#space.take()
    if (index !== undefined) this.#add(index, allSlots(this.#geometry.blocksPerUnit))
    return index
  }

  #take(index: UnitIndex, unit: OpenUnit, slot: number): Location {
    clearSlot(unit.free, slot)
    unit.freeCount -= 1
    unit.granted += 1
    if (unit.freeCount === 0) this.#roomy.delete(index)
    if (index === this.#current) this.#cursor = slot + 1
    return this.#geometry.locationOf(this.#geometry.unitAt(index), slot)
  }

  #ungranted(location: Location): void {
    const index = this.#unitOf(location)
    const unit = this.#open.get(index)
    assert(unit && unit.granted > 0, `location ${location} was given out`)
    unit.granted -= 1
    if (unit.granted === 0 && unit.freeCount === 0) this.#forget(index)
  }

  #add(index: UnitIndex, free: SlotBits): OpenUnit {
    const unit = { free, freeCount: countSlots(free), granted: 0 }
    this.#open.set(index, unit)
    this.#writerOf.set(index, this)
    if (unit.freeCount > 0) this.#roomy.add(index)
    return unit
  }

  #forget(index: UnitIndex): void {
    if (!this.#open.delete(index)) return
    this.#roomy.delete(index)
    this.#writerOf.delete(index)
  }

  #unitOf(location: Location): UnitIndex {
    return this.#geometry.indexOf(this.#geometry.unitOf(location))
  }
}
