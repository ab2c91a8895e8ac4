import assert from 'node:assert/strict'
import { StorageError } from '../block/storage-error.js'
import { epochNumber, lsn } from '../block/units.js'
import { ALGORITHM, TAG_BYTES } from './aead.js'
import type { PartHeader } from './part.js'

export const PART_MAGIC = 'TMRF'
/** The newest that is read. What is written is the oldest that says all there is to say. */
export const PART_VERSION = 2
export const PART_HEADER_BYTES = 256
export const FLAG_INITIALIZING = 1

/** Name and size of each field, in the order of the file. FORMAT.md tells the meaning; a test compares the two. */
const sizes = {
  magic: 4,
  version: 2,
  headerLength: 2,
  writerVersion: 4,
  algorithm: 1,
  flags: 1,
  indexEncoding: 1,
  reserved: 1,
  keyId: 16,
  pairingId: 16,
  streamId: 16,
  generation: 8,
  epoch: 8,
  part: 4,
  partCount: 4,
  previousTag: 16,
  firstLsn: 8,
  endLsn: 8,
  firstTimeNs: 8,
  lastTimeNs: 8,
  salt: 32,
  recordCount: 4,
  frameCount: 4,
  rawLength: 8,
  dataLength: 8,
  indexLength: 4,
  indexRawLength: 4,
  fileLength: 8,
  reserved2: 48,
}

type Field = keyof typeof sizes
export type PartHeaderLayout = Record<Field, { readonly offset: number; readonly size: number }>
export const partHeaderLayout = layOut()

/** What the encoder adds to the caller's header. */
export interface PartMeasure {
  readonly version: number
  readonly writerVersion: number
  readonly indexEncoding: number
  /** 16 bytes. */
  readonly keyId: Buffer
  readonly recordCount: number
  readonly frameCount: number
  /** Payload bytes of all frames, uncompressed. */
  readonly rawLength: number
  /** Bytes of all frames as they lie in the file. */
  readonly dataLength: number
  readonly indexLength: number
  readonly indexRawLength: number
}

export interface PeekedHeader extends PartHeader, PartMeasure {
  /** 32 bytes. */
  readonly salt: Buffer
  readonly fileLength: number
  readonly algorithm: number
  /** Bits and bytes that this version keeps zero are zero. */
  readonly reservedIsZero: boolean
}

/** Trailer: a tag for each frame and the index, then the part's own. */
export function trailerLength(frameCount: number): number {
  return TAG_BYTES * (frameCount + 2)
}

/** The bytes a file's key is bound to, beyond its salt: pairing, stream, generation, epoch, part and what came before. */
export function placeOf(header: Buffer): Buffer {
  return header.subarray(partHeaderLayout.pairingId.offset, partHeaderLayout.firstLsn.offset)
}

/** A header with a salt of zeros; the caller puts the salt in its place. */
export function writeHeader(header: PartHeader, measure: PartMeasure): Buffer {
  const bytes = Buffer.alloc(PART_HEADER_BYTES)
  const put = (field: Field, value: number | bigint | Buffer) => {
    const { offset, size } = partHeaderLayout[field]
    if (Buffer.isBuffer(value)) {
      assert.equal(value.length, size, field)
      value.copy(bytes, offset)
    } else if (size === 8) bytes.writeBigUInt64LE(BigInt(value), offset)
    else bytes.writeUIntLE(Number(value), offset, size)
  }
  put('magic', Buffer.from(PART_MAGIC))
  put('version', measure.version)
  put('headerLength', PART_HEADER_BYTES)
  put('writerVersion', measure.writerVersion)
  put('algorithm', ALGORITHM)
  put('flags', header.initializing ? FLAG_INITIALIZING : 0)
  put('indexEncoding', measure.indexEncoding)
  put('keyId', measure.keyId)
  put('pairingId', header.pairingId)
  put('streamId', header.streamId)
  put('generation', header.generation)
  put('epoch', header.epoch)
  put('part', header.part)
  put('partCount', header.partCount)
  put('previousTag', header.previousTag)
  put('firstLsn', header.firstLsn)
  put('endLsn', header.endLsn)
  put('firstTimeNs', header.firstTimeNs)
  put('lastTimeNs', header.lastTimeNs)
  put('recordCount', measure.recordCount)
  put('frameCount', measure.frameCount)
  put('rawLength', measure.rawLength)
  put('dataLength', measure.dataLength)
  put('indexLength', measure.indexLength)
  put('indexRawLength', measure.indexRawLength)
  put('fileLength', PART_HEADER_BYTES + measure.dataLength + measure.indexLength + trailerLength(measure.frameCount))
  return bytes
}

/**
 * Read a header **that nobody has authenticated**: good for finding the key, for listing and for printing, never for
 * deciding what is applied. decodePart() authenticates the same bytes. The first PART_HEADER_BYTES are enough.
 *
 * @throws StorageError NOT_A_REPLICATION_FILE, FORMAT_TOO_NEW; SEAL_BROKEN for numbers no writer can have written
 */
export function peekHeader(bytes: Buffer, name = 'replication file'): PeekedHeader {
  if (bytes.length < PART_HEADER_BYTES || bytes.toString('latin1', 0, 4) !== PART_MAGIC) {
    throw new StorageError('NOT_A_REPLICATION_FILE', {
      op: 'read replication file',
      object: name,
      cause: bytes.length < PART_HEADER_BYTES ? `only ${bytes.length} bytes` : 'another magic',
      hint: 'It is no replication file, or was cut short on the way. Remove it; a missing part is asked for again.',
    })
  }
  const number = (field: Field): number => {
    const { offset, size } = partHeaderLayout[field]
    if (size < 8) return bytes.readUIntLE(offset, size)
    const value = Number(bytes.readBigUInt64LE(offset))
    if (!Number.isSafeInteger(value)) throw sealBroken(name, `${field} is beyond 2^53`)
    return value
  }
  const big = (field: Field): bigint => bytes.readBigUInt64LE(partHeaderLayout[field].offset)
  const piece = (field: Field): Buffer => {
    const { offset, size } = partHeaderLayout[field]
    return Buffer.from(bytes.subarray(offset, offset + size))
  }
  if (number('version') > PART_VERSION) {
    throw new StorageError('FORMAT_TOO_NEW', {
      op: 'read replication file',
      object: name,
      cause: `format ${number('version')}, this agent reads up to ${PART_VERSION}`,
      retry: 'later',
      hint: 'A newer agent wrote it. Upgrade the agent of this site; the file is kept and read then.',
    })
  }
  if (number('version') === 0) throw sealBroken(name, 'format version 0')
  if (number('headerLength') !== PART_HEADER_BYTES) throw sealBroken(name, 'another header length')
  return {
    version: number('version'),
    pairingId: piece('pairingId'),
    streamId: piece('streamId'),
    generation: number('generation'),
    epoch: epochNumber(number('epoch')),
    part: number('part'),
    partCount: number('partCount'),
    previousTag: piece('previousTag'),
    firstLsn: lsn(big('firstLsn')),
    endLsn: lsn(big('endLsn')),
    firstTimeNs: big('firstTimeNs'),
    lastTimeNs: big('lastTimeNs'),
    initializing: (number('flags') & FLAG_INITIALIZING) !== 0,
    writerVersion: number('writerVersion'),
    indexEncoding: number('indexEncoding'),
    keyId: piece('keyId'),
    recordCount: number('recordCount'),
    frameCount: number('frameCount'),
    rawLength: number('rawLength'),
    dataLength: number('dataLength'),
    indexLength: number('indexLength'),
    indexRawLength: number('indexRawLength'),
    fileLength: number('fileLength'),
    salt: piece('salt'),
    algorithm: number('algorithm'),
    reservedIsZero:
      number('flags') <= FLAG_INITIALIZING &&
      number('reserved') === 0 &&
      piece('reserved2').every((byte) => byte === 0),
  }
}

export function sealBroken(name: string, cause: string): StorageError {
  return new StorageError('SEAL_BROKEN', {
    op: 'open replication file',
    object: name,
    cause,
    retry: 'after-arrival',
    hint: 'It was damaged, cut short or changed after the source sealed it. Nothing of it was used; it is asked for again.',
  })
}

function layOut(): PartHeaderLayout {
  let offset = 0
  const entries = Object.entries(sizes).map(([field, size]) => {
    const place = { offset, size }
    offset += size
    return [field, place]
  })
  assert.equal(offset, PART_HEADER_BYTES)
  return Object.fromEntries(entries) as PartHeaderLayout
}
