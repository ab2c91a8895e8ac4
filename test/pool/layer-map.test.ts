import assert from 'node:assert/strict'
import t from 'tap'
import { blockIndex, poolLocation } from '../../src/pool/geometry.js'
import { LayerMap } from '../../src/pool/layer-map.js'
import { newSeed, Random } from './model/random.js'

t.test('a layer map is a map from blocks to locations, in order', async (t) => {
  const seed = newSeed()
  t.comment(`seed ${seed}`)
  const random = new Random(seed)
  const map = new LayerMap()
  const model = new Map<number, number>()
  // Neighbours, and places far from each other.
  const block = () => random.pick([0, 4096 * 3, 2 ** 33]) + random.below(300)
  for (let step = 0; step < 20_000; step += 1) {
    const at = block()
    if (random.chance(0.6)) {
      const location = random.below(2 ** 30)
      assert.equal(map.set(blockIndex(at), poolLocation(location)), model.get(at), 'what was there before')
      model.set(at, location)
    } else {
      assert.equal(map.delete(blockIndex(at)), model.get(at))
      model.delete(at)
    }
    if (step % 500 !== 0) continue
    const sorted = [...model.keys()].sort((a, b) => a - b)
    assert.equal(map.size, model.size)
    const from = block()
    const next = sorted.find((candidate) => candidate >= from)
    assert.equal(map.nextMapped(blockIndex(from)), next)
    const to = from + random.pick([10, 1000, 2 ** 34])
    const seen: [number, number][] = []
    map.forEach(blockIndex(from), blockIndex(to), (found, location) => seen.push([found, location]))
    const expected = sorted.filter((candidate) => candidate >= from && candidate < to)
    assert.deepEqual(
      seen,
      expected.map((candidate) => [candidate, model.get(candidate)]),
    )
  }
  t.equal(map.get(blockIndex(77_777)), undefined)
})

t.test('entries may be taken out while they are visited', async (t) => {
  const map = new LayerMap()
  for (let block = 0; block < 1000; block += 1) map.set(blockIndex(block), poolLocation(block))
  let visited = 0
  map.forEach(blockIndex(10), blockIndex(990), (block) => {
    visited += 1
    map.delete(block)
  })
  t.equal(visited, 980)
  t.equal(map.size, 20)
  t.equal(map.nextMapped(blockIndex(10)), 990)
})
