import { randomInt } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { crc32c } from '../../src/block/crc32c.js'
import { KiB } from '../../src/block/units.js'
import { layerId, layOutDevice, logSequence, pageBytes, unitIndex, unitNumber } from '../../src/pool/geometry.js'
import { decodeLabel, encodeLabel } from '../../src/pool/label.js'
import { decodeSuperblock, encodeSuperblock } from '../../src/pool/superblock.js'
import { decodeMapPage, encodeMapPage, MAP_PAGE_MAGIC, UnitMap } from '../../src/pool/unit-map.js'
import {
  applyChange,
  decodeUnitPage,
  encodeUnitPage,
  freeSlot,
  pageCrcOf,
  soundPageChecksum,
  UNIT_PAGE_MAGIC,
  usedSlots,
} from '../../src/pool/unit-page.js'
import { seededRandom, tiny } from '../fixtures/pool/pool-rig.js'

const seed = Number(process.env.SEED ?? randomInt(2 ** 31))
const poolId = Buffer.from('0123456789abcdef0123456789abcdef', 'hex')
const bytes16 = fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => Buffer.from(bytes))

/** Every bit of what has a meaning, and a few of what has none. */
function eachBit(page: Buffer, length: number, visit: (bit: number) => void): void {
  for (let bit = 0; bit < pageBytes * 8; bit += bit < length * 8 ? 1 : 97) {
    page[bit >> 3]! ^= 1 << (bit & 7)
    visit(bit)
    page[bit >> 3]! ^= 1 << (bit & 7)
  }
}

function resealed(page: Buffer, change: (page: Buffer) => void): Buffer {
  const changed = Buffer.from(page)
  change(changed)
  changed.writeUInt32LE(crc32c(changed.subarray(8)), 4)
  return changed
}

t.test('labels, superblocks and unit pages come out as they went in', async (t) => {
  t.comment(`seed ${seed}`)
  fc.assert(
    fc.property(
      bytes16,
      fc.integer({ min: 0, max: 63 }),
      fc.integer({ min: 2 ** 21, max: 2 ** 43 }),
      (poolId, device, size) => {
        const layout = layOutDevice(tiny, device, size * 4)
        const label = decodeLabel(encodeLabel({ ...tiny, poolId, layout }))
        return JSON.stringify(label) === JSON.stringify({ poolId, ...tiny, layout })
      },
    ),
    { seed },
  )
  const superblock = fc.record({
    poolId: bytes16,
    sequence: fc.maxSafeNat(),
    logSequence: fc.maxSafeNat().map(logSequence),
    bootId: bytes16,
    clean: fc.boolean(),
    devices: fc.integer({ min: 1, max: 64 }),
    catalogCrc: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    catalogLength: fc.nat(),
  })
  fc.assert(
    fc.property(superblock, (given) => {
      const decoded = decodeSuperblock(encodeSuperblock(given), given.poolId, given.sequence % 2)
      return JSON.stringify(decoded) === JSON.stringify(given)
    }),
    { seed },
  )
  const block = fc.oneof(fc.constant(freeSlot), fc.integer({ min: 0, max: 2 ** 50 }))
  fc.assert(
    fc.property(fc.array(block, { minLength: 8, maxLength: 504 }), fc.nat(), (blocks, unit) => {
      const page = { unit: unitNumber(unit), layer: layerId(7), checkpoint: unit, blocks: Float64Array.from(blocks) }
      const decoded = decodeUnitPage(encodeUnitPage(page), page.unit, blocks.length)
      return JSON.stringify(decoded) === JSON.stringify(page)
    }),
    { seed },
  )
})

t.test('a page with any one bit wrong, and one of zeros, is none', async (t) => {
  const layout = layOutDevice(tiny, 0, 2 ** 24)
  const label = encodeLabel({ ...tiny, poolId, layout })
  eachBit(label, 120, (bit) => {
    if (decodeLabel(label) !== undefined) t.fail(`bit ${bit} of a label`)
  })
  const fields = { clean: true, devices: 1, catalogCrc: 5, catalogLength: 900 }
  const numbers = { sequence: 8, logSequence: logSequence(9), bootId: Buffer.alloc(16, 3) }
  const superblock = encodeSuperblock({ poolId, ...numbers, ...fields })
  eachBit(superblock, 88, (bit) => {
    if (decodeSuperblock(superblock, poolId, 0) !== undefined) t.fail(`bit ${bit} of a superblock`)
  })
  const blocks = Float64Array.from({ length: 128 }, (_, slot) => slot)
  const page = encodeUnitPage({ unit: unitNumber(5), layer: layerId(6), checkpoint: 7, blocks })
  const crc = pageCrcOf(page)
  eachBit(page, 64 + 1024, (bit) => {
    if (soundPageChecksum(page, UNIT_PAGE_MAGIC) === crc) t.fail(`bit ${bit} of a unit page`)
  })
  const map = encodeMapPage(new UnitMap(10), { device: 0, number: 0, base: 0, count: 10, slots: 8 })
  const mapCrc = pageCrcOf(map)
  eachBit(map, pageBytes, (bit) => {
    if (soundPageChecksum(map, MAP_PAGE_MAGIC) === mapCrc) t.fail(`bit ${bit} of a unit map page`)
  })
  const zeros = Buffer.alloc(pageBytes)
  t.equal(decodeLabel(zeros), undefined)
  t.equal(decodeSuperblock(zeros, poolId, 0), undefined)
  for (const magic of [UNIT_PAGE_MAGIC, MAP_PAGE_MAGIC]) t.equal(soundPageChecksum(zeros, magic), undefined)
})

t.test(
  'labels and superblocks that are not this pool’s, not in their place, newer or senseless are told apart',
  async (t) => {
    const layout = layOutDevice(tiny, 0, 2 ** 24)
    const label = encodeLabel({ ...tiny, poolId, layout })
    t.equal(decodeLabel(resealed(label, (page) => page.writeUInt16LE(2, 8))), 'newer')
    const senseless: [number, number][] = [
      [48, 48 * KiB],
      [52, 2 * KiB],
      [96, 9],
      [100, 0],
      [56, 4096],
      [72, 5],
      [80, 5000],
      [104, 0],
      [112, 1],
      [40, 2 ** 20],
      [32, 64],
    ]
    for (const [offset, value] of senseless) {
      t.equal(
        decodeLabel(resealed(label, (page) => page.writeUInt32LE(value, offset))),
        undefined,
        `field at ${offset}`,
      )
    }
    const fields = { clean: true, devices: 1, catalogCrc: 5, catalogLength: 900 }
    const numbers = { sequence: 8, logSequence: logSequence(9), bootId: Buffer.alloc(16, 3) }
    const superblock = encodeSuperblock({ poolId, ...numbers, ...fields })
    t.type(decodeSuperblock(superblock, poolId, 0), 'object')
    t.equal(decodeSuperblock(superblock, poolId, 1), undefined)
    t.equal(decodeSuperblock(superblock, Buffer.alloc(16), 0), undefined)
    t.equal(
      decodeSuperblock(
        resealed(superblock, (page) => page.writeUInt32LE(1, 72)),
        poolId,
        0,
      ),
      undefined,
    )
    t.equal(
      decodeSuperblock(
        resealed(superblock, (page) => page.writeUInt16LE(2, 8)),
        poolId,
        0,
      ),
      'newer',
    )
  },
)

t.test('a unit map page comes out as it went in, on its place only', async (t) => {
  t.comment(`seed ${seed}`)
  const random = seededRandom(seed)
  const map = new UnitMap(1000)
  for (let index = 0; index < map.length; index += 1) {
    if (random(3)) map.set(unitIndex(index), layerId(1 + random(2 ** 31)), 1 + random(8), random(2 ** 31), random(2))
    if (random(2)) map.older[index] = 0
  }
  const read = new UnitMap(1000)
  for (const [number, base, count] of [
    [0, 0, 340],
    [1, 340, 340],
    [2, 680, 320],
  ] as const) {
    const place = { device: 3, number, base, count, slots: 8 }
    const page = encodeMapPage(map, place)
    t.ok(decodeMapPage(page, read, place))
    t.notOk(decodeMapPage(page, new UnitMap(1000), { ...place, device: 2 }))
    t.notOk(decodeMapPage(page, new UnitMap(1000), { ...place, number: number + 1 }))
    t.notOk(decodeMapPage(page, new UnitMap(1000), { ...place, slots: 7 }), 'more used slots than there are')
  }
  t.strictSame(read, map)
  const place = { device: 0, number: 0, base: 0, count: 2, slots: 8 }
  const page = encodeMapPage(map, { ...place, count: 3 })
  map.set(unitIndex(2), layerId(5), 1, 7, 0)
  t.notOk(decodeMapPage(encodeMapPage(map, { ...place, count: 3 }), new UnitMap(2), place), 'a unit that is not there')
  t.notOk(
    decodeMapPage(
      resealed(page, (bytes) => bytes.writeUInt16LE(4, 26)),
      new UnitMap(2),
      place,
    ),
    'a third copy',
  )
  t.notOk(
    decodeMapPage(
      resealed(page, (bytes) => bytes.fill(0, 16, 20)),
      new UnitMap(2),
      place,
    ) && map.used[0],
  )
})

t.test('a change is what it names, over the page or over nothing', async (t) => {
  const base = Float64Array.of(5, freeSlot, 7, 8)
  const change = { index: unitIndex(0), layer: layerId(1), slots: [0, 1], blocks: [freeSlot, 9], used: 0 }
  t.strictSame([...applyChange(base, { ...change, whole: false }, 4)], [freeSlot, 9, 7, 8])
  t.strictSame([...applyChange(base, { ...change, whole: true }, 4)], [freeSlot, 9, freeSlot, freeSlot])
  t.strictSame([...applyChange(null, { ...change, whole: false }, 4)], [freeSlot, 9, freeSlot, freeSlot])
  t.strictSame([...base], [5, freeSlot, 7, 8], 'the page is as before')
  t.equal(usedSlots(base), 3)
})
