import assert from 'node:assert/strict'
import { endianness } from 'node:os'
import { crc32c } from '../block/crc32c.js'
import { type LayerId, pageBytes, type UnitIndex, type UnitNumber } from './geometry.js'
import { readLong, readWord } from './log-record.js'

/** What each slot of a unit maps; FORMAT.md says where each byte is. */

assert.equal(endianness(), 'LE', 'pools are written on little-endian machines only')

export const UNIT_PAGE_MAGIC = 'TMUP'
export const UNIT_PAGE_VERSION = 1

export const unitPageFields = {
  magic: { offset: 0, size: 4 },
  crc: { offset: 4, size: 4 },
  version: { offset: 8, size: 2 },
  slots: { offset: 10, size: 2 },
  layer: { offset: 12, size: 4 },
  unit: { offset: 16, size: 8 },
  checkpoint: { offset: 24, size: 8 },
} as const

export const unitPageHeaderBytes = 64
/** In `blocks`: the slot is free. */
export const freeSlot = -1

export interface UnitPage {
  readonly unit: UnitNumber
  readonly layer: LayerId
  /** Sequence of the checkpoint that wrote it. */
  readonly checkpoint: number
  /** For each slot the block of the layer that lies there, or freeSlot. */
  readonly blocks: Float64Array
}

/** What happened to a unit since the last checkpoint, as of the log sequence that the next one names. */
export interface UnitChange {
  readonly index: UnitIndex
  /** Its owner now; noLayer: nobody, then the rest does not count. */
  readonly layer: LayerId
  /** What its page on the devices says counts no more: slots not named here are free. */
  readonly whole: boolean
  /** Slots, each once, and beside them the block of the layer that lies there now, or freeSlot. */
  readonly slots: ArrayLike<number>
  readonly blocks: ArrayLike<number>
  /** Slots in use now: compared with what comes out. */
  readonly used: number
}

export function encodeUnitPage(page: UnitPage): Buffer {
  const bytes = Buffer.alloc(pageBytes)
  const f = unitPageFields
  bytes.write(UNIT_PAGE_MAGIC, f.magic.offset, 'latin1')
  bytes.writeUInt16LE(UNIT_PAGE_VERSION, f.version.offset)
  bytes.writeUInt16LE(page.blocks.length, f.slots.offset)
  bytes.writeUInt32LE(page.layer, f.layer.offset)
  bytes.writeBigUInt64LE(BigInt(page.unit), f.unit.offset)
  bytes.writeBigUInt64LE(BigInt(page.checkpoint), f.checkpoint.offset)
  // As words of memory, which are little-endian too: a checkpoint writes many slots. What exceeds a word is cut off by it.
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset + unitPageHeaderBytes, page.blocks.length * 2)
  for (let slot = 0; slot < page.blocks.length; slot += 1) {
    // 0 is a free slot, so that the rest of a page is zeros.
    const entry = page.blocks[slot]! + 1
    words[slot * 2] = entry
    words[slot * 2 + 1] = entry / 2 ** 32
  }
  bytes.writeUInt32LE(pageChecksum(bytes), f.crc.offset)
  return bytes
}

/** Of a page's bytes: what its crc field should be. The same for each kind of page. */
export function pageChecksum(page: Buffer): number {
  return crc32c(page.subarray(unitPageFields.version.offset))
}

/** Of what was just encoded: the checksum it carries. */
export function pageCrcOf(page: Buffer): number {
  return page.readUInt32LE(unitPageFields.crc.offset)
}

/** The checksum of a page that is what it says, or undefined: magic or crc are wrong. */
export function soundPageChecksum(page: Buffer, magic: string): number | undefined {
  if (page.toString('latin1', 0, 4) !== magic) return undefined
  const crc = page.readUInt32LE(unitPageFields.crc.offset)
  return crc === pageChecksum(page) ? crc : undefined
}

/**
 * A page whose checksum was compared. Undefined when it is of another version, another unit, or for another number of
 * slots.
 */
export function decodeUnitPage(bytes: Buffer, unit: UnitNumber, slots: number): UnitPage | undefined {
  const f = unitPageFields
  assert.equal(bytes.length, pageBytes)
  if (bytes.readUInt16LE(f.version.offset) !== UNIT_PAGE_VERSION) return undefined
  if (bytes.readUInt16LE(f.slots.offset) !== slots || readLong(bytes, f.unit.offset) !== unit) return undefined
  const blocks = new Float64Array(slots)
  for (let slot = 0; slot < slots; slot += 1) blocks[slot] = readLong(bytes, unitPageHeaderBytes + slot * 8) - 1
  const layer = readWord(bytes, f.layer.offset) as LayerId
  return { unit, layer, checkpoint: readLong(bytes, f.checkpoint.offset), blocks }
}

/** The page's blocks after the change. @param base what the page says so far; null: nothing, or nothing that counts */
export function applyChange(base: Float64Array | null, change: UnitChange, slots: number): Float64Array {
  const blocks = change.whole || base === null ? new Float64Array(slots).fill(freeSlot) : base.slice()
  for (let at = 0; at < change.slots.length; at += 1) blocks[change.slots[at]!] = change.blocks[at]!
  return blocks
}

export function usedSlots(blocks: Float64Array): number {
  let used = 0
  for (const block of blocks) if (block !== freeSlot) used += 1
  return used
}
