import type { CountedPages } from './check-progress.js'
import type { DeviceFile } from './device-file.js'
import { type Geometry, noLayer, pageBytes, type UnitIndex } from './geometry.js'
import { type Damage, mapPageName, mapPageOffset, other, type Tree, unitPageOffset } from './tree-reader.js'
import { MAP_PAGE_MAGIC } from './unit-map.js'
import { decodeUnitPage, soundPageChecksum, UNIT_PAGE_MAGIC, usedSlots } from './unit-page.js'

/** What the unit pages of one checkpoint are like. */
export interface PageReport {
  /** No copy is what the unit map names; what an older copy had, if there is a sound one of this unit and layer. */
  readonly lost: Map<UnitIndex, Float64Array | null>
  /** The named copy is damaged, the other is the same. */
  readonly first: UnitIndex[]
  /** The other copy should be the same, and is not. */
  readonly second: UnitIndex[]
  /** Sound, but of another layer or with another count of used slots than the unit map says. */
  readonly misfit: UnitIndex[]
}

/** Pages of a copy read at once. */
const piecePages = 256

/** Read both copies of the page of every used unit. */
export async function examineUnitPages(
  devices: readonly DeviceFile[],
  geometry: Geometry,
  { units }: Tree,
  progress: CountedPages,
): Promise<PageReport> {
  const report: PageReport = { lost: new Map(), first: [], second: [], misfit: [] }
  for (const layout of geometry.devices) {
    const base = geometry.baseOf(layout.index)
    for (let from = 0; from < layout.unitCount; from += piecePages) {
      const count = Math.min(piecePages, layout.unitCount - from)
      progress.add(count)
      if (units.layer.subarray(base + from, base + from + count).every((layer) => layer === noLayer)) continue
      const device = devices[layout.index]!
      const read = (copy: 0 | 1) => device.read(unitPageOffset(layout, copy, from), count * pageBytes)
      const copies = [await read(0), await read(1)] as const
      for (let at = 0; at < count; at += 1) {
        const index = (base + from + at) as UnitIndex
        if (units.layer[index] === noLayer) continue
        const named = units.copy[index] as 0 | 1
        const page = (copy: 0 | 1) => copies[copy].subarray(at * pageBytes, (at + 1) * pageBytes)
        examineUnitPage(geometry, units, index, [page(named), page(other(named))], report)
      }
    }
  }
  return report
}

function examineUnitPage(
  geometry: Geometry,
  units: Tree['units'],
  index: UnitIndex,
  [first, second]: readonly [Buffer, Buffer],
  report: PageReport,
): void {
  const decode = (bytes: Buffer) => decodeUnitPage(bytes, geometry.unitAt(index), geometry.blocksPerUnit)
  const isNamed = (bytes: Buffer) => soundPageChecksum(bytes, UNIT_PAGE_MAGIC) === units.pageCrc[index]
  const firstIsNamed = isNamed(first)
  const secondIsNamed = isNamed(second)
  const page = firstIsNamed ? decode(first) : secondIsNamed ? decode(second) : undefined
  if (!page) {
    const older = [second, first].find((bytes) => soundPageChecksum(bytes, UNIT_PAGE_MAGIC) !== undefined)
    const hint = older && decode(older)
    report.lost.set(index, hint && hint.layer === units.layer[index] ? hint.blocks : null)
    return
  }
  if (!firstIsNamed) report.first.push(index)
  else if (!secondIsNamed && !units.older[index]) report.second.push(index)
  if (page.layer !== units.layer[index] || usedSlots(page.blocks) !== units.used[index]) report.misfit.push(index)
}

/** Copies of unit map pages that should be the same as the named ones and are not; they are named older from here on. */
export async function examineMapCopies(
  devices: readonly DeviceFile[],
  geometry: Geometry,
  { directory }: Tree,
): Promise<Damage[]> {
  const damage: Damage[] = []
  let entry = 0
  for (const layout of geometry.devices) {
    for (let number = 0; number < layout.mapPages; number += 1, entry += 1) {
      if (directory.older[entry]) continue
      const copy = other(directory.copy[entry] as 0 | 1)
      const page = await devices[layout.index]!.read(mapPageOffset(layout, copy, number), pageBytes)
      if (soundPageChecksum(page, MAP_PAGE_MAGIC) === directory.crc[entry]) continue
      damage.push({ where: mapPageName(layout, copy, number), what: 'it is damaged' })
      directory.older[entry] = 1
    }
  }
  return damage
}
