import assert from 'node:assert/strict'
import { crc32c } from '../block/crc32c.js'

/** The journal on disk; FORMAT.md in this folder says what each field means. Little-endian. */

export const SEGMENT_MAGIC = 'TMSG'
export const SEGMENT_VERSION = 1
export const SEGMENT_HEADER_BYTES = 4096
export const RECORD_MAGIC = 'TMJR'
export const RECORD_HEADER_BYTES = 64
export const MARKER_PAYLOAD_LIMIT_BYTES = 64 * 1024
/** The volume of records that belong to none. */
export const NO_VOLUME = 0xffff

export const recordType = { write: 1, zero: 2, trim: 3, marker: 4, pad: 5, void: 6 } as const
export type RecordTypeName = keyof typeof recordType

/** Offset and size of each field, as the table in FORMAT.md. */
export const segmentFields = {
  magic: { offset: 0, size: 4 },
  version: { offset: 4, size: 2 },
  headerLength: { offset: 6, size: 2 },
  baseLsn: { offset: 8, size: 8 },
  journalId: { offset: 16, size: 16 },
  segmentBytes: { offset: 32, size: 8 },
  writerVersion: { offset: 40, size: 4 },
  crc: { offset: 44, size: 4 },
} as const

export const recordFields = {
  magic: { offset: 0, size: 4 },
  type: { offset: 4, size: 1 },
  flags: { offset: 5, size: 1 },
  volume: { offset: 6, size: 2 },
  lsn: { offset: 8, size: 8 },
  offset: { offset: 16, size: 8 },
  length: { offset: 24, size: 8 },
  time: { offset: 32, size: 8 },
  payloadBytes: { offset: 40, size: 4 },
  incarnation: { offset: 44, size: 4 },
  headerCrc: { offset: 48, size: 4 },
  payloadCrc: { offset: 52, size: 4 },
  commit: { offset: 56, size: 4 },
} as const

export interface SegmentHeader {
  readonly version: number
  readonly headerLength: number
  readonly baseLsn: bigint
  readonly journalId: Buffer
  readonly segmentBytes: bigint
  readonly writerVersion: number
}

/** The header, or undefined when magic or checksum say that it is none. */
export function decodeSegmentHeader(bytes: Buffer): SegmentHeader | undefined {
  const f = segmentFields
  if (bytes.length < SEGMENT_HEADER_BYTES || bytes.toString('latin1', 0, 4) !== SEGMENT_MAGIC) return undefined
  if (bytes.readUInt32LE(f.crc.offset) !== crc32c(bytes.subarray(0, f.crc.offset))) return undefined
  return {
    version: bytes.readUInt16LE(f.version.offset),
    headerLength: bytes.readUInt16LE(f.headerLength.offset),
    baseLsn: bytes.readBigUInt64LE(f.baseLsn.offset),
    journalId: Buffer.from(bytes.subarray(f.journalId.offset, f.journalId.offset + f.journalId.size)),
    segmentBytes: bytes.readBigUInt64LE(f.segmentBytes.offset),
    writerVersion: bytes.readUInt32LE(f.writerVersion.offset),
  }
}

/** What the checksums of a journal's record headers begin with. */
export function checksumSeed(journalId: Uint8Array): number {
  assert(journalId.length === segmentFields.journalId.size, 'a journal id has 16 bytes')
  return crc32c(journalId)
}

/** Bytes a record takes in its segment. */
export function recordSpace(payloadBytes: number): number {
  return RECORD_HEADER_BYTES + Math.ceil(payloadBytes / 64) * 64
}

/** The place of the record that begins at or after this LSN: none begins in a segment's header. */
export function recordPlace(lsn: number, segmentBytes: number): number {
  return lsn % segmentBytes === 0 ? lsn + SEGMENT_HEADER_BYTES : lsn
}

/** Turn the reserved header in these 64 bytes into a complete VOID of the same length, time and incarnation. */
export function makeVoid(header: Buffer, seed: number): void {
  const f = recordFields
  header.writeUInt8(recordType.void, f.type.offset)
  header.writeUInt16LE(NO_VOLUME, f.volume.offset)
  header.fill(0, f.offset.offset, f.length.offset + f.length.size)
  header.writeUInt32LE(crc32c(header.subarray(0, f.headerCrc.offset), seed), f.headerCrc.offset)
  header.writeUInt32LE(0, f.payloadCrc.offset)
  header.writeUInt32LE(crc32c(header.subarray(0, f.commit.offset), seed), f.commit.offset)
}

export function recordTypeName(type: number): RecordTypeName | undefined {
  return recordTypeNames[type]
}

const recordTypeNames: readonly (RecordTypeName | undefined)[] = [
  undefined,
  'write',
  'zero',
  'trim',
  'marker',
  'pad',
  'void',
]
