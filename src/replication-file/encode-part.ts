import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { seal, section, TAG_BYTES } from './aead.js'
import { deriveFileKey, drawSalt, keyId } from './keys.js'
import { PART_RAW_LIMIT, PART_RECORD_LIMIT, writerVersion } from './limits.js'
import { shrink } from './lz4.js'
import type { PartHeader, PartRecord } from './part.js'
import { partHeaderLayout, placeOf, writeHeader } from './part-header.js'
import { assertRecord, DIGEST_SINCE_VERSION, groupFrames, payloadOf, writeIndex } from './part-index.js'

export interface EncodedPart {
  /** The file: the beginning of the area it was given. */
  readonly bytes: Buffer
  /** 16 bytes: `previousTag` of the part that follows. */
  readonly tag: Buffer
  /** Payload bytes before and after compression. */
  readonly rawBytes: number
  readonly compressedBytes: number
}

/**
 * Seal the records of one part. Order is kept; a reader gets them as they were given.
 *
 * Payload is only read, and not needed once this returns. Synchronous, up to a tenth of a second for a full part: for workers.
 * Records beyond the limits (PART_RAW_LIMIT of payload, PART_RECORD_LIMIT, unaligned or empty extents) are
 * programming errors.
 *
 * @param area the file is made in, PART_FILE_LIMIT bytes; without one, in new memory
 */
export function encodePart(
  header: PartHeader,
  records: readonly PartRecord[],
  streamSecret: Buffer,
  area?: Buffer,
): EncodedPart {
  assertHeader(header)
  assert(records.length <= PART_RECORD_LIMIT, `${records.length} records in a part`)
  records.forEach(assertRecord)
  const payloads = records.map(payloadOf)
  const groups = groupFrames(payloads)
  const frames = groups.map((group) => {
    const raw = group.length === 1 ? group[0]! : Buffer.concat(group)
    return { ...shrink(raw), rawLength: raw.length }
  })
  const rawLength = frames.reduce((sum, frame) => sum + frame.rawLength, 0)
  const dataLength = frames.reduce((sum, frame) => sum + frame.stored.length, 0)
  assert(rawLength <= PART_RAW_LIMIT, `${rawLength} payload bytes in a part`)
  const entries = frames.map(({ encoding, stored, rawLength }) => ({
    encoding,
    storedLength: stored.length,
    rawLength,
  }))
  const rawIndex = writeIndex(entries, records, payloads)
  const index = shrink(rawIndex)
  const headerBytes = writeHeader(header, {
    version: records.some(({ kind }) => kind === 'digest') ? DIGEST_SINCE_VERSION : 1,
    writerVersion,
    indexEncoding: index.encoding,
    keyId: keyId(streamSecret),
    recordCount: records.length,
    frameCount: frames.length,
    rawLength,
    dataLength,
    indexLength: index.stored.length,
    indexRawLength: rawIndex.length,
  })
  const salt = drawSalt(streamSecret, randomBytes(32), [headerBytes, rawIndex])
  salt.copy(headerBytes, partHeaderLayout.salt.offset)
  const stored = frames.map((frame) => frame.stored)
  const sealed = sealPart(headerBytes, stored, index.stored, streamSecret, area)
  const { bytes, tag } = sealed
  return { bytes, tag, rawBytes: rawLength, compressedBytes: dataLength }
}

/** The sealing alone, of a header and sections that are ready. It checks nothing: tests seal nonsense with it. */
export function sealPart(
  header: Buffer,
  frames: readonly Buffer[],
  index: Buffer,
  streamSecret: Buffer,
  area?: Buffer,
): { bytes: Buffer; tag: Buffer } {
  const { offset, size } = partHeaderLayout.salt
  const key = deriveFileKey(streamSecret, header.subarray(offset, offset + size), placeOf(header))
  const sections = [...frames, index]
  const bodyBytes = sections.reduce((sum, plain) => sum + plain.length, 0)
  const tagBytes = sections.length * TAG_BYTES
  const bytes = area ?? Buffer.allocUnsafeSlow(header.length + bodyBytes + tagBytes + TAG_BYTES)
  header.copy(bytes)
  const tagsAt = header.length + bodyBytes
  let at = header.length
  sections.forEach((plain, number) => {
    const body = bytes.subarray(at, at + plain.length)
    const [place, count] = number < frames.length ? [section.frame, number] : [section.index, 0]
    seal(key, place, count, header, plain, body).tag.copy(bytes, tagsAt + number * TAG_BYTES)
    at += plain.length
  })
  const end = tagsAt + tagBytes
  const { tag } = seal(key, section.trailer, 0, Buffer.concat([header, bytes.subarray(tagsAt, end)]), Buffer.alloc(0))
  tag.copy(bytes, end)
  return { bytes: bytes.subarray(0, end + TAG_BYTES), tag }
}

function assertHeader(header: PartHeader): void {
  const { generation, epoch, part, partCount } = header
  assert(Number.isSafeInteger(generation) && generation > 0, `generation ${generation}`)
  assert(Number.isSafeInteger(epoch) && epoch > 0, `epoch ${epoch}`)
  assert(Number.isInteger(partCount) && partCount > 0 && partCount <= 0xffff_ffff, `part count ${partCount}`)
  assert(Number.isInteger(part) && part >= 0 && part < partCount, `part ${part} of ${partCount}`)
  assert(header.firstLsn <= header.endLsn, 'LSN range')
}
