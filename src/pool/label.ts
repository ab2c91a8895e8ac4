import assert from 'node:assert/strict'
import {
  arePoolSizes,
  type DeviceLayout,
  type HeadLayout,
  isSaneLayout,
  type PoolSizes,
  pageBytes,
} from './geometry.js'
import { readLong } from './log-record.js'
import { pageChecksum, soundPageChecksum } from './unit-page.js'

/** What says of a device which pool it belongs to and where everything lies; FORMAT.md says where each byte is. */

export const LABEL_MAGIC = 'TMLB'
export const LABEL_VERSION = 1
export const LABEL_HEADER_BYTES = 120
export const poolIdBytes = 16

export const labelFields = {
  magic: { offset: 0, size: 4 },
  crc: { offset: 4, size: 4 },
  version: { offset: 8, size: 2 },
  headerLength: { offset: 10, size: 2 },
  writerVersion: { offset: 12, size: 4 },
  poolId: { offset: 16, size: 16 },
  device: { offset: 32, size: 8 },
  sizeBytes: { offset: 40, size: 8 },
  unitBytes: { offset: 48, size: 4 },
  blockBytes: { offset: 52, size: 4 },
  catalogOffset: { offset: 56, size: 8 },
  catalogBytes: { offset: 64, size: 8 },
  logOffset: { offset: 72, size: 8 },
  logRecords: { offset: 80, size: 8 },
  mapOffset: { offset: 88, size: 8 },
  mapPages: { offset: 96, size: 4 },
  unitCount: { offset: 100, size: 4 },
  pagesOffset: { offset: 104, size: 8 },
  firstUnit: { offset: 112, size: 8 },
} as const

/** 0xMMmmpp of the program, in everything that is written. */
export const writerVersion = 0x000100

export interface Label extends PoolSizes {
  readonly poolId: Buffer
  readonly layout: DeviceLayout
}

export function encodeLabel(label: Label): Buffer {
  const { layout } = label
  assert.equal(label.poolId.length, poolIdBytes)
  const bytes = Buffer.alloc(pageBytes)
  const f = labelFields
  bytes.write(LABEL_MAGIC, f.magic.offset, 'latin1')
  bytes.writeUInt16LE(LABEL_VERSION, f.version.offset)
  bytes.writeUInt16LE(LABEL_HEADER_BYTES, f.headerLength.offset)
  bytes.writeUInt32LE(writerVersion, f.writerVersion.offset)
  label.poolId.copy(bytes, f.poolId.offset)
  const longs: [{ offset: number }, number][] = [
    [f.device, layout.index],
    [f.sizeBytes, layout.sizeBytes],
    [f.catalogOffset, layout.head?.catalogOffset ?? 0],
    [f.catalogBytes, layout.head?.catalogBytes ?? 0],
    [f.logOffset, layout.head?.logOffset ?? 0],
    [f.logRecords, layout.head?.logRecords ?? 0],
    [f.mapOffset, layout.mapOffset],
    [f.pagesOffset, layout.pagesOffset],
    [f.firstUnit, layout.firstUnit],
  ]
  for (const [field, value] of longs) bytes.writeBigUInt64LE(BigInt(value), field.offset)
  bytes.writeUInt32LE(label.unitBytes, f.unitBytes.offset)
  bytes.writeUInt32LE(label.blockBytes, f.blockBytes.offset)
  bytes.writeUInt32LE(layout.mapPages, f.mapPages.offset)
  bytes.writeUInt32LE(layout.unitCount, f.unitCount.offset)
  bytes.writeUInt32LE(pageChecksum(bytes), f.crc.offset)
  return bytes
}

/** 'newer': written by a program that knows more; undefined: no label, a damaged one, or one that no writer writes. */
export function decodeLabel(bytes: Buffer): Label | 'newer' | undefined {
  const f = labelFields
  if (soundPageChecksum(bytes, LABEL_MAGIC) === undefined) return undefined
  if (bytes.readUInt16LE(f.version.offset) !== LABEL_VERSION) return 'newer'
  const long = (field: { offset: number }) => readLong(bytes, field.offset)
  const index = long(f.device)
  const head: HeadLayout = {
    catalogOffset: long(f.catalogOffset),
    catalogBytes: long(f.catalogBytes),
    logOffset: long(f.logOffset),
    logRecords: long(f.logRecords),
  }
  const label: Label = {
    poolId: Buffer.from(bytes.subarray(f.poolId.offset, f.poolId.offset + poolIdBytes)),
    unitBytes: bytes.readUInt32LE(f.unitBytes.offset),
    blockBytes: bytes.readUInt32LE(f.blockBytes.offset),
    layout: {
      index,
      sizeBytes: long(f.sizeBytes),
      head: index === 0 ? head : null,
      mapOffset: long(f.mapOffset),
      mapPages: bytes.readUInt32LE(f.mapPages.offset),
      pagesOffset: long(f.pagesOffset),
      firstUnit: long(f.firstUnit),
      unitCount: bytes.readUInt32LE(f.unitCount.offset),
    },
  }
  return arePoolSizes(label) && isSaneLayout(label, label.layout) ? label : undefined
}
