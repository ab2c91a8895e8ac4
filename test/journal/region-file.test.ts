import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import t from 'tap'
import { crc32c } from '../../src/block/crc32c.js'
import { MiB } from '../../src/block/units.js'
import {
  decodeRegionFile,
  encodeRegionFile,
  REGION_HEADER_BYTES,
  REGION_PAGE_BYTES,
  readRegionFile,
  regionHeaderFields,
  regionPageFields,
  writeRegionFile,
} from '../../src/journal/region-file.js'
import { type RegionLayout, RegionMap } from '../../src/journal/region-map.js'
import { repositoryRoot, scratchFolder } from '../fixtures/paths.js'

const recordId = Buffer.from('00112233445566778899aabbccddeeff', 'hex')
const layout: RegionLayout = { regionBytes: MiB, volumeBytes: [100 * MiB, 3 * MiB + 512, 5000 * MiB] }
const goldenFile = join(repositoryRoot, 'test/fixtures/journal/golden-v1.regions.gz')

function sample(): RegionMap {
  const map = new RegionMap(layout)
  map.add(0, 0, 1)
  map.add(1, 3 * MiB, 512)
  map.add(2, 70 * MiB - 1, 2)
  map.add(2, 4999 * MiB, MiB)
  return map
}

t.test('the tables of FORMAT.md are those of the code', async (t) => {
  const text = readFileSync(join(repositoryRoot, 'src/journal/FORMAT.md'), 'utf8')
  const section = text.slice(text.indexOf('# The region record on disk'))
  const rows = [...section.matchAll(/^\| (\d+) \| (\d+) \| (\w+) \|/gm)].map(([, offset, size, field]) => ({
    field,
    offset: Number(offset),
    size: Number(size),
  }))
  const fields = (all: typeof regionHeaderFields | typeof regionPageFields) =>
    Object.entries(all).map(([field, place]) => ({ field, ...place }))
  t.strictSame(rows, [...fields(regionHeaderFields), ...fields(regionPageFields)])
})

t.test('the golden file is read as it always was', async (t) => {
  const golden = gunzipSync(readFileSync(goldenFile))
  const { map, damagedPages } = decodeRegionFile(golden, recordId, layout.volumeBytes, 'golden')
  t.equal(damagedPages, 0)
  t.strictSame([...map.runs()], [...sample().runs()])
  t.same(encodeRegionFile(recordId, sample()), golden, 'and written so')
})

t.test('a map is a set of runs that end with their volumes', async (t) => {
  t.strictSame(
    [...sample().runs()],
    [
      { volume: 0, offset: 0, lengthBytes: MiB },
      { volume: 1, offset: 3 * MiB, lengthBytes: 512 },
      { volume: 2, offset: 69 * MiB, lengthBytes: 2 * MiB },
      { volume: 2, offset: 4999 * MiB, lengthBytes: MiB },
    ],
  )
  t.equal(sample().bytes(), 4 * MiB + 512)
  t.equal(sample().bytes({ volume: 2, offset: 70 * MiB }), 2 * MiB + 512)
  t.equal(RegionMap.whole(layout).bytes(), 5103 * MiB + 512)
  t.strictSame(sample().next(2, 69 * MiB + 4096), { volume: 2, offset: 69 * MiB + 4096, lengthBytes: 2 * MiB - 4096 })
})

t.test('a map of other regions is added as a whole', async (t) => {
  const coarse = new RegionMap({ ...layout, regionBytes: 4 * MiB })
  coarse.addAll(sample())
  t.strictSame(
    [...coarse.runs()].map(({ volume, offset, lengthBytes }) => [volume, offset / MiB, lengthBytes / MiB]),
    [
      [0, 0, 4],
      [1, 0, 3 + 512 / MiB],
      [2, 68, 4],
      [2, 4996, 4],
    ],
  )
})

t.test('a damaged page counts as all its regions, a damaged or foreign header as nothing', async (t) => {
  const whole = encodeRegionFile(recordId, sample())
  const read = (file: Buffer) => decodeRegionFile(file, recordId, layout.volumeBytes, 'x')
  const damaged = Buffer.from(whole)
  damaged[REGION_HEADER_BYTES + 3 * REGION_PAGE_BYTES + 40]! ^= 1
  const found = read(damaged)
  t.equal(found.damagedPages, 1)
  // Bits 3968 to 5191 are regions 3776 to 4999 of volume 2; the last of them was set before.
  t.equal(found.map.bytes(), sample().bytes() + 1223 * MiB)
  const swapped = Buffer.from(whole)
  whole.copy(
    swapped,
    REGION_HEADER_BYTES + REGION_PAGE_BYTES,
    REGION_HEADER_BYTES,
    REGION_HEADER_BYTES + REGION_PAGE_BYTES,
  )
  t.equal(read(swapped).damagedPages, 1, 'a page in the place of another')
  t.equal(read(whole.subarray(0, whole.length - 1)).damagedPages, 1, 'a file that is too short')
  for (let at = 0; at < 48; at++) {
    const broken = Buffer.from(whole)
    broken[at]! ^= 16
    t.throws(() => read(broken), { code: 'REGIONS_DAMAGED' }, `byte ${at}`)
  }
  t.throws(() => decodeRegionFile(whole, Buffer.alloc(16), layout.volumeBytes, 'x'), { code: 'REGIONS_DAMAGED' })
  t.throws(() => decodeRegionFile(whole, recordId, [100 * MiB], 'x'), { code: 'REGIONS_DAMAGED' })
})

t.test(
  'a header with a right checksum and no size of regions is refused, however large a map it would make',
  async (t) => {
    for (const regionBytes of [0n, 1n, 512n, 4097n, 3n * 2n ** 20n, 2n ** 63n]) {
      const file = encodeRegionFile(recordId, sample())
      file.writeBigUInt64LE(regionBytes, regionHeaderFields.regionBytes.offset)
      file.writeUInt32LE(crc32c(file.subarray(0, regionHeaderFields.crc.offset)), regionHeaderFields.crc.offset)
      t.throws(
        () => decodeRegionFile(file, recordId, layout.volumeBytes, 'x'),
        { code: 'REGIONS_DAMAGED' },
        `${regionBytes}`,
      )
    }
  },
)

t.test('a file that is not there is told from one that is damaged', async (t) => {
  const path = join(scratchFolder(t, 'regions'), 'regions')
  t.equal(await readRegionFile(path, recordId, layout.volumeBytes), undefined)
  await writeRegionFile(path, recordId, sample())
  t.equal((await readRegionFile(path, recordId, layout.volumeBytes))?.map.bytes(), sample().bytes())
  writeFileSync(path, '')
  await t.rejects(readRegionFile(path, recordId, layout.volumeBytes), { code: 'REGIONS_DAMAGED' })
})
