import { type CatalogImage, catalogChecksum, decodeCatalog } from './catalog-codec.js'
import type { DeviceFile } from './device-file.js'
import { type DeviceLayout, type Geometry, pageBytes, superblockOffsets, unitsPerMapPage } from './geometry.js'
import { decodeSuperblock, type Superblock } from './superblock.js'
import { decodeMapPage, MAP_PAGE_MAGIC, type MapPagePlace, UnitMap } from './unit-map.js'
import { soundPageChecksum } from './unit-page.js'

/** Something on the devices is not as it was written. */
export interface Damage {
  /** For people: `device 0, superblock A`. */
  readonly where: string
  readonly what: string
}

/** What one checkpoint says, but for the unit pages. */
export interface Tree extends CatalogImage {
  readonly superblock: Superblock
  readonly units: UnitMap
}

export const slotNames = ['A', 'B'] as const

/** The superblocks that can be read, the newest first. 'newer' when a later version of the format wrote one. */
export async function readSuperblocks(
  device: DeviceFile,
  poolId: Buffer,
  damage: Damage[],
): Promise<Superblock[] | 'newer'> {
  const found: Superblock[] = []
  for (const slot of [0, 1] as const) {
    const superblock = decodeSuperblock(await device.read(superblockOffsets[slot], pageBytes), poolId, slot)
    if (superblock === 'newer') return 'newer'
    if (superblock) found.push(superblock)
    else damage.push({ where: `device 0, superblock ${slotNames[slot]}`, what: 'it is damaged' })
  }
  return found.sort((a, b) => b.sequence - a.sequence)
}

/**
 * The catalog that a superblock names, or undefined: damaged, and `damage` says so.
 */
export async function readCatalog(
  device: DeviceFile,
  layout: DeviceLayout,
  superblock: Superblock,
  damage: Damage[],
): Promise<CatalogImage | 'newer' | undefined> {
  const slot = superblock.sequence % 2
  const where = `device 0, catalog ${slotNames[slot]}`
  const { head } = layout
  if (!head || superblock.catalogLength > head.catalogBytes) {
    damage.push({ where, what: 'it is longer than its place' })
    return undefined
  }
  const bytes = await device.read(head.catalogOffset + slot * head.catalogBytes, superblock.catalogLength)
  if (catalogChecksum(bytes) !== superblock.catalogCrc) {
    damage.push({ where, what: 'it is damaged' })
    return undefined
  }
  const image = decodeCatalog(bytes, superblock.poolId)
  if (image === undefined || (image !== 'newer' && image.sequence !== superblock.sequence)) {
    damage.push({ where, what: 'it says what no program writes' })
    return undefined
  }
  return image
}

/**
 * The unit map that a catalog names: the named copy of each page, or the other when that is the same. Then the catalog's
 * directory names that from here on, and the next checkpoint brings the damaged one up.
 *
 * @returns undefined when a page has no sound copy; `damage` says of every named copy that is not as it should be
 */
export async function readUnitMap(
  devices: readonly DeviceFile[],
  geometry: Geometry,
  image: CatalogImage,
  damage: Damage[],
): Promise<UnitMap | undefined> {
  const units = new UnitMap(geometry.unitCount)
  const { crc, copy, older } = image.directory
  let isWhole = crc.length === mapPageCount(geometry)
  if (!isWhole) damage.push({ where: 'device 0, catalog', what: 'it names too few or too many pages of the unit map' })
  let entry = 0
  for (const layout of isWhole ? geometry.devices : []) {
    for (let first = 0; first < layout.mapPages; first += piecePages) {
      const count = Math.min(piecePages, layout.mapPages - first)
      const pieces = await readPieces(devices[layout.index]!, layout, copy.subarray(entry, entry + count), first)
      for (let at = 0; at < count; at += 1, entry += 1) {
        const number = first + at
        const named = copy[entry] as 0 | 1
        const namedPage = pieces[named]!.subarray(at * pageBytes, (at + 1) * pageBytes)
        let page = namedPage
        if (soundPageChecksum(page, MAP_PAGE_MAGIC) !== crc[entry]) {
          damage.push({ where: mapPageName(layout, named, number), what: 'it is damaged' })
          page = await devices[layout.index]!.read(mapPageOffset(layout, other(named), number), pageBytes)
        }
        if (soundPageChecksum(page, MAP_PAGE_MAGIC) !== crc[entry]) {
          isWhole = false
          continue
        }
        if (page !== namedPage) {
          copy[entry] = other(named)
          older[entry] = 1
        }
        if (!decodeMapPage(page, units, mapPlace(geometry, layout, number))) {
          damage.push({ where: mapPageName(layout, named, number), what: 'it says what no program writes' })
          isWhole = false
        }
      }
    }
  }
  return isWhole ? units : undefined
}

/** Pages of the unit map read at once. */
const piecePages = 256

/** A run of pages from each copy that one of them is named in. */
async function readPieces(
  device: DeviceFile,
  layout: DeviceLayout,
  copies: Uint8Array,
  first: number,
): Promise<(Buffer | undefined)[]> {
  const pieces: (Buffer | undefined)[] = []
  for (const copy of [0, 1] as const) {
    if (!copies.includes(copy)) continue
    pieces[copy] = await device.read(mapPageOffset(layout, copy, first), copies.length * pageBytes)
  }
  return pieces
}

export function other(copy: 0 | 1): 0 | 1 {
  return copy === 0 ? 1 : 0
}

/** Of all devices. */
export function mapPageCount(geometry: Geometry): number {
  return geometry.devices.reduce((sum, device) => sum + device.mapPages, 0)
}

/** Which units a page of the unit map covers. */
export function mapPlace(geometry: Geometry, layout: DeviceLayout, number: number): MapPagePlace {
  const first = number * unitsPerMapPage
  return {
    device: layout.index,
    number,
    base: geometry.baseOf(layout.index) + first,
    count: Math.min(unitsPerMapPage, layout.unitCount - first),
    slots: geometry.blocksPerUnit,
  }
}

export function mapPageOffset(layout: DeviceLayout, copy: 0 | 1, number: number): number {
  return layout.mapOffset + (copy * layout.mapPages + number) * pageBytes
}

/** @param onDevice 0 is the device's first unit with data */
export function unitPageOffset(layout: DeviceLayout, copy: 0 | 1, onDevice: number): number {
  return layout.pagesOffset + (copy * layout.unitCount + onDevice) * pageBytes
}

export function mapPageName(layout: DeviceLayout, copy: 0 | 1, number: number): string {
  return `device ${layout.index}, unit map page ${number}${slotNames[copy]}`
}
