import assert from 'node:assert/strict'
import { crc32c } from '../block/crc32c.js'
import {
  type BlockIndex,
  type LayerId,
  type Location,
  type LogSequence,
  logSequence,
  recordBytes,
  type UnitNumber,
} from './geometry.js'

/** The mapping log's records; FORMAT.md in this folder says what each field means. */

export const recordType = { map: 1, hole: 2, commit: 3, own: 4, release: 5, operation: 6 } as const

export const recordFields = {
  crc: { offset: 0, size: 4 },
  layer: { offset: 4, size: 4 },
  sequence: { offset: 8, size: 8 },
  subject: { offset: 16, size: 7 },
  type: { offset: 23, size: 1 },
  value: { offset: 24, size: 8 },
} as const

/** Bytes of an operation's text, at the most: the smallest log holds many. */
export const operationTextLimit = 4096

interface Recorded {
  readonly sequence: LogSequence
}

export type LogRecord =
  | (Recorded & {
      readonly kind: 'map'
      readonly layer: LayerId
      readonly block: BlockIndex
      readonly location: Location
    })
  | (Recorded & { readonly kind: 'hole'; readonly layer: LayerId; readonly block: BlockIndex; readonly count: number })
  /** The data of every record before `covered` are durable. */
  | (Recorded & { readonly kind: 'commit'; readonly covered: LogSequence })
  | (Recorded & { readonly kind: 'own'; readonly unit: UnitNumber; readonly layer: LayerId })
  | (Recorded & { readonly kind: 'release'; readonly unit: UnitNumber })
  /** `text` is JSON; `places` counts the record and its text: the next sequence is `sequence + places`. */
  | (Recorded & { readonly kind: 'operation'; readonly text: string; readonly places: number })

/** Places of the ring that a text of so many bytes takes, without its record. */
export function textPlaces(lengthBytes: number): number {
  return Math.ceil(lengthBytes / recordBytes)
}

/** The sequence of the record behind this one. */
export function sequenceAfter(record: LogRecord): LogSequence {
  return logSequence(record.sequence + (record.kind === 'operation' ? record.places : 1))
}

/**
 * A record with its text for NativePool.append() or freeze(): native fills in sequence and checksum.
 *
 * @param operation JSON of up to operationTextLimit bytes; more is a programming error
 */
export function encodeOperation(operation: unknown): Buffer {
  const text = Buffer.from(JSON.stringify(operation), 'utf8')
  assert(text.length > 0 && text.length <= operationTextLimit, `an operation of ${text.length} bytes`)
  const bytes = Buffer.alloc((1 + textPlaces(text.length)) * recordBytes)
  fillRecord(bytes, 0, recordType.operation, text.length, crc32c(text), 0)
  text.copy(bytes, recordBytes)
  return bytes
}

/** As above: the unit, with what it maps, belongs to this layer from here on. */
export function encodeOwn(unit: UnitNumber, layer: LayerId): Buffer {
  const bytes = Buffer.alloc(recordBytes)
  fillRecord(bytes, 0, recordType.own, layer, unit, 0)
  return bytes
}

/** As above: all slots of the unit are free. */
export function encodeRelease(unit: UnitNumber): Buffer {
  const bytes = Buffer.alloc(recordBytes)
  fillRecord(bytes, 0, recordType.release, 0, unit, 0)
  return bytes
}

/** Whole records as native writes them, sequence and checksum filled in: for tests, and for what has no native code. */
export function sealRecords(records: readonly Buffer[], first: LogSequence, seed: number): Buffer {
  const bytes = Buffer.concat(records)
  const checksum = new RecordChecksum(seed)
  for (let at = 0; at < bytes.length; ) {
    bytes.writeBigUInt64LE(BigInt(first + at / recordBytes), at + recordFields.sequence.offset)
    bytes.writeUInt32LE(checksum.of(bytes, at), at)
    const isOperation = bytes[at + recordFields.type.offset] === recordType.operation
    at += recordBytes * (1 + (isOperation ? textPlaces(bytes.readUInt32LE(at + recordFields.layer.offset)) : 0))
  }
  return bytes
}

/** MAP, HOLE and COMMIT are native's to append; this is what it writes, without sequence and checksum. */
export const nativeRecords = {
  map: (layer: LayerId, block: BlockIndex, location: Location): Buffer => {
    const bytes = Buffer.alloc(recordBytes)
    fillRecord(bytes, 0, recordType.map, layer, block, location)
    return bytes
  },
  hole: (layer: LayerId, block: BlockIndex, count: number): Buffer => {
    const bytes = Buffer.alloc(recordBytes)
    fillRecord(bytes, 0, recordType.hole, layer, block, count)
    return bytes
  },
  commit: (covered: LogSequence): Buffer => {
    const bytes = Buffer.alloc(recordBytes)
    fillRecord(bytes, 0, recordType.commit, 0, 0, covered)
    return bytes
  },
} as const

function fillRecord(bytes: Buffer, at: number, type: number, layer: number, subject: number, value: number): void {
  bytes.writeUInt32LE(layer, at + recordFields.layer.offset)
  bytes.writeUIntLE(subject % 2 ** 32, at + recordFields.subject.offset, 4)
  bytes.writeUIntLE(Math.floor(subject / 2 ** 32), at + recordFields.subject.offset + 4, 3)
  bytes.writeUInt8(type, at + recordFields.type.offset)
  bytes.writeBigUInt64LE(BigInt(value), at + recordFields.value.offset)
}

/**
 * Whole records in order, as NativePool.take() hands them over. They come from this process's memory: checksums of
 * records are not looked at again.
 */
export function parseRecords(bytes: Buffer): LogRecord[] {
  const records: LogRecord[] = []
  for (let at = 0; at < bytes.length; ) {
    const parsed = parseRecord(bytes, at)
    assert(parsed !== 'incomplete' && parsed !== undefined, 'native hands over whole records')
    records.push(parsed)
    at += (sequenceAfter(parsed) - parsed.sequence) * recordBytes
  }
  return records
}

/**
 * The record at a place, its checksum and sequence believed. Undefined when its type is unknown or its text is wrong;
 * 'incomplete' when its text goes on behind the bytes that are here.
 */
export function parseRecord(bytes: Buffer, at: number): LogRecord | 'incomplete' | undefined {
  const sequence = readLong(bytes, at + recordFields.sequence.offset) as LogSequence
  const layer = readWord(bytes, at + recordFields.layer.offset)
  const low = readWord(bytes, at + recordFields.subject.offset)
  const high = readWord(bytes, at + recordFields.subject.offset + 4)
  const subject = low + (high & 0xffffff) * 2 ** 32
  const value = readLong(bytes, at + recordFields.value.offset)
  switch (high >>> 24) {
    case recordType.map:
      return {
        kind: 'map',
        sequence,
        layer: layer as LayerId,
        block: subject as BlockIndex,
        location: value as Location,
      }
    case recordType.hole:
      return { kind: 'hole', sequence, layer: layer as LayerId, block: subject as BlockIndex, count: value }
    case recordType.commit:
      return { kind: 'commit', sequence, covered: value as LogSequence }
    case recordType.own:
      return { kind: 'own', sequence, unit: subject as UnitNumber, layer: layer as LayerId }
    case recordType.release:
      return { kind: 'release', sequence, unit: subject as UnitNumber }
    case recordType.operation: {
      if (layer === 0 || layer > operationTextLimit) return undefined
      const places = 1 + textPlaces(layer)
      if (at + places * recordBytes > bytes.length) return 'incomplete'
      const text = bytes.subarray(at + recordBytes, at + recordBytes + layer)
      if (crc32c(text) !== subject) return undefined
      return { kind: 'operation', sequence, text: text.toString('utf8'), places }
    }
    default:
      return undefined
  }
}

/** Without calls and allocations: a full log has half a million records. */
export function readWord(bytes: Buffer, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0
}

/** What exceeds a safe integer comes out as some number that is none; whoever uses it as a place checks its range. */
export function readLong(bytes: Buffer, at: number): number {
  return readWord(bytes, at) + readWord(bytes, at + 4) * 2 ** 32
}

/** CRC-32C of a record, beginning with the pool's seed; in plain JavaScript, because it is called for each record. */
export class RecordChecksum {
  readonly #start: number

  constructor(seed: number) {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32LE(seed)
    this.#start = crc32c(bytes)
  }

  /** What the record at this place should have as its checksum. */
  of(bytes: Buffer, at: number): number {
    let crc = ~this.#start
    for (let index = at + recordFields.layer.offset; index < at + recordBytes; index += 1) {
      crc = checksumTable[(crc ^ bytes[index]!) & 255]! ^ (crc >>> 8)
    }
    return ~crc >>> 0
  }

  matches(bytes: Buffer, at: number): boolean {
    return readWord(bytes, at + recordFields.crc.offset) === this.of(bytes, at)
  }
}

const checksumTable = Int32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
  return crc
})
