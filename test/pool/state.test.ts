import { AssertionError } from 'node:assert/strict'
import t from 'tap'
import { emptyCatalog, type Operation, volumeId } from '../../src/pool/catalog.js'
import { ChainView } from '../../src/pool/chain-view.js'
import {
  blockIndex,
  Geometry,
  type LayerId,
  layerId,
  layOutDevice,
  logSequence,
  noLayer,
  poolLocation,
} from '../../src/pool/geometry.js'
import { LayerMap } from '../../src/pool/layer-map.js'
import {
  encodeOperation,
  encodeOwn,
  encodeRelease,
  nativeRecords,
  parseRecords,
  sealRecords,
} from '../../src/pool/log-record.js'
import { PoolState } from '../../src/pool/state.js'
import { UnitMap } from '../../src/pool/unit-map.js'

const sizes = { unitBytes: 32 << 10, blockBytes: 4 << 10 }

/** A state without devices, to which records are applied as they come. */
class Bench {
  readonly geometry = new Geometry(sizes, [layOutDevice(sizes, 0, 4 << 20)])
  readonly freed: [location: number, count: number][] = []
  readonly state: PoolState
  #next = logSequence(0)

  constructor() {
    const { geometry } = this
    this.state = new PoolState({
      geometry,
      catalog: emptyCatalog('pool', 'now', []),
      holes: new Map(),
      units: new UnitMap(geometry.unitCount),
      logSequence: this.#next,
      admitDevice: () => {},
    })
    this.state.observe({
      freed: (location, count) => this.freed.push([location, count]),
      mapped: () => {},
      moved: () => {},
      operated: () => {},
    })
  }

  apply(...records: Buffer[]): void {
    this.state.apply(parseRecords(sealRecords(records, this.#next, 1)))
    this.#next = this.state.sequence
  }

  operate(operation: Operation): void {
    this.apply(encodeOperation(operation))
  }

  /** A volume with one layer whose map is here. */
  volume(id: number, layer: number): LayerId {
    const facts = { name: `v${id}`, sizeBytes: 1 << 20, createdAt: 'now', role: 'volume' as const }
    this.operate({ op: 'create-volume', volume: volumeId(id), layer: layerId(layer), ...facts })
    this.state.maps.set(layerId(layer), new LayerMap())
    return layerId(layer)
  }

  snapshot(id: number, layer: number): LayerId {
    const facts = { name: `s${layer}`, createdAt: 'now', hidden: false }
    this.operate({ op: 'snapshot', volume: volumeId(id), layer: layerId(layer), ...facts })
    return layerId(layer)
  }

  at(unit: number, slot: number) {
    return this.geometry.locationOf(this.geometry.unitAt(unit as never), slot)
  }

  map(layer: LayerId, block: number, location: number): void {
    this.apply(nativeRecords.map(layer, blockIndex(block), poolLocation(location)))
  }

  hole(layer: LayerId, block: number, count: number): void {
    this.apply(nativeRecords.hole(layer, blockIndex(block), count))
  }

  owner(unit: number) {
    return [this.state.units.owner(unit as never), this.state.units.used(unit as never)]
  }
}

t.test('MAP: the unit becomes the layer’s, and a slot the layer had for the block is free', async (t) => {
  const bench = new Bench()
  const layer = bench.volume(1, 2)
  bench.map(layer, 7, bench.at(0, 0))
  bench.map(layer, 8, bench.at(0, 1))
  t.same(bench.owner(0), [layer, 2])
  bench.map(layer, 7, bench.at(1, 0))
  t.same(bench.freed, [[bench.at(0, 0), 1]])
  t.same(bench.owner(0), [layer, 1])
  bench.map(layer, 8, bench.at(1, 1))
  t.same(bench.owner(0), [noLayer, 0], 'a unit without a used slot belongs to nobody')
  t.equal(bench.state.units.unitCount(layer), 1)
  const other = bench.volume(3, 4)
  t.throws(() => bench.map(other, 0, bench.at(1, 2)), AssertionError, 'a unit of another layer')
})

t.test('HOLE: own slots become free, and a hole only where a parent may show through', async (t) => {
  const bench = new Bench()
  const layer = bench.volume(1, 2)
  bench.map(layer, 7, bench.at(0, 0))
  bench.hole(layer, 0, 2 ** 40)
  t.equal(bench.state.maps.get(layer)!.size, 0)
  t.equal(bench.state.holes.size, 0, 'a root needs none')
  bench.map(layer, 7, bench.at(0, 1))
  const top = bench.snapshot(1, 3)
  bench.map(top, 8, bench.at(1, 0))
  bench.hole(top, 6, 3)
  t.same([...bench.state.holes.get(top)!], [{ block: 6, count: 3 }])
  const view = new ChainView(bench.state, top)
  t.equal(view.find(blockIndex(7)), undefined, 'the parent’s block is hidden')
  t.equal(new ChainView(bench.state, layer).find(blockIndex(7)), bench.at(0, 1))
  bench.map(top, 7, bench.at(1, 1))
  t.equal(view.find(blockIndex(7)), bench.at(1, 1), 'an own entry hides the hole')
  t.equal(view.nextMapped(blockIndex(0)), 7)
  t.equal(view.nextMapped(blockIndex(8)), undefined)
})

t.test('OWN: what the new layer says already is free, the rest is the new layer’s', async (t) => {
  const bench = new Bench()
  const old = bench.volume(1, 2)
  for (const [slot, block] of [10, 11, 12, 13].entries()) bench.map(old, block, bench.at(0, slot))
  const top = bench.snapshot(1, 3)
  bench.map(top, 11, bench.at(1, 0))
  bench.hole(top, 12, 1)
  bench.operate({ op: 'remove-snapshot', volume: volumeId(1), name: 's3' })
  const contents = Float64Array.from([10, 11, 12, 13, -1, -1, -1, -1])
  bench.state.contents.set(0 as never, contents)
  bench.freed.length = 0
  bench.apply(encodeOwn(bench.geometry.unitAt(0 as never), top))
  t.same(bench.freed, [
    [bench.at(0, 1), 1],
    [bench.at(0, 2), 1],
  ])
  t.same(bench.owner(0), [top, 2])
  t.equal(bench.state.maps.get(top)!.get(blockIndex(13)), bench.at(0, 3))
  t.equal(bench.state.maps.get(old)!.size, 0)
  bench.operate({ op: 'merged', layer: old, child: top })
  t.equal(bench.state.holes.has(top), false, 'a root needs no holes any more')
  t.equal(new ChainView(bench.state, top).find(blockIndex(12)), undefined)
})

t.test('OWN and merged: the holes of a layer that goes are its child’s', async (t) => {
  const bench = new Bench()
  const root = bench.volume(1, 2)
  for (const block of [10, 11, 12]) bench.map(root, block, bench.at(0, block - 10))
  const middle = bench.snapshot(1, 3)
  bench.hole(middle, 10, 2)
  const top = bench.snapshot(1, 4)
  bench.map(top, 11, bench.at(1, 0))
  bench.operate({ op: 'remove-snapshot', volume: volumeId(1), name: 's4' })
  bench.operate({ op: 'merged', layer: middle, child: top })
  const view = new ChainView(bench.state, top)
  t.equal(view.find(blockIndex(10)), undefined, 'still hidden')
  t.equal(view.find(blockIndex(11)), bench.at(1, 0))
  t.equal(view.find(blockIndex(12)), bench.at(0, 2))
})

t.test('RELEASE: every slot of the unit is free', async (t) => {
  const bench = new Bench()
  const layer = bench.volume(1, 2)
  bench.map(layer, 1, bench.at(0, 5))
  bench.operate({ op: 'remove-volume', volume: volumeId(1) })
  bench.apply(encodeRelease(bench.geometry.unitAt(0 as never)))
  t.same(bench.freed, [[bench.at(0, 0), 8]])
  t.same(bench.owner(0), [noLayer, 0])
  bench.operate({ op: 'dropped', layer })
  t.equal(bench.state.catalog.layers.size, 0)
})

t.test('changes are kept for the checkpoint that begins, and the next ones apart', async (t) => {
  const bench = new Bench()
  const layer = bench.volume(1, 2)
  bench.map(layer, 1, bench.at(0, 0))
  bench.map(layer, 2, bench.at(0, 1))
  const frozen = bench.state.freezeChanges()
  bench.map(layer, 3, bench.at(0, 2))
  bench.hole(layer, 1, 1)
  t.match(frozen.list(), [{ layer, whole: true, slots: [0, 1], blocks: [1, 2], used: 2 }])
  const blocks = new Float64Array(8).fill(-1)
  bench.state.unwritten.apply(0 as never, blocks)
  t.same([...blocks], [-1, 2, 3, -1, -1, -1, -1, -1], 'a reader sees both')
  bench.state.changesWritten()
  t.match(bench.state.unwritten.list(), [{ whole: false, slots: [2, 0], blocks: [3, -1], used: 2 }])
  bench.state.freezeChanges()
  bench.map(layer, 4, bench.at(0, 3))
  bench.state.changesNotWritten()
  t.match(bench.state.unwritten.list(), [{ whole: false, slots: [2, 0, 3], blocks: [3, -1, 4], used: 3 }])
})

t.test('records that do not come in order, or whose map is not here, are a broken invariant', async (t) => {
  const bench = new Bench()
  const layer = bench.volume(1, 2)
  const record = sealRecords([nativeRecords.hole(layer, blockIndex(0), 1)], logSequence(99), 1)
  t.throws(() => bench.state.apply(parseRecords(record)), AssertionError)
  bench.state.maps.clear()
  t.throws(() => bench.hole(layer, 0, 1), AssertionError)
})
