import { type LayerId, noLayer, pageBytes, type UnitIndex, unitsPerMapPage } from './geometry.js'
import { readWord } from './log-record.js'
import { pageChecksum } from './unit-page.js'

/** Owner, used slots and page checksum of each unit; FORMAT.md says where each byte is. */

export const MAP_PAGE_MAGIC = 'TMUM'
export const MAP_PAGE_VERSION = 1

export const mapPageFields = {
  magic: { offset: 0, size: 4 },
  crc: { offset: 4, size: 4 },
  version: { offset: 8, size: 2 },
  device: { offset: 10, size: 2 },
  number: { offset: 12, size: 4 },
} as const

export const mapEntryFields = {
  layer: { offset: 0, size: 4 },
  pageCrc: { offset: 4, size: 4 },
  used: { offset: 8, size: 2 },
  copies: { offset: 10, size: 2 },
} as const

export const mapPageHeaderBytes = 16
export const mapEntryBytes = 12

/** In `copies`, and of a map page in the catalog: which copy counts, and that the other one is older, not the same. */
export const copyFlags = { second: 1, otherIsOlder: 2 } as const

/** What a checkpoint says about every unit, by unit index. 12 bytes a unit. */
export class UnitMap {
  /** Owner; 0: the unit is free and the rest is 0 too. */
  layer: Uint32Array
  /** Slots in use. */
  used: Uint16Array
  pageCrc: Uint32Array
  /** Which copy of its page counts, 0 or 1. */
  copy: Uint8Array
  /** 1: the other copy is older; 0: it is the same. */
  older: Uint8Array

  constructor(unitCount: number) {
    this.layer = new Uint32Array(unitCount)
    this.used = new Uint16Array(unitCount)
    this.pageCrc = new Uint32Array(unitCount)
    this.copy = new Uint8Array(unitCount)
    this.older = new Uint8Array(unitCount)
  }

  get length(): number {
    return this.layer.length
  }

  /** More units, free, behind the others. */
  grow(unitCount: number): void {
    const { layer, used, pageCrc, copy, older } = new UnitMap(unitCount)
    layer.set(this.layer)
    used.set(this.used)
    pageCrc.set(this.pageCrc)
    copy.set(this.copy)
    older.set(this.older)
    Object.assign(this, { layer, used, pageCrc, copy, older })
  }

  /** A page that was just written: its other copy is older. */
  set(index: UnitIndex, layer: LayerId, used: number, pageCrc: number, copy: number): void {
    this.layer[index] = layer
    this.used[index] = used
    this.pageCrc[index] = pageCrc
    this.copy[index] = copy
    this.older[index] = layer === noLayer ? 0 : 1
  }

  /** The unit is free. */
  clear(index: UnitIndex): void {
    this.set(index, noLayer, 0, 0, 0)
  }
}

export function encodeCopies(copy: number, older: number): number {
  return (copy ? copyFlags.second : 0) | (older ? copyFlags.otherIsOlder : 0)
}

/** Which units a page covers: `count` of them from unit index `base` on. */
export interface MapPagePlace {
  readonly device: number
  /** On that device. */
  readonly number: number
  readonly base: number
  readonly count: number
  /** Of a unit. */
  readonly slots: number
}

export function encodeMapPage(map: UnitMap, { device, number, base, count }: MapPagePlace): Buffer {
  const f = mapPageFields
  const bytes = Buffer.alloc(pageBytes)
  bytes.write(MAP_PAGE_MAGIC, f.magic.offset, 'latin1')
  bytes.writeUInt16LE(MAP_PAGE_VERSION, f.version.offset)
  bytes.writeUInt16LE(device, f.device.offset)
  bytes.writeUInt32LE(number, f.number.offset)
  for (let entry = 0; entry < count; entry += 1) {
    const at = mapPageHeaderBytes + entry * mapEntryBytes
    bytes.writeUInt32LE(map.layer[base + entry]!, at + mapEntryFields.layer.offset)
    bytes.writeUInt32LE(map.pageCrc[base + entry]!, at + mapEntryFields.pageCrc.offset)
    bytes.writeUInt16LE(map.used[base + entry]!, at + mapEntryFields.used.offset)
    const copies = encodeCopies(map.copy[base + entry]!, map.older[base + entry]!)
    bytes.writeUInt16LE(copies, at + mapEntryFields.copies.offset)
  }
  bytes.writeUInt32LE(pageChecksum(bytes), f.crc.offset)
  return bytes
}

/**
 * Take over the entries of a page whose checksum was compared.
 *
 * @returns false when it is of another version or place, or says what no writer says; the map is then as before
 */
export function decodeMapPage(bytes: Buffer, map: UnitMap, place: MapPagePlace): boolean {
  const f = mapPageFields
  if (bytes.readUInt16LE(f.version.offset) !== MAP_PAGE_VERSION) return false
  if (bytes.readUInt16LE(f.device.offset) !== place.device || bytes.readUInt32LE(f.number.offset) !== place.number) {
    return false
  }
  for (let entry = 0; entry < unitsPerMapPage; entry += 1) {
    const at = mapPageHeaderBytes + entry * mapEntryBytes
    const used = bytes[at + 8]! | (bytes[at + 9]! << 8)
    const copies = bytes[at + 10]! | (bytes[at + 11]! << 8)
    const free = readWord(bytes, at) === 0
    if (copies > 3 || used > place.slots || free !== (used === 0) || (entry >= place.count && !free)) return false
  }
  for (let entry = 0; entry < place.count; entry += 1) {
    const at = mapPageHeaderBytes + entry * mapEntryBytes
    const index = place.base + entry
    map.layer[index] = readWord(bytes, at)
    map.pageCrc[index] = readWord(bytes, at + 4)
    map.used[index] = bytes[at + 8]! | (bytes[at + 9]! << 8)
    map.copy[index] = bytes[at + 10]! & copyFlags.second
    map.older[index] = (bytes[at + 10]! & copyFlags.otherIsOlder) >> 1
  }
  return true
}
