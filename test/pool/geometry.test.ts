import t from 'tap'
import { GiB, KiB, MiB } from '../../src/block/units.js'
import {
  type DeviceLayout,
  deviceBlocks,
  Geometry,
  isSaneLayout,
  labelOffsets,
  layOutDevice,
  pageBytes,
  poolLocation,
  recordBytes,
  superblockOffsets,
  unitIndex,
  unitNumber,
} from '../../src/pool/geometry.js'

const usual = { unitBytes: 8 * MiB, blockBytes: 64 * KiB }
const small = { unitBytes: 32 * KiB, blockBytes: 4 * KiB }

/** Every region of a device, in order: none overlaps the next. */
function regions(layout: DeviceLayout, unitBytes: number): [string, number, number][] {
  const { head, index } = layout
  const found: [string, number, number][] = labelOffsets.map((offset, at) => [
    `label ${at}`,
    offset,
    offset + pageBytes,
  ])
  if (head) {
    for (const offset of superblockOffsets) found.push([`superblock ${offset}`, offset, offset + pageBytes])
    for (const copy of [0, 1]) {
      const offset = head.catalogOffset + copy * head.catalogBytes
      found.push([`catalog ${copy}`, offset, offset + head.catalogBytes])
    }
    found.push(['log', head.logOffset, head.logOffset + head.logRecords * recordBytes])
  }
  for (const copy of [0, 1]) {
    const map = layout.mapOffset + copy * layout.mapPages * pageBytes
    found.push([`map ${copy}`, map, map + layout.mapPages * pageBytes])
    const pages = layout.pagesOffset + copy * layout.unitCount * pageBytes
    found.push([`pages ${copy}`, pages, pages + layout.unitCount * pageBytes])
  }
  found.push([`data ${index}`, layout.firstUnit * unitBytes, (layout.firstUnit + layout.unitCount) * unitBytes])
  return found.sort((a, b) => a[1] - b[1])
}

t.test('nothing overlaps on devices of any size, and little is lost', async (t) => {
  for (const sizes of [usual, small, { unitBytes: 256 * MiB, blockBytes: MiB }]) {
    for (const index of [0, 1]) {
      for (let size = 4 * MiB; size <= 2 ** 46; size = Math.ceil(size * 1.7) + 512) {
        let layout: DeviceLayout
        try {
          layout = layOutDevice(sizes, index, size)
        } catch {
          t.ok(size < 3 * sizes.unitBytes || size > deviceBlocks * sizes.blockBytes, `${size} is refused`)
          continue
        }
        t.ok(isSaneLayout(sizes, layout), `${size} on device ${index}`)
        const all = regions(layout, sizes.unitBytes)
        for (const [at, [, begin, end]] of all.entries()) {
          if (begin >= end || end > (all[at + 1]?.[1] ?? size)) t.fail(`${size}: ${JSON.stringify(all)}`)
        }
        if (size > 64 * MiB && sizes === usual) {
          t.ok(layout.unitCount * sizes.unitBytes > 0.85 * size - sizes.unitBytes, `${size} can be used`)
        }
      }
    }
  }
})

t.test('a pool of 64 MiB has seven units of 8 MiB', async (t) => {
  const layout = layOutDevice(usual, 0, 64 * MiB)
  t.match(layout, { firstUnit: 1, unitCount: 7, head: { catalogBytes: MiB, logRecords: (256 * KiB) / recordBytes } })
})

t.test('catalog and log grow with the pool up to 8 and 16 MiB', async (t) => {
  t.match(layOutDevice(small, 0, 4 * MiB).head, { catalogBytes: 64 * KiB, logRecords: 4096 })
  t.match(layOutDevice(usual, 0, 16 * 1024 * GiB).head, { catalogBytes: 8 * MiB, logRecords: 2 ** 19 })
})

t.test('sizes that make no sense are refused', async (t) => {
  t.throws(() => layOutDevice(usual, 0, 8 * MiB), { code: 'BAD_SIZE', hint: /needs 16\.0 MiB/ })
  t.throws(() => layOutDevice(small, 0, deviceBlocks * 4 * KiB + 4 * KiB), { code: 'BAD_SIZE', hint: /larger blocks/ })
  for (const [unitBytes, blockBytes] of [
    [8 * MiB, 2 * KiB],
    [8 * MiB, 2 * MiB],
    [8 * MiB, 65_000],
    [4 * 64 * KiB, 64 * KiB],
    [512 * 64 * KiB, 64 * KiB],
    [9 * 64 * KiB, 64 * KiB],
    [0, 64 * KiB],
    [Number.NaN, Number.NaN],
  ]) {
    t.throws(() => new Geometry({ unitBytes: unitBytes!, blockBytes: blockBytes! }, []), { code: 'BAD_POOL_OPTION' })
  }
  const large = layOutDevice({ unitBytes: MiB, blockBytes: 4 * KiB }, 0, 17 * 1024 * GiB)
  t.throws(() => new Geometry({ unitBytes: MiB, blockBytes: 4 * KiB }, [large]), {
    code: 'BAD_POOL_OPTION',
    hint: /larger units/,
  })
})

t.test('locations, units, slots and indices lead to each other on every device', async (t) => {
  const layouts = [GiB, 300 * MiB, 16 * MiB].map((size, index) => layOutDevice(usual, index, size))
  const geometry = new Geometry(usual, layouts)
  t.equal(
    geometry.unitCount,
    layouts.reduce((sum, layout) => sum + layout.unitCount, 0),
  )
  for (let index = 0; index < geometry.unitCount; index += 1) {
    const unit = geometry.unitAt(unitIndex(index))
    const device = geometry.deviceAt(unitIndex(index))
    t.equal(geometry.indexOf(unit), index)
    t.equal(geometry.deviceOf(unit), device)
    t.ok(geometry.hasUnit(unit))
    for (const slot of [0, 1, 127]) {
      const location = geometry.locationOf(unit, slot)
      t.equal(geometry.unitOf(location), unit)
      t.equal(geometry.slotOf(location), slot)
      t.equal(Number(BigInt(location) >> 34n), device)
      t.ok(geometry.hasLocation(location))
      const onDevice = (location % deviceBlocks) * usual.blockBytes
      t.equal(onDevice, (layouts[device]!.firstUnit + geometry.unitOnDevice(unit)) * usual.unitBytes + slot * 64 * KiB)
    }
  }
  for (const unit of [-1, 0, 0.5, 128, Number.NaN, 3 * (deviceBlocks / 128) + 1, 2 ** 60])
    t.notOk(geometry.hasUnit(unit))
  t.notOk(geometry.hasLocation(poolLocation(0)), 'metadata are no place for data')
  t.equal(geometry.describeUnit(unitNumber(deviceBlocks / 128 + 5)), 'device 1, unit 5')
})

t.test('a device that is added goes behind the others', async (t) => {
  const geometry = new Geometry(usual, [layOutDevice(usual, 0, GiB)])
  const before = geometry.unitCount
  geometry.addDevice(layOutDevice(usual, 1, GiB))
  t.equal(geometry.baseOf(1), before)
  t.equal(geometry.deviceAt(unitIndex(before)), 1)
  t.throws(() => geometry.addDevice(layOutDevice(usual, 1, GiB)), /in order/)
})
