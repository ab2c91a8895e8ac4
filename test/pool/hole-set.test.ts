import assert from 'node:assert/strict'
import t from 'tap'
import { BlockSet } from '../../src/pool/block-set.js'
import { type BlockIndex, blockIndex } from '../../src/pool/geometry.js'
import { HoleSet } from '../../src/pool/hole-set.js'
import { newSeed, Random } from './model/random.js'

const blocks = 3000

t.test('holes and block sets are sets of blocks that know their extents', async (t) => {
  const seed = newSeed()
  t.comment(`seed ${seed}`)
  const random = new Random(seed)
  for (let round = 0; round < 40; round += 1) {
    const model = new Set<number>()
    const set = new BlockSet()
    let holes = new HoleSet()
    const offset = random.pick([0, 4095, 2 ** 33])
    for (let step = random.below(200); step > 0; step -= 1) {
      const first = random.below(blocks)
      const count = random.between(1, random.pick([1, 5, 400]))
      set.add(blockIndex(offset + first), count)
      if (random.chance(0.2)) {
        const other = new HoleSet()
        other.add(blockIndex(offset + first), count)
        holes.addAll(other)
      } else {
        holes.add(blockIndex(offset + first), count)
      }
      for (let at = first; at < first + count; at += 1) model.add(offset + at)
    }
    const expected = extentsOf(model)
    assert.deepEqual([...holes], expected)
    assert.deepEqual(set.extents(), expected)
    const again = HoleSet.fromExtents(holes.toExtents())
    assert.deepEqual([...again], expected)
    for (let step = 0; step < 50; step += 1) {
      const at = offset + random.below(blocks + 500)
      assert.equal(holes.has(blockIndex(at)), model.has(at))
      assert.equal(set.has(blockIndex(at)), model.has(at))
      let outside = at
      while (model.has(outside)) outside += 1
      assert.equal(holes.nextOutside(blockIndex(at)), outside)
    }
    const cut: number[] = []
    const [from, to] = [offset + 100, offset + 900]
    holes.forEach(blockIndex(from), blockIndex(to), (block, count) => {
      for (let at = block as number; at < block + count; at += 1) cut.push(at)
    })
    assert.deepEqual(
      cut,
      [...model].filter((at) => at >= from && at < to).sort((a, b) => a - b),
    )
    holes = HoleSet.fromExtents(holes.toExtents())
    const many = new HoleSet()
    for (let at = 0; at < 200; at += 1) many.add(blockIndex(offset + at * 10), 3)
    holes.addAll(many)
    for (const { block, count } of many) for (let at = 0; at < count; at += 1) model.add(block + at)
    assert.deepEqual([...holes], extentsOf(model), 'many joined with many')
    const [first, count] = [offset + random.below(blocks), random.pick([1, 100, 2 ** 30])]
    set.delete(blockIndex(first), count)
    assert.deepEqual(
      set.extents(),
      extentsOf(new Set(set.extents().flatMap((extent) => [...each(extent)]))),
      'extents are merged after something was taken out',
    )
    for (const at of model) {
      if (at >= first && at < first + count) assert(!set.has(blockIndex(at)))
    }
  }
  t.pass('in every round')
})

function* each({ block, count }: { block: number; count: number }): Generator<number> {
  for (let at = 0; at < count; at += 1) yield block + at
}

function extentsOf(model: ReadonlySet<number>): { block: BlockIndex; count: number }[] {
  const extents: { block: BlockIndex; count: number }[] = []
  for (const at of [...model].sort((a, b) => a - b)) {
    const last = extents.at(-1)
    if (last && last.block + last.count === at) last.count += 1
    else extents.push({ block: blockIndex(at), count: 1 })
  }
  return extents
}
