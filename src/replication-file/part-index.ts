import assert from 'node:assert/strict'
import { crc32c } from '../block/crc32c.js'
import { isName } from '../block/names.js'
import { lsn, sectorBytes, type VolumeIndex, volumeIndex } from '../block/units.js'
import {
  FRAME_COUNT_LIMIT,
  FRAME_TARGET_BYTES,
  MARKER_PAYLOAD_LIMIT,
  PART_RAW_LIMIT,
  PART_RECORD_LIMIT,
  RECORD_PAYLOAD_LIMIT,
} from './limits.js'
import { ENCODING_LZ4, ENCODING_STORED } from './lz4.js'
import type { PartRecord } from './part.js'
import {
  RANGE_DIGEST_BYTES,
  RANGE_HEADER_BYTES,
  RANGE_SALT_BYTES,
  rangeBlockCount,
  readRangeDigest,
  writeRangeDigest,
} from './range-digest.js'

export const FRAME_ENTRY_BYTES = 12
export const RECORD_ENTRY_BYTES = 40
export const NO_VOLUME = 0xffff
/** Kinds that a version 1 does not have. */
export const DIGEST_SINCE_VERSION = 2
/** Two names of up to 63 characters and what parts them. */
const NAMES_LIMIT = 127

/** Record types; those of the journal have the journal's numbers. */
export const recordType = { write: 1, zero: 2, trim: 3, marker: 4, volume: 5, digest: 6 } as const
const kinds = ['write', 'zero', 'trim', 'marker', 'volume', 'digest'] as const

export interface FrameEntry {
  readonly encoding: number
  readonly storedLength: number
  readonly rawLength: number
}

/** A record as the index has it: its payload is still in the frames. */
export interface RecordEntry {
  readonly kind: PartRecord['kind']
  readonly volume: number
  readonly payloadCrc: number
  readonly offset: number
  readonly lengthBytes: number
  readonly lsn: bigint
  readonly timeNs: bigint
  readonly payloadBytes: number
  /** The frame its payload lies in, and where; -1 without payload. Not stored: payloads follow one another. */
  frame: number
  frameOffset: number
}

/** The bytes a record takes of PART_RAW_LIMIT: whoever fills parts adds these up. */
export function payloadLength(record: PartRecord): number {
  if (record.kind === 'write' || record.kind === 'marker') return record.payload.length
  if (record.kind === 'digest') return RANGE_HEADER_BYTES + record.digests.length
  return record.kind === 'volume' ? record.stream.length + 1 + record.name.length : 0
}

/** What a record has in the frames; of a volume, its names; of a digest, all but its place. */
export function payloadOf(record: PartRecord): Buffer | undefined {
  if (record.kind === 'write' || record.kind === 'marker') return record.payload
  if (record.kind === 'volume') return Buffer.from(`${record.stream}\0${record.name}`, 'latin1')
  return record.kind === 'digest' ? writeRangeDigest(record) : undefined
}

/** Payloads grouped into frames: none crosses from one to the next, none is empty. */
export function groupFrames(payloads: readonly (Buffer | undefined)[]): Buffer[][] {
  const frames: Buffer[][] = []
  let room = 0
  for (const payload of payloads) {
    if (!payload || payload.length === 0) continue
    if (payload.length > room) {
      frames.push([])
      room = Math.max(FRAME_TARGET_BYTES, payload.length)
    }
    frames.at(-1)!.push(payload)
    room -= payload.length
  }
  return frames
}

export function writeIndex(
  frames: readonly FrameEntry[],
  records: readonly PartRecord[],
  payloads: readonly (Buffer | undefined)[],
): Buffer {
  const bytes = Buffer.alloc(frames.length * FRAME_ENTRY_BYTES + records.length * RECORD_ENTRY_BYTES)
  // Its calls are a few instructions each; those of a Buffer are not, and an epoch may have tens of thousands of records.
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const setNumber = (at: number, value: number): void => {
    view.setUint32(at, value % 2 ** 32, true)
    view.setUint32(at + 4, value / 2 ** 32, true)
  }
  let at = 0
  for (const frame of frames) {
    view.setUint32(at, frame.storedLength, true)
    view.setUint32(at + 4, frame.rawLength, true)
    view.setUint8(at + 8, frame.encoding)
    at += FRAME_ENTRY_BYTES
  }
  for (let index = 0; index < records.length; index++) {
    const record = records[index]!
    const payload = payloads[index]
    const placed = record.kind === 'write' || record.kind === 'zero' || record.kind === 'trim'
    view.setUint8(at, recordType[record.kind])
    view.setUint16(at + 2, record.kind === 'marker' ? NO_VOLUME : record.volume, true)
    view.setUint32(at + 4, payload ? crc32c(payload) : 0, true)
    const isPlaced = placed || record.kind === 'digest'
    setNumber(at + 8, isPlaced ? record.offset : record.kind === 'volume' ? record.sizeBytes : 0)
    setNumber(at + 16, placed ? record.lengthBytes : payload!.length)
    if (record.kind !== 'volume' && record.kind !== 'digest') {
      view.setBigUint64(at + 24, record.lsn, true)
      view.setBigUint64(at + 32, record.timeNs, true)
    }
    at += RECORD_ENTRY_BYTES
  }
  return bytes
}

/** What the encoder is given must be encodable: a reader would refuse it, so it is a broken invariant here. */
export function assertRecord(record: PartRecord): void {
  if (record.kind === 'marker') {
    assert(record.payload.length <= MARKER_PAYLOAD_LIMIT, 'a marker is at most 64 KiB')
    return
  }
  assert(Number.isInteger(record.volume) && record.volume >= 0 && record.volume < NO_VOLUME, 'volume index')
  if (record.kind === 'volume') {
    assert(isName(record.stream) && isName(record.name), 'names of a volume record')
    assert(isExtent(0, record.sizeBytes), `volume size ${record.sizeBytes}`)
    return
  }
  if (!isExtent(record.offset, record.lengthBytes)) assert.fail(`extent ${record.offset}+${record.lengthBytes}`)
  if (record.kind === 'digest') {
    const { run, salt, digests, lengthBytes } = record
    assert(Number.isInteger(run) && run > 0 && run <= 0xffff_ffff, `run ${run}`)
    assert.equal(salt.length, RANGE_SALT_BYTES, 'salt')
    assert(digests.length === 0 || digests.length === rangeBlockCount(lengthBytes) * RANGE_DIGEST_BYTES, 'digests')
    assert(digests.length <= RECORD_PAYLOAD_LIMIT - RANGE_HEADER_BYTES, 'digests of one record')
    return
  }
  if (record.kind !== 'write') return
  assert.equal(record.payload.length, record.lengthBytes, 'payload length')
  assert(record.lengthBytes <= RECORD_PAYLOAD_LIMIT, 'a write is at most RECORD_PAYLOAD_LIMIT')
}

export interface PartIndex {
  readonly frames: readonly FrameEntry[]
  readonly records: readonly RecordEntry[]
}

export interface IndexPromise {
  readonly version: number
  readonly frameCount: number
  readonly recordCount: number
  readonly rawLength: number
  readonly dataLength: number
}

/** The counts of a header are within the limits of the format; checked before anything of that size is allocated. */
export function countsFault(promise: IndexPromise): string | undefined {
  if (promise.recordCount > PART_RECORD_LIMIT) return `${promise.recordCount} records`
  if (promise.frameCount > FRAME_COUNT_LIMIT) return `${promise.frameCount} frames`
  if (promise.rawLength > PART_RAW_LIMIT) return `${promise.rawLength} raw bytes`
  return undefined
}

/**
 * Parse an authenticated index. Every length is checked here, so that whoever decompresses trusts the frame table.
 *
 * @param damaged makes the error to throw from what is wrong
 */
export function parseIndex(bytes: Buffer, promise: IndexPromise, damaged: (fault: string) => Error): PartIndex {
  const frames: FrameEntry[] = []
  let at = 0
  let stored = 0
  let raw = 0
  for (let index = 0; index < promise.frameCount; index += 1, at += FRAME_ENTRY_BYTES) {
    const frame = {
      storedLength: bytes.readUInt32LE(at),
      rawLength: bytes.readUInt32LE(at + 4),
      encoding: bytes.readUInt8(at + 8),
    }
    const fault = frameFault(frame, bytes.readUIntLE(at + 9, 3))
    if (fault) throw damaged(`frame ${index}: ${fault}`)
    stored += frame.storedLength
    raw += frame.rawLength
    frames.push(frame)
  }
  if (stored !== promise.dataLength) throw damaged(`frames of ${stored} bytes, ${promise.dataLength} promised`)
  if (raw !== promise.rawLength) throw damaged(`frames hold ${raw} raw bytes, ${promise.rawLength} promised`)

  const records: RecordEntry[] = []
  let frame = -1
  let left = 0
  for (let index = 0; index < promise.recordCount; index += 1, at += RECORD_ENTRY_BYTES) {
    const entry = readRecord(bytes, at, promise.version)
    if (typeof entry === 'string') throw damaged(`record ${index}: ${entry}`)
    records.push(entry)
    if (entry.payloadBytes === 0) continue
    if (left === 0) {
      frame += 1
      left = frames[frame]?.rawLength ?? 0
    }
    if (entry.payloadBytes > left) throw damaged(`record ${index}: its payload does not fit its frame`)
    entry.frame = frame
    entry.frameOffset = frames[frame]!.rawLength - left
    left -= entry.payloadBytes
  }
  if (left !== 0 || frame !== frames.length - 1) throw damaged('frames hold bytes that belong to no record')
  return { frames, records }
}

function frameFault({ storedLength, rawLength, encoding }: FrameEntry, reserved: number): string | undefined {
  if (reserved !== 0) return 'reserved bytes are not zero'
  if (rawLength === 0 || rawLength > RECORD_PAYLOAD_LIMIT) return `raw length ${rawLength}`
  if (encoding === ENCODING_STORED) return storedLength === rawLength ? undefined : `stored length ${storedLength}`
  if (encoding !== ENCODING_LZ4) return `encoding ${encoding}`
  return storedLength >= 5 && storedLength < rawLength ? undefined : `stored length ${storedLength}`
}

function readRecord(bytes: Buffer, at: number, version: number): RecordEntry | string {
  const kind = kinds[bytes.readUInt8(at) - 1]
  const volume = bytes.readUInt16LE(at + 2)
  const payloadCrc = bytes.readUInt32LE(at + 4)
  const offset = readSafe(bytes, at + 8)
  const lengthBytes = readSafe(bytes, at + 16)
  const recordLsn = bytes.readBigUInt64LE(at + 24)
  const timeNs = bytes.readBigUInt64LE(at + 32)
  if (kind === undefined || (kind === 'digest' && version < DIGEST_SINCE_VERSION)) return `type ${bytes.readUInt8(at)}`
  if (bytes.readUInt8(at + 1) !== 0) return 'reserved byte is not zero'
  if ((volume === NO_VOLUME) !== (kind === 'marker')) return `volume ${volume} of a ${kind}`
  const hasPayload = kind === 'write' || kind === 'marker' || kind === 'volume' || kind === 'digest'
  const fault = extentFault(kind, offset, lengthBytes)
  if (fault) return `${fault}: offset ${offset}, length ${lengthBytes}`
  if (!hasPayload && payloadCrc !== 0) return 'checksum without payload'
  if ((kind === 'volume' || kind === 'digest') && (recordLsn !== 0n || timeNs !== 0n))
    return `a ${kind} has no LSN and no time`
  const payloadBytes = hasPayload ? lengthBytes : 0
  const lsn = recordLsn
  return { kind, volume, payloadCrc, offset, lengthBytes, lsn, timeNs, payloadBytes, frame: -1, frameOffset: 0 }
}

function extentFault(kind: PartRecord['kind'], offset: number, lengthBytes: number): string | undefined {
  switch (kind) {
    case 'write':
      return isExtent(offset, lengthBytes) && lengthBytes <= RECORD_PAYLOAD_LIMIT ? undefined : 'write'
    case 'zero':
    case 'trim':
      return isExtent(offset, lengthBytes) ? undefined : kind
    case 'marker':
      return offset === 0 && lengthBytes <= MARKER_PAYLOAD_LIMIT ? undefined : 'marker'
    case 'volume':
      return isExtent(0, offset) && lengthBytes > 0 && lengthBytes <= NAMES_LIMIT ? undefined : 'volume'
    case 'digest':
      return isExtent(offset, sectorBytes) && lengthBytes >= RANGE_HEADER_BYTES && lengthBytes <= RECORD_PAYLOAD_LIMIT
        ? undefined
        : 'digest'
  }
}

/** A 64-bit number, or Infinity, which no check lets pass, when it is beyond 2^53 - 1. */
function readSafe(bytes: Buffer, at: number): number {
  const high = bytes.readUInt32LE(at + 4)
  return high < 2 ** 21 ? high * 2 ** 32 + bytes.readUInt32LE(at) : Number.POSITIVE_INFINITY
}

/** @returns undefined when the payload of a volume record is not two names, or that of a digest none of a range */
export function toRecord(entry: RecordEntry, payload: Buffer): PartRecord | undefined {
  const { kind, offset, lengthBytes, timeNs } = entry
  const volume: VolumeIndex = volumeIndex(entry.volume)
  const position = lsn(entry.lsn)
  switch (kind) {
    case 'write':
      return { kind, volume, offset, lengthBytes, lsn: position, timeNs, payload }
    case 'zero':
    case 'trim':
      return { kind, volume, offset, lengthBytes, lsn: position, timeNs }
    case 'marker':
      return { kind, lsn: position, timeNs, payload }
    case 'volume': {
      const [stream, name, ...more] = payload.toString('latin1').split('\0')
      if (stream === undefined || name === undefined || more.length > 0) return undefined
      return isName(stream) && isName(name) ? { kind, volume, stream, name, sizeBytes: offset } : undefined
    }
    case 'digest': {
      const range = readRangeDigest(payload)
      return range && isExtent(offset, range.lengthBytes) ? { kind, volume, offset, ...range } : undefined
    }
  }
}

/** Whole sectors, not empty, and every byte of it at an address a number can hold. */
function isExtent(offset: number, lengthBytes: number): boolean {
  return (
    Number.isSafeInteger(offset) &&
    Number.isSafeInteger(lengthBytes) &&
    Number.isSafeInteger(offset + lengthBytes) &&
    offset >= 0 &&
    lengthBytes > 0 &&
    offset % sectorBytes === 0 &&
    lengthBytes % sectorBytes === 0
  )
}
