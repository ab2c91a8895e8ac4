import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { crc32c } from '../block/crc32c.js'
import { writeDurably } from '../block/durable-file.js'
import { errnoOf, StorageError } from '../block/storage-error.js'
import { type RegionLayout, RegionMap } from './region-map.js'

/** A region record on disk; FORMAT.md in this folder says what each field means. Little-endian. */

export const REGION_MAGIC = 'TMRG'
export const REGION_VERSION = 1
export const REGION_HEADER_BYTES = 4096
/** One sector, so that a power cut leaves a page old or new. */
export const REGION_PAGE_BYTES = 512
/** Bytes of bits in a page. */
export const REGION_PAGE_BITS_BYTES = 496

export const regionHeaderFields = {
  magic: { offset: 0, size: 4 },
  version: { offset: 4, size: 2 },
  headerLength: { offset: 6, size: 2 },
  recordId: { offset: 8, size: 16 },
  regionBytes: { offset: 24, size: 8 },
  regionCount: { offset: 32, size: 8 },
  writerVersion: { offset: 40, size: 4 },
  crc: { offset: 44, size: 4 },
} as const

export const regionPageFields = {
  crc: { offset: 0, size: 4 },
  number: { offset: 4, size: 4 },
  zero: { offset: 8, size: 8 },
  bits: { offset: 16, size: 496 },
} as const

const writerVersion = 0x000100
const leastRegionBytes = 4096

/** A whole file: nothing in the current map, `map` as the previous one. */
export function encodeRegionFile(recordId: Buffer, map: RegionMap): Buffer {
  const h = regionHeaderFields
  const { bits, layout } = map
  const pages = Math.ceil(bits.length / REGION_PAGE_BITS_BYTES)
  const file = Buffer.alloc(REGION_HEADER_BYTES + 2 * pages * REGION_PAGE_BYTES)
  file.write(REGION_MAGIC, h.magic.offset, 'latin1')
  file.writeUInt16LE(REGION_VERSION, h.version.offset)
  file.writeUInt16LE(REGION_HEADER_BYTES, h.headerLength.offset)
  assert(recordId.length === h.recordId.size, 'a record id has 16 bytes')
  recordId.copy(file, h.recordId.offset)
  file.writeBigUInt64LE(BigInt(layout.regionBytes), h.regionBytes.offset)
  file.writeBigUInt64LE(BigInt(bits.length * 8), h.regionCount.offset)
  file.writeUInt32LE(writerVersion, h.writerVersion.offset)
  file.writeUInt32LE(crc32c(file.subarray(0, h.crc.offset)), h.crc.offset)
  const seed = crc32c(recordId)
  const p = regionPageFields
  for (let number = 0; number < 2 * pages; number++) {
    const page = file.subarray(REGION_HEADER_BYTES + number * REGION_PAGE_BYTES).subarray(0, REGION_PAGE_BYTES)
    page.writeUInt32LE(number, p.number.offset)
    if (number >= pages) page.set(pageBits(bits, number - pages), p.bits.offset)
    page.writeUInt32LE(crc32c(page.subarray(p.number.offset), seed), p.crc.offset)
  }
  return file
}

/**
 * The regions in either map. A page that cannot be believed counts as all set: more than need be, never less.
 *
 * @throws StorageError REGIONS_DAMAGED: the header is not that of this record, or of other volumes
 */
export function decodeRegionFile(
  file: Buffer,
  recordId: Buffer,
  volumeBytes: readonly number[],
  object: string,
): { map: RegionMap; damagedPages: number } {
  const h = regionHeaderFields
  const layout = readLayout(file, recordId, volumeBytes)
  const map = layout && new RegionMap(layout)
  if (!map || file.readBigUInt64LE(h.regionCount.offset) !== BigInt(map.bits.length * 8)) {
    throw new StorageError('REGIONS_DAMAGED', {
      op: 'read region record',
      object,
      hint: 'Its header is damaged, or that of another stream or version.',
    })
  }
  const pages = Math.ceil(map.bits.length / REGION_PAGE_BITS_BYTES)
  const seed = crc32c(recordId)
  const p = regionPageFields
  const all = Buffer.alloc(REGION_PAGE_BITS_BYTES, 0xff)
  let damagedPages = 0
  for (let number = 0; number < 2 * pages; number++) {
    const page = file.subarray(REGION_HEADER_BYTES + number * REGION_PAGE_BYTES).subarray(0, REGION_PAGE_BYTES)
    const sound =
      page.length === REGION_PAGE_BYTES &&
      page.readUInt32LE(p.number.offset) === number &&
      page.readUInt32LE(p.crc.offset) === crc32c(page.subarray(p.number.offset), seed)
    if (!sound) damagedPages += 1
    const from = sound ? page.subarray(p.bits.offset) : all
    const into = pageBits(map.bits, number % pages)
    for (let at = 0; at < into.length; at++) into[at]! |= from[at]!
  }
  return { map, damagedPages }
}

function readLayout(file: Buffer, recordId: Buffer, volumeBytes: readonly number[]): RegionLayout | undefined {
  const h = regionHeaderFields
  if (file.length < REGION_HEADER_BYTES || file.toString('latin1', 0, 4) !== REGION_MAGIC) return undefined
  if (file.readUInt32LE(h.crc.offset) !== crc32c(file.subarray(0, h.crc.offset))) return undefined
  if (file.readUInt16LE(h.version.offset) !== REGION_VERSION) return undefined
  if (file.readUInt16LE(h.headerLength.offset) !== REGION_HEADER_BYTES) return undefined
  if (!file.subarray(h.recordId.offset, h.recordId.offset + h.recordId.size).equals(recordId)) return undefined
  const regionBytes = Number(file.readBigUInt64LE(h.regionBytes.offset))
  // Less would be a map of any size.
  if (!isRegionSize(regionBytes)) return undefined
  return { regionBytes, volumeBytes }
}

/** A power of two from 4 KiB on. */
function isRegionSize(bytes: number): boolean {
  return Number.isSafeInteger(bytes) && bytes >= leastRegionBytes && Number.isInteger(Math.log2(bytes))
}

function pageBits(bits: Uint8Array, page: number): Uint8Array {
  return bits.subarray(page * REGION_PAGE_BITS_BYTES, (page + 1) * REGION_PAGE_BITS_BYTES)
}

/** Durable when it resolves, in place of what was there. @throws StorageError REGIONS_UNWRITABLE */
export async function writeRegionFile(path: string, recordId: Buffer, map: RegionMap): Promise<void> {
  try {
    await writeDurably(path, encodeRegionFile(recordId, map))
  } catch (cause) {
    throw new StorageError('REGIONS_UNWRITABLE', {
      op: 'write region record',
      object: path,
      cause,
      retry: 'later',
      hint: 'Check the disk of the buffer directory, and that it has room.',
    })
  }
}

/**
 * @returns undefined when there is no file
 * @throws StorageError REGIONS_DAMAGED, REGIONS_UNREADABLE
 */
export async function readRegionFile(
  path: string,
  recordId: Buffer,
  volumeBytes: readonly number[],
): Promise<{ map: RegionMap; damagedPages: number } | undefined> {
  let file: Buffer
  try {
    file = await readFile(path)
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return undefined
    throw new StorageError('REGIONS_UNREADABLE', {
      op: 'read region record',
      object: path,
      cause,
      retry: 'later',
      hint: 'Check the disk of the buffer directory.',
    })
  }
  return decodeRegionFile(file, recordId, volumeBytes, path)
}
