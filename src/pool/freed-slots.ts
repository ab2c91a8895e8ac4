import assert from 'node:assert/strict'
import type { Geometry, Location, LogSequence, UnitIndex } from './geometry.js'
import { clearSlot, hasSlot, noSlots, type SlotBits, setSlot } from './slot-bits.js'

/** Slots of one unit, next to each other. */
export interface SlotRun {
  readonly location: Location
  readonly count: number
}

interface Waiting extends SlotRun {
  /** Free since the record with this sequence. */
  readonly sequence: number
}

interface Held {
  readonly bits: SlotBits
  count: number
}

/**
 * Slots that map nothing any more but may not be given out yet.
 *
 * Order: (1) a record frees the slot, (2) that record is durable, (3) the slot was trimmed, (4) it may be given out. With
 * 4 before 2 a power cut could bring the old mapping back over what another volume wrote there; with 4 before 3 the trim
 * would take the new data away.
 */
export class FreedSlots {
  readonly #geometry: Geometry
  readonly #onHeld: () => void
  /** In the order of the log, from `#done` on. */
  #waiting: Waiting[] = []
  #done = 0
  #ready: SlotRun[] = []
  /** Slots in any of the steps, by unit. */
  readonly #held = new Map<UnitIndex, Held>()
  #trimming = 0

  constructor(geometry: Geometry, onHeld: () => void) {
    this.#geometry = geometry
    this.#onHeld = onHeld
  }

  /** Slots whose record is not durable yet. */
  get isWaiting(): boolean {
    return this.#done < this.#waiting.length
  }

  get isReady(): boolean {
    return this.#ready.length > 0
  }

  /** Nothing is between a record and its slots being free. */
  get isSettled(): boolean {
    return !this.isWaiting && !this.isReady && this.#trimming === 0
  }

  /** Slots of one unit became free with this record. */
  add(location: Location, count: number, sequence: LogSequence): void {
    this.#hold(location, count)
    const last = this.#waiting.at(-1)
    if (last && this.isWaiting && this.#continues(last, location, count)) {
      this.#waiting[this.#waiting.length - 1] = { location: last.location, count: last.count + count, sequence }
    } else {
      this.#waiting.push({ location, count, sequence })
    }
    this.#onHeld()
  }

  /** Slots that no record names but that may hold something: they only need to be trimmed. */
  addUnpublished(location: Location, count: number): void {
    this.#hold(location, count)
    this.#ready.push({ location, count })
    this.#onHeld()
  }

  /** The records before this sequence are durable. */
  commit(covered: LogSequence): void {
    while (this.isWaiting && this.#waiting[this.#done]!.sequence < covered) {
      this.#ready.push(this.#waiting[this.#done]!)
      this.#done += 1
    }
    if (this.#done === this.#waiting.length) {
      this.#waiting = []
      this.#done = 0
    } else if (this.#done > 4096 && this.#done > this.#waiting.length / 2) {
      this.#waiting = this.#waiting.slice(this.#done)
      this.#done = 0
    }
  }

  /** The next runs to trim, in the order of the devices; settle() or giveBack() each of them afterwards. */
  takeReady(limit: number): SlotRun[] {
    if (this.#ready.length === 0) return []
    const taken = this.#ready.splice(0, limit).sort((a, b) => a.location - b.location)
    this.#trimming += taken.length
    return taken
  }

  /**
   * The run was trimmed: nothing of it is held any more.
   * @returns false: nothing was; a slot and then its whole unit became free, and the unit was settled first
   */
  settle(run: SlotRun): boolean {
    this.#trimming -= 1
    const index = this.#unitOf(run.location)
    const held = this.#held.get(index)
    if (!held) return false
    const before = held.count
    const first = this.#geometry.slotOf(run.location)
    for (let slot = first; slot < first + run.count; slot += 1) {
      if (!hasSlot(held.bits, slot)) continue
      clearSlot(held.bits, slot)
      held.count -= 1
    }
    if (held.count === 0) this.#held.delete(index)
    return held.count < before
  }

  /** Slots of the unit that may not be given out. */
  heldIn(index: UnitIndex): SlotBits | undefined {
    return this.#held.get(index)?.bits
  }

  #hold(location: Location, count: number): void {
    const index = this.#unitOf(location)
    const first = this.#geometry.slotOf(location)
    assert(first + count <= this.#geometry.blocksPerUnit, 'a run lies in one unit')
    let held = this.#held.get(index)
    if (!held) {
      held = { bits: noSlots(this.#geometry.blocksPerUnit), count: 0 }
      this.#held.set(index, held)
    }
    for (let slot = first; slot < first + count; slot += 1) {
      if (hasSlot(held.bits, slot)) continue
      setSlot(held.bits, slot)
      held.count += 1
    }
  }

  /** Of the same unit, and next to it. */
  #continues(last: Waiting, location: Location, count: number): boolean {
    return (
      last.location + last.count === location &&
      last.count + count <= this.#geometry.blocksPerUnit &&
      this.#unitOf(last.location) === this.#unitOf(location)
    )
  }

  #unitOf(location: Location): UnitIndex {
    return this.#geometry.indexOf(this.#geometry.unitOf(location))
  }
}
