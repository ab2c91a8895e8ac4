import assert from 'node:assert/strict'
import { type LayerId, type Location, noLayer, type UnitIndex } from './geometry.js'
import type { LayerLoader } from './layer-loader.js'
import { noSlots, setSlot } from './slot-bits.js'
import type { Slots } from './slots.js'
import type { PoolState } from './state.js'
import { freeSlot } from './unit-page.js'

/**
 * Look at everything a pool knows about its slots, in pages and in memory, while nothing changes.
 *
 * @throws AssertionError: owner or count of a unit is not what its slots say, a layer has a block in two slots or a map
 * that says something else, a slot can be given out that must not be, or a unit is lost
 */
export async function auditPool(state: PoolState, loader: LayerLoader, slots: Slots): Promise<void> {
  const { geometry, units, maps, catalog } = state
  const owned: UnitIndex[] = []
  for (let at = 0; at < units.length; at += 1) {
    const index = at as UnitIndex
    const isOwned = units.owner(index) !== noLayer
    assert.equal(units.used(index) > 0, isOwned, `unit ${index} has an owner when it has used slots`)
    if (!isOwned) continue
    assert(catalog.layers.has(units.owner(index)), `the owner of unit ${index} exists`)
    assert(slots.space.isBusy(index), `unit ${index} belongs to a layer and is not free`)
    owned.push(index)
  }
  assert.equal(units.ownedUnits, owned.length, 'units with an owner')
  const blocksOf = new Map<LayerId, Map<number, Location>>()
  const used = new Map<UnitIndex, Uint32Array>()
  await loader.readUnits(owned, (index, blocks) => {
    const layer = units.owner(index)
    const seen = blocksOf.get(layer) ?? new Map<number, Location>()
    blocksOf.set(layer, seen)
    const bits = noSlots(blocks.length)
    let count = 0
    for (let slot = 0; slot < blocks.length; slot += 1) {
      const block = blocks[slot]!
      if (block === freeSlot) continue
      assert(!seen.has(block), `layer ${layer} has block ${block} once`)
      seen.set(block, geometry.locationOf(geometry.unitAt(index), slot))
      setSlot(bits, slot)
      count += 1
    }
    used.set(index, bits)
    assert.equal(units.used(index), count, `used slots of unit ${index}`)
  })
  for (const [layer, map] of maps) {
    const seen = blocksOf.get(layer) ?? new Map<number, Location>()
    assert.equal(map.size, seen.size, `blocks of layer ${layer}`)
    for (const [block, location] of seen) {
      assert.equal(map.get(block as never), location, `block ${block} of layer ${layer}`)
    }
  }
  let listed = 0
  for (const layer of catalog.layers.keys()) listed += units.unitCount(layer)
  assert.equal(listed, owned.length, 'every unit is in its layer’s list')
  auditSlots(state, slots, used)
}

function auditSlots({ units }: PoolState, slots: Slots, used: ReadonlyMap<UnitIndex, Uint32Array>): void {
  const granting = new Set<UnitIndex>()
  for (const { layer, index, free, granted } of slots.openUnits()) {
    granting.add(index)
    const owner = units.owner(index)
    assert(owner === layer || owner === noLayer, `unit ${index} is given out to its owner`)
    assert(slots.space.isBusy(index), `unit ${index} is given out`)
    const usedBits = used.get(index)
    const held = slots.freed.heldIn(index)
    for (const [word, bits] of free.entries()) {
      assert.equal(bits & (usedBits?.[word] ?? 0), 0, `a slot in use of unit ${index} cannot be given out`)
      assert.equal(bits & (held?.[word] ?? 0), 0, `a held slot of unit ${index} cannot be given out`)
    }
    assert(granted >= 0)
  }
  let free = 0
  for (let at = 0; at < units.length; at += 1) {
    const index = at as UnitIndex
    const held = slots.freed.heldIn(index)
    if (held) assert(slots.space.isBusy(index), `unit ${index} has held slots and is not free`)
    if (!slots.space.isBusy(index)) free += 1
    else assert(units.owner(index) !== noLayer || held || granting.has(index), `unit ${index} is not lost`)
    const usedBits = used.get(index)
    for (let word = 0; held && usedBits && word < held.length; word += 1) {
      assert.equal(held[word]! & usedBits[word]!, 0, `a held slot of unit ${index} maps nothing`)
    }
  }
  assert.equal(slots.space.freeUnits, free, 'free units')
}
