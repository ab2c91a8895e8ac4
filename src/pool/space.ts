import assert from 'node:assert/strict'
import { noLayer, type UnitIndex } from './geometry.js'
import type { UnitTable } from './unit-table.js'

const busy = 1
const zeros = 2

/**
 * Which units can be given out. A unit is busy from take() until free(): while it belongs to a layer, while slots of it
 * are given out, and while what was in it may still come back after a power cut. One byte a unit.
 */
export class Space {
  #flags: Uint8Array
  #free = 0
  /** Where the last one was found: neighbours go to the same writer. */
  #cursor = 0

  constructor(units: UnitTable) {
    this.#flags = new Uint8Array(units.length)
    for (let index = 0; index < units.length; index += 1) {
      if (units.owner(index as UnitIndex) === noLayer) this.#free += 1
      else this.#flags[index] = busy
    }
  }

  get freeUnits(): number {
    return this.#free
  }

  /** A unit for whoever asks, the next one if it can be had. */
  take(): UnitIndex | undefined {
    if (this.#free === 0) return undefined
    const { length } = this.#flags
    for (let step = 0; step < length; step += 1) {
      const index = (this.#cursor + step) % length
      if ((this.#flags[index]! & busy) !== 0) continue
      this.#cursor = (index + 1) % length
      this.#claim(index as UnitIndex)
      return index as UnitIndex
    }
    return assert.fail('a free unit is found')
  }

  /** Up to so many free units in [from, to) that are not known to read as zeros: busy from here on. */
  takeUncertain(from: number, limit: number, to: number): UnitIndex[] {
    const taken: UnitIndex[] = []
    for (let index = from; index < to && taken.length < limit; index += 1) {
      if (this.#flags[index] !== 0) continue
      this.#claim(index as UnitIndex)
      taken.push(index as UnitIndex)
    }
    return taken
  }

  free(index: UnitIndex): void {
    assert(this.isBusy(index), `unit ${index} is given out`)
    this.#flags[index]! &= ~busy
    this.#free += 1
  }

  isBusy(index: UnitIndex): boolean {
    return (this.#flags[index]! & busy) !== 0
  }

  /** What no slot of it holds reads as zeros, for certain. */
  readsAsZeros(index: UnitIndex): boolean {
    return (this.#flags[index]! & zeros) !== 0
  }

  setReadsAsZeros(index: UnitIndex, certain: boolean): void {
    if (certain) this.#flags[index]! |= zeros
    else this.#flags[index]! &= ~zeros
  }

  /** More units, free, behind the others. */
  grow(unitCount: number): void {
    const flags = new Uint8Array(unitCount)
    flags.set(this.#flags)
    this.#free += unitCount - this.#flags.length
    this.#flags = flags
  }

  #claim(index: UnitIndex): void {
    assert(!this.isBusy(index), `unit ${index} is free`)
    this.#flags[index]! |= busy
    this.#free -= 1
  }
}
