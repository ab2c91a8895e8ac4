import t from 'tap'
import { Geometry, layerId, layOutDevice, logSequence, unitIndex } from '../../src/pool/geometry.js'
import { Slots } from '../../src/pool/slots.js'
import { UnitMap } from '../../src/pool/unit-map.js'
import { freeSlot } from '../../src/pool/unit-page.js'
import { UnitTable } from '../../src/pool/unit-table.js'

const sizes = { unitBytes: 32 << 10, blockBytes: 4 << 10 }
const layer = layerId(1)

function newSlots() {
  const geometry = new Geometry(sizes, [layOutDevice(sizes, 0, 2 << 20)])
  const units = new UnitTable(new UnitMap(geometry.unitCount))
  const slots = new Slots(geometry, units, () => {})
  return { geometry, units, slots }
}

t.test('neighbouring blocks get neighbouring slots, one unit after the other', async (t) => {
  const { geometry, slots } = newSlots()
  const writer = slots.openLayer(layer)
  let before = writer.grant(undefined)!
  for (let at = 1; at < 24; at += 1) {
    const next = writer.grant(before)!
    t.equal(next, before + 1)
    before = next
  }
  t.equal(slots.space.freeUnits, geometry.unitCount - 3)
})

t.test('a freed slot is given out again only when its record is durable and it was trimmed', async (t) => {
  const { geometry, units, slots } = newSlots()
  const writer = slots.openLayer(layer)
  const location = writer.grant(undefined)!
  const index = geometry.indexOf(geometry.unitOf(location))
  units.setOwner(index, layer)
  units.setUsed(index, 1)
  slots.published(layer, location)
  units.setUsed(index, 0)
  units.setOwner(index, layerId(0))
  slots.freed.add(location, 1, logSequence(7))
  slots.freed.commit(logSequence(7))
  t.same(slots.freed.takeReady(10), [], 'a commit up to the record does not cover it')
  slots.freed.commit(logSequence(8))
  const runs = slots.freed.takeReady(10)
  t.equal(runs.length, 1)
  t.ok(slots.space.isBusy(index), 'not while it is trimmed')
  slots.settle(runs[0]!, false)
  t.notOk(slots.space.isBusy(index), 'the unit goes back')
  t.ok(slots.freed.isSettled)
})

t.test('a unit goes back once, also when a slot and the whole of it became free', async (t) => {
  const { geometry, slots } = newSlots()
  const index = slots.space.take()!
  const first = geometry.locationOf(geometry.unitAt(index), 0)
  slots.freed.add(geometry.locationOf(geometry.unitAt(index), 3), 1, logSequence(1))
  slots.freed.add(first, geometry.blocksPerUnit, logSequence(2))
  slots.freed.commit(logSequence(3))
  const free = slots.space.freeUnits
  for (const run of slots.freed.takeReady(10)) slots.settle(run, true)
  t.equal(slots.space.freeUnits, free + 1)
  t.ok(slots.space.readsAsZeros(index))
})

t.test('a unit that was trimmed in parts is trimmed as a whole before it is known to read as zeros', async (t) => {
  const { geometry, slots } = newSlots()
  const index = slots.space.take()!
  slots.freed.addUnpublished(geometry.locationOf(geometry.unitAt(index), 3), 1)
  const [part] = slots.freed.takeReady(10)
  slots.settle(part!, true)
  t.ok(slots.space.isBusy(index))
  const [whole] = slots.freed.takeReady(10)
  t.equal(whole!.count, geometry.blocksPerUnit)
  slots.settle(whole!, true)
  t.ok(slots.space.readsAsZeros(index))
  t.notOk(slots.space.isBusy(index))
  const claimed = slots.space.takeUncertain(0, 1000, geometry.unitCount)
  t.equal(claimed.length, geometry.unitCount - 1, 'what is certain is left alone')
  slots.addClaimed(claimed[0]!)
  slots.settle(slots.freed.takeReady(1)[0]!, false)
  t.notOk(slots.space.isBusy(claimed[0]!), 'a trim without zeros is not repeated')
})

t.test('held slots of a unit are left out when its layer is opened, and come later', async (t) => {
  const { geometry, units, slots } = newSlots()
  const index = slots.space.take()!
  units.setOwner(index, layer)
  units.setUsed(index, 6)
  const unit = geometry.unitAt(index)
  slots.freed.add(geometry.locationOf(unit, 6), 1, logSequence(1))
  slots.freed.add(geometry.locationOf(unit, 7), 1, logSequence(1))
  const writer = slots.openLayer(layer)
  writer.addUnit(index, Float64Array.from([0, 1, 2, 3, 4, 5, freeSlot, freeSlot]))
  t.not(geometry.indexOf(geometry.unitOf(writer.grant(undefined)!)), index)
  slots.freed.commit(logSequence(2))
  for (const run of slots.freed.takeReady(10)) slots.settle(run, true)
  t.equal(writer.grant(geometry.locationOf(unit, 5)), geometry.locationOf(unit, 6))
  t.equal(writer.grant(geometry.locationOf(unit, 6)), geometry.locationOf(unit, 7))
  t.equal(unitIndex(index), index)
})
