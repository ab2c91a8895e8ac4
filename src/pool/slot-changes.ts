import { type LayerId, noLayer, type UnitIndex } from './geometry.js'
import { freeSlot, type UnitChange } from './unit-page.js'

class Change implements UnitChange {
  readonly index: UnitIndex
  layer: LayerId = noLayer
  used = 0
  whole: boolean
  slots: number[] = []
  blocks: number[] = []
  #highest = -1

  constructor(index: UnitIndex, whole: boolean) {
    this.index = index
    this.whole = whole
  }

  set(slot: number, block: number): void {
    const at = slot > this.#highest ? -1 : this.slots.indexOf(slot)
    if (at >= 0) {
      this.blocks[at] = block
      return
    }
    this.slots.push(slot)
    this.blocks.push(block)
    if (slot > this.#highest) this.#highest = slot
  }

  clear(): void {
    this.whole = true
    this.slots = []
    this.blocks = []
    this.#highest = -1
  }
}

/**
 * What happened to slots since a checkpoint, by unit. Each lasts from one checkpoint's beginning to the next one's: who
 * reads a page of the older checkpoint adds all that follow, the newest last.
 */
export class SlotChanges {
  readonly #units = new Map<UnitIndex, Change>()
  #next: SlotChanges | undefined

  get unitCount(): number {
    return this.#units.size
  }

  /** What changed after these, once somebody began to write them. */
  get next(): SlotChanges | undefined {
    return this.#next
  }

  /** The slot now holds this block of the unit's owner, or nothing (freeSlot). `used` is as before the change. */
  set(index: UnitIndex, slot: number, block: number, used: number): void {
    this.#of(index, used).set(slot, block)
  }

  /** No slot of it is used. */
  clear(index: UnitIndex, used: number): void {
    this.#of(index, used).clear()
  }

  /** Owner and used slots after a change. */
  settle(index: UnitIndex, layer: LayerId, used: number): void {
    const change = this.#of(index, used)
    change.layer = layer
    change.used = used
  }

  /** These are written now and change no more: the next ones begin. */
  freeze(): SlotChanges {
    this.#next = new SlotChanges()
    return this.#next
  }

  /** What was not written after all: it joins what came later, which counts where both say something. */
  static join(older: SlotChanges, newer: SlotChanges): void {
    for (const [index, before] of older.#units) {
      const after = newer.#units.get(index)
      if (!after) {
        newer.#units.set(index, before)
        continue
      }
      if (after.whole) continue
      const joined = new Change(index, before.whole)
      for (let at = 0; at < before.slots.length; at += 1) joined.set(before.slots[at]!, before.blocks[at]!)
      for (let at = 0; at < after.slots.length; at += 1) joined.set(after.slots[at]!, after.blocks[at]!)
      joined.layer = after.layer
      joined.used = after.used
      newer.#units.set(index, joined)
    }
  }

  /** Change a page's blocks as these and all that follow say. */
  apply(index: UnitIndex, blocks: Float64Array): void {
    for (let changes: SlotChanges | undefined = this; changes; changes = changes.#next) {
      const change = changes.#units.get(index)
      if (!change) continue
      if (change.whole) blocks.fill(freeSlot)
      for (let at = 0; at < change.slots.length; at += 1) blocks[change.slots[at]!] = change.blocks[at]!
    }
  }

  list(): UnitChange[] {
    return [...this.#units.values()]
  }

  #of(index: UnitIndex, used: number): Change {
    let change = this.#units.get(index)
    if (!change) {
      // Of a unit that was free before, the page says nothing that counts.
      change = new Change(index, used === 0)
      this.#units.set(index, change)
    }
    return change
  }
}
