import assert from 'node:assert/strict'
import type { Fault, Grant } from '../intercept/addon.js'
import type { ChainView } from './chain-view.js'
import type { BlockIndex, Geometry, Location } from './geometry.js'
import type { LayerSlots } from './slots.js'
import type { Space } from './space.js'

export interface PlannedGrants {
  readonly grants: Grant[]
  /** There is no room for these. */
  readonly unplaced: Fault[]
}

/**
 * Gives places in a volume's top layer to blocks that are written.
 *
 * A block that was given a place keeps it until the log says that it lies there, or native says that the place was not
 * used: a second place for the same block could make an older grant, still under way, publish the first one behind it.
 */
export class WriteFaults {
  readonly #geometry: Geometry
  readonly #space: Space
  #slots: LayerSlots
  readonly #granted = new Map<BlockIndex, Location>()

  constructor(geometry: Geometry, space: Space, slots: LayerSlots) {
    this.#geometry = geometry
    this.#space = space
    this.#slots = slots
  }

  /** The faults' blocks, neighbours beside each other. `view` is as of now. */
  plan(view: ChainView, faults: readonly Fault[]): PlannedGrants {
    const grants: Grant[] = []
    const unplaced: Fault[] = []
    for (const fault of faults.toSorted((a, b) => a.block - b.block)) {
      const grant = this.#plan(view, fault)
      if (grant) grants.push(grant)
      else unplaced.push(fault)
    }
    return { grants, unplaced }
  }

  /** The log says that the block lies there. */
  published(block: BlockIndex, location: Location): void {
    if (this.#granted.get(block) === location) this.#granted.delete(block)
  }

  /** Native will not use these places any more. Something may have been written to them. */
  dropped(places: readonly { readonly block: number; readonly location: number }[]): void {
    for (const { block, location } of places) {
      if (this.#granted.get(block as BlockIndex) !== location) continue
      this.#granted.delete(block as BlockIndex)
      this.#slots.giveBack(location as Location)
    }
  }

  /** The volume is closed in native code: nothing that was given out is used any more. */
  dropAll(): void {
    for (const location of this.#granted.values()) this.#slots.giveBack(location)
    this.#granted.clear()
  }

  /** The volume's top layer is another one, after a freeze: everything given out was published or dropped. */
  changeLayer(slots: LayerSlots): void {
    assert.equal(this.#granted.size, 0, 'a freeze leaves nothing given out')
    this.#slots = slots
  }

  #plan(view: ChainView, fault: Fault): Grant | undefined {
    const block = fault.block as BlockIndex
    const own = view.own(block)
    if (own !== undefined) return { block, location: own, mapped: true, writable: true, known: true }
    const again = this.#granted.get(block)
    const location = again ?? this.#slots.grant(this.#before(view, block))
    if (location === undefined) return undefined
    this.#granted.set(block, location)
    const grant = { block, location, mapped: true, writable: true }
    if (fault.wholeBlock) return { ...grant, reserve: true }
    const old = view.find(block)
    if (old !== undefined) return { ...grant, copyFrom: old }
    // A place that was given out before may have been written to.
    const isZeros = again === undefined && this.#space.readsAsZeros(this.#unitOf(location))
    return isZeros ? grant : { ...grant, copyFrom: -1 }
  }

  /** Where the block before lies, or will. */
  #before(view: ChainView, block: number): Location | undefined {
    if (block === 0) return undefined
    const before = (block - 1) as BlockIndex
    return this.#granted.get(before) ?? view.own(before)
  }

  #unitOf(location: Location) {
    return this.#geometry.indexOf(this.#geometry.unitOf(location))
  }
}
