import { type LayerId, noLayer, type UnitIndex } from './geometry.js'
import type { UnitMap } from './unit-map.js'

const none = -1

/** Owner and count of used slots of every unit, now; and the units of each layer. 14 bytes a unit. */
export class UnitTable {
  #owner: Uint32Array
  #used: Uint16Array
  /** The units of a layer form a ring-less list: neighbours of each unit in it. */
  #next: Int32Array
  #previous: Int32Array
  readonly #first = new Map<LayerId, number>()
  readonly #counts = new Map<LayerId, number>()
  #ownedUnits = 0
  #usedSlots = 0

  constructor(units: UnitMap) {
    this.#owner = new Uint32Array(units.length)
    this.#used = Uint16Array.from(units.used)
    this.#next = new Int32Array(units.length).fill(none)
    this.#previous = new Int32Array(units.length).fill(none)
    // Backwards, so that the lists begin with the lowest unit.
    for (let index = units.length - 1; index >= 0; index -= 1) {
      this.#usedSlots += this.#used[index]!
      if (units.layer[index] !== noLayer) this.setOwner(index as UnitIndex, units.layer[index] as LayerId)
    }
  }

  get length(): number {
    return this.#owner.length
  }

  /** Units that belong to a layer. */
  get ownedUnits(): number {
    return this.#ownedUnits
  }

  /** Slots in use, over all units. */
  get usedSlots(): number {
    return this.#usedSlots
  }

  owner(index: UnitIndex): LayerId {
    return this.#owner[index] as LayerId
  }

  used(index: UnitIndex): number {
    return this.#used[index]!
  }

  setUsed(index: UnitIndex, used: number): void {
    this.#usedSlots += used - this.#used[index]!
    this.#used[index] = used
  }

  setOwner(index: UnitIndex, layer: LayerId): void {
    const before = this.owner(index)
    if (before === layer) return
    if (before !== noLayer) this.#unlink(index, before)
    this.#owner[index] = layer
    if (layer !== noLayer) this.#link(index, layer)
  }

  unitCount(layer: LayerId): number {
    return this.#counts.get(layer) ?? 0
  }

  /** Units of a layer, up to a limit, in no order that means anything. */
  unitsOf(layer: LayerId, limit = Number.POSITIVE_INFINITY): UnitIndex[] {
    const found: UnitIndex[] = []
    for (let at = this.#first.get(layer) ?? none; at !== none && found.length < limit; at = this.#next[at]!) {
      found.push(at as UnitIndex)
    }
    return found
  }

  /** More units, free, behind the others. */
  grow(unitCount: number): void {
    this.#owner = grown(this.#owner, new Uint32Array(unitCount))
    this.#used = grown(this.#used, new Uint16Array(unitCount))
    this.#next = grown(this.#next, new Int32Array(unitCount).fill(none))
    this.#previous = grown(this.#previous, new Int32Array(unitCount).fill(none))
  }

  #link(index: UnitIndex, layer: LayerId): void {
    const first = this.#first.get(layer) ?? none
    this.#next[index] = first
    this.#previous[index] = none
    if (first !== none) this.#previous[first] = index
    this.#first.set(layer, index)
    this.#counts.set(layer, this.unitCount(layer) + 1)
    this.#ownedUnits += 1
  }

  #unlink(index: UnitIndex, layer: LayerId): void {
    const next = this.#next[index]!
    const previous = this.#previous[index]!
    if (next !== none) this.#previous[next] = previous
    if (previous !== none) this.#next[previous] = next
    else if (next !== none) this.#first.set(layer, next)
    else this.#first.delete(layer)
    const count = this.unitCount(layer) - 1
    if (count > 0) this.#counts.set(layer, count)
    else this.#counts.delete(layer)
    this.#ownedUnits -= 1
  }
}

function grown<T extends Uint32Array | Uint16Array | Int32Array>(before: T, larger: T): T {
  larger.set(before)
  return larger
}
