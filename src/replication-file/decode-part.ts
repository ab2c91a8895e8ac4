import { crc32c } from '../block/crc32c.js'
import { StorageError } from '../block/storage-error.js'
import { ALGORITHM, open, section, TAG_BYTES } from './aead.js'
import { deriveFileKey, keyId } from './keys.js'
import { PART_FILE_LIMIT } from './limits.js'
import { expand } from './lz4.js'
import type { PartHeader, PartPlace, PartRecord } from './part.js'
import { PART_HEADER_BYTES, type PeekedHeader, peekHeader, placeOf, sealBroken, trailerLength } from './part-header.js'
import { countsFault, FRAME_ENTRY_BYTES, parseIndex, RECORD_ENTRY_BYTES, toRecord } from './part-index.js'

export interface DecodedPart {
  /** Authenticated. */
  readonly header: PartHeader & Omit<PeekedHeader, keyof PartHeader>
  /** Payloads are pieces of the decompressed frames: keeping one keeps its frame. */
  readonly records: PartRecord[]
  /** 16 bytes: what the next part must carry as `previousTag`. */
  readonly tag: Buffer
}

export interface DecodeOptions {
  /** For messages. */
  readonly name?: string
  /** Where the part must belong; whatever is given is compared. */
  readonly expected?: Partial<PartPlace>
}

/**
 * Open a part: all of it or nothing.
 *
 * Order matters, since a share is hostile: 1. lengths add up to the bytes in hand, 2. the trailer authenticates header
 * and tags, 3. the place is the expected one, 4. the index is opened and parsed, 5. each frame is opened, 6. and only
 * then decompressed, to a length known from 4. A wrong order would let an outsider's bytes reach a parser or the
 * decompressor. Memory: PART_RAW_LIMIT, the index and one frame beyond `bytes`.
 *
 * @throws StorageError NOT_A_REPLICATION_FILE, FORMAT_TOO_NEW, WRONG_KEY (another secret), SEAL_BROKEN (damaged or
 * forged), WRONG_PLACE (sound, but not the part that belongs here), PART_DAMAGED (sealed by the peer, yet nonsense)
 */
export function decodePart(bytes: Buffer, streamSecret: Buffer, options: DecodeOptions = {}): DecodedPart {
  const name = options.name ?? 'replication file'
  const damaged = (fault: string) => partDamaged(name, fault)
  const header = peekHeader(bytes, name)
  if (header.algorithm !== ALGORITHM) throw sealBroken(name, `algorithm ${header.algorithm} is not allowed`)
  const { frameCount, dataLength, indexLength, indexRawLength } = header
  const indexAt = PART_HEADER_BYTES + dataLength
  const trailerAt = indexAt + indexLength
  if (bytes.length > PART_FILE_LIMIT) throw sealBroken(name, `${bytes.length} bytes are more than any part has`)
  if (bytes.length !== header.fileLength || bytes.length !== trailerAt + trailerLength(frameCount)) {
    throw sealBroken(name, `${bytes.length} bytes, ${header.fileLength} when it was sealed`)
  }
  if (!header.keyId.equals(keyId(streamSecret))) {
    throw new StorageError('WRONG_KEY', {
      op: 'open replication file',
      object: name,
      cause: `it was sealed with key ${header.keyId.toString('hex')}`,
      hint: 'It belongs to another pairing or stream, or the pairing was made anew. Its source keeps what it sent until it is applied, and sends it again when the right key is back.',
    })
  }

  const headerBytes = bytes.subarray(0, PART_HEADER_BYTES)
  const key = deriveFileKey(streamSecret, header.salt, placeOf(headerBytes))
  const tags = bytes.subarray(trailerAt, bytes.length - TAG_BYTES)
  const tag = Buffer.from(bytes.subarray(bytes.length - TAG_BYTES))
  if (!open(key, section.trailer, 0, Buffer.concat([headerBytes, tags]), Buffer.alloc(0), tag)) {
    throw sealBroken(name, 'header or trailer')
  }
  const tagAt = (index: number) => tags.subarray(index * TAG_BYTES, (index + 1) * TAG_BYTES)
  checkPlace(header, options.expected ?? {}, name)
  checkHeader(header, damaged)

  const sealedIndex = bytes.subarray(indexAt, trailerAt)
  const storedIndex = open(key, section.index, 0, headerBytes, sealedIndex, tagAt(frameCount))
  if (!storedIndex) throw sealBroken(name, 'index')
  const index = expand(header.indexEncoding, storedIndex, indexRawLength)
  if (!index) throw damaged('the index is not what its length promises')
  const { frames, records } = parseIndex(index, header, damaged)

  let at = PART_HEADER_BYTES
  const opened = frames.map((frame, number) => {
    const body = bytes.subarray(at, at + frame.storedLength)
    at += frame.storedLength
    const stored = open(key, section.frame, number, headerBytes, body, tagAt(number))
    if (!stored) throw sealBroken(name, `frame ${number}`)
    const raw = expand(frame.encoding, stored, frame.rawLength)
    if (!raw) throw damaged(`frame ${number} is not what its length promises`)
    return raw
  })
  const nothing = Buffer.alloc(0)
  const result = records.map((entry, number) => {
    const raw = entry.frame < 0 ? nothing : opened[entry.frame]!
    const payload = raw.subarray(entry.frameOffset, entry.frameOffset + entry.payloadBytes)
    if (crc32c(payload) !== entry.payloadCrc) throw damaged(`record ${number}: checksum of its payload`)
    const record = toRecord(entry, payload)
    if (!record) throw damaged(`record ${number}: a ${entry.kind} that is none`)
    return record
  })
  return { header, records: result, tag }
}

function checkPlace(header: PartHeader, expected: Partial<PartPlace>, name: string): void {
  for (const field of ['pairingId', 'streamId', 'generation', 'epoch', 'part', 'partCount', 'previousTag'] as const) {
    const want = expected[field]
    const have = header[field]
    if (want === undefined || (Buffer.isBuffer(want) ? want.equals(have as Buffer) : want === have)) continue
    const text = (value: number | Buffer) => (Buffer.isBuffer(value) ? value.toString('hex') : String(value))
    throw new StorageError('WRONG_PLACE', {
      op: 'open replication file',
      object: name,
      cause: `${field} is ${text(have)}, expected ${text(want)}`,
      retry: 'after-arrival',
      hint: 'A sound file that does not belong here: an old one put back, or one of another stream. It is set aside.',
    })
  }
}

/** What only a peer with the key can get wrong. */
function checkHeader(header: PeekedHeader, damaged: (fault: string) => Error): void {
  const { generation, epoch, part, partCount, frameCount, recordCount } = header
  const counts = countsFault(header)
  if (counts) throw damaged(counts)
  if (!header.reservedIsZero) throw damaged('reserved bits are not zero')
  if (generation === 0 || epoch === 0 || part >= partCount) {
    throw damaged(`generation ${generation}, epoch ${epoch}, part ${part} of ${partCount}`)
  }
  if (header.firstLsn > header.endLsn) throw damaged('its LSN range ends before it begins')
  if (header.indexRawLength !== frameCount * FRAME_ENTRY_BYTES + recordCount * RECORD_ENTRY_BYTES) {
    throw damaged(`an index of ${header.indexRawLength} bytes`)
  }
}

function partDamaged(name: string, fault: string): StorageError {
  return new StorageError('PART_DAMAGED', {
    op: 'read replication file',
    object: name,
    cause: fault,
    retry: 'after-arrival',
    hint: 'The source sealed a file that makes no sense. Nothing of it was used. Report it with both versions.',
  })
}
