import { randomInt } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { crc32c } from '../../src/block/crc32c.js'
import { applyOperation, emptyCatalog } from '../../src/pool/catalog.js'
import {
  type CatalogImage,
  catalogChecksum,
  catalogText,
  decodeCatalog,
  emptyDirectory,
  encodeCatalog,
  encodeHoles,
  holesBytes,
} from '../../src/pool/catalog-codec.js'
import { layerId } from '../../src/pool/geometry.js'
import { seededRandom } from '../fixtures/pool/pool-rig.js'
import { randomOperation } from '../fixtures/pool/random-operations.js'

const poolId = Buffer.from('0123456789abcdef0123456789abcdef', 'hex')

function sample(seed: number, operations = 60): CatalogImage {
  const random = seededRandom(seed)
  const catalog = emptyCatalog('pöol', '2024-05-01T12:00:00.000Z', [{ sizeBytes: 2 ** 40, path: '/dev/mapper/a "b"' }])
  for (let step = 0; step < operations; step += 1) applyOperation(catalog, randomOperation(catalog, random))
  const holes = new Map(
    [...catalog.layers.keys()].map((layer) => {
      const extents: number[] = []
      for (let block = random(3); extents.length < random(40); ) {
        const count = 1 + random(2 ** random(31))
        extents.push(block, count)
        block += count + 1 + random(2 ** random(31))
      }
      return [layer, Float64Array.from(extents)]
    }),
  )
  for (const [layer, extents] of holes) if (extents.length === 0) holes.delete(layer)
  const directory = emptyDirectory(random(50))
  for (let page = 0; page < directory.crc.length; page += 1) {
    directory.crc[page] = random(2 ** 31) * 2 + 1
    directory.copy[page] = random(2)
    directory.older[page] = random(2)
  }
  return { poolId, sequence: random(2 ** 31) * 2 ** 20, catalog, holes, directory }
}

/** A change of some bytes, its checksum right again. */
function resealed(bytes: Buffer, change: (bytes: Buffer) => void): Buffer {
  const changed = Buffer.from(bytes)
  change(changed)
  changed.writeUInt32LE(crc32c(changed.subarray(8)), 4)
  return changed
}

t.test('what goes in comes out', async (t) => {
  const seed = Number(process.env.SEED ?? randomInt(2 ** 31))
  t.comment(`seed ${seed}`)
  for (let round = 0; round < 60; round += 1) {
    const image = sample(seed + round)
    const bytes = encodeCatalog(image)
    t.equal(catalogChecksum(bytes), bytes.readUInt32LE(4))
    const decoded = decodeCatalog(bytes, poolId)
    if (typeof decoded !== 'object') return t.fail('it is not read')
    t.equal(catalogText(decoded.catalog), catalogText(image.catalog))
    t.strictSame(decoded.holes, new Map([...image.holes].sort(([a], [b]) => a - b)))
    t.strictSame(decoded.directory, image.directory)
    t.equal(decoded.sequence, image.sequence)
    t.ok(encodeCatalog(decoded).equals(bytes), 'and the same bytes again')
  }
})

t.test('holes take the bytes that are reckoned, two for small ones', async (t) => {
  t.equal(holesBytes(new Map([[layerId(1), Float64Array.of(0, 1, 2, 127, 200, 128)]])), 2 + 2 + 2 + 3)
  const extents = fc.array(fc.tuple(fc.integer({ min: 1, max: 2 ** 40 }), fc.integer({ min: 1, max: 2 ** 40 })), {
    maxLength: 50,
  })
  const seed = Number(process.env.SEED ?? randomInt(2 ** 31))
  t.comment(`seed ${seed}`)
  fc.assert(
    fc.property(fc.array(extents, { maxLength: 5 }), (layers) => {
      const holes = new Map(
        layers.map((gaps, index) => {
          let end = 0
          const flat = gaps.flatMap(([gap, count]) => {
            const start = end + gap
            end = start + count
            return [start, count]
          })
          return [layerId(index * 300 + 1), Float64Array.from(flat)]
        }),
      )
      return encodeHoles(holes).length === holesBytes(holes)
    }),
    { seed },
  )
})

t.test('a catalog that is damaged in any bit is noticed', async (t) => {
  const bytes = encodeCatalog(sample(3, 20))
  for (let bit = 0; bit < bytes.length * 8; bit += 1) {
    bytes[bit >> 3]! ^= 1 << (bit & 7)
    const crc = catalogChecksum(bytes)
    // The crc itself is compared with the superblock's.
    if (crc !== undefined) t.fail(`bit ${bit}`)
    bytes[bit >> 3]! ^= 1 << (bit & 7)
  }
  for (let length = 0; length < bytes.length; length += 1) {
    if (catalogChecksum(bytes.subarray(0, length)) !== undefined) t.fail(`${length} bytes`)
  }
})

t.test('a catalog that no program writes is rejected, whatever its checksum says', async (t) => {
  const image = sample(4)
  const bytes = encodeCatalog(image)
  const f = (change: (bytes: Buffer) => void) => decodeCatalog(resealed(bytes, change), poolId)
  t.type(
    f(() => {}),
    'object',
  )
  t.equal(
    f((b) => b.writeUInt16LE(2, 8)),
    'newer',
  )
  t.equal(
    f((b) => b.writeUInt8(b[20]! ^ 1, 20)),
    undefined,
    'of another pool',
  )
  t.equal(
    f((b) => b.writeUInt32LE(b.readUInt32LE(40) + 1, 40)),
    undefined,
    'parts that do not make up its length',
  )
  t.equal(
    f((b) => b.write('[', 64, 'latin1')),
    undefined,
    'no JSON',
  )
  const text = catalogText(image.catalog)
  for (const [good, bad] of [
    ['"nextId":', '"nextIe":'],
    ['"name":"p', '"nbme":"p'],
    ['"hidden":', '"hiddem":'],
    ['"role":"', '"rolf":"'],
    ['"layers":[[', '"layers":[{'],
    ['"sizeBytes":1', '"sizeBytes":-'],
  ] as const) {
    t.ok(text.includes(good), good)
    const place = 64 + Buffer.byteLength(text.slice(0, text.indexOf(good)))
    t.equal(
      f((b) => b.write(bad, place, 'utf8')),
      undefined,
      bad,
    )
  }
})

t.test('any bytes at all where a catalog should be are rejected or read, and nothing else', async (t) => {
  const seed = Number(process.env.SEED ?? randomInt(2 ** 31))
  t.comment(`seed ${seed}`)
  const random = seededRandom(seed)
  const bytes = encodeCatalog(sample(5))
  for (let round = 0; round < 2000; round += 1) {
    const changed = resealed(bytes, (b) => {
      for (let count = 1 + random(4); count > 0; count -= 1) b[8 + random(b.length - 8)] = random(256)
    })
    const decoded = decodeCatalog(changed, poolId)
    if (decoded !== undefined && decoded !== 'newer' && typeof decoded.catalog.nextId !== 'number') t.fail('half read')
  }
})
