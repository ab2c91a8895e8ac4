import { crc32c } from '../block/crc32c.js'
import {
  checksumSeed,
  MARKER_PAYLOAD_LIMIT_BYTES,
  RECORD_HEADER_BYTES,
  RECORD_MAGIC,
  recordFields,
  recordSpace,
  recordType,
  recordTypeName,
} from './format.js'
import { checksumWords } from './header-checksum.js'
import { damaged, type SegmentFile } from './segment-file.js'

/**
 * Read at once, unless a record is larger: little at first, as behind the end of a journal lies nothing that counts, and twice as
 * much each time.
 */
const FIRST_CHUNK_BYTES = 256 * 1024
const CHUNK_BYTES = 4 * 1024 * 1024
const magic = Buffer.from(RECORD_MAGIC).readUInt32LE()

/** Index of a field's first 32-bit word in its header. */
const word = {
  type: recordFields.type.offset / 4,
  lsn: recordFields.lsn.offset / 4,
  offset: recordFields.offset.offset / 4,
  length: recordFields.length.offset / 4,
  time: recordFields.time.offset / 4,
  payloadBytes: recordFields.payloadBytes.offset / 4,
  incarnation: recordFields.incarnation.offset / 4,
  headerCrc: recordFields.headerCrc.offset / 4,
  payloadCrc: recordFields.payloadCrc.offset / 4,
  commit: recordFields.commit.offset / 4,
} as const

export type PlaceState =
  /** A record with its payload. */
  | 'complete'
  /** Its length can be trusted; it was never completed: the commit is 0. */
  | 'reserved'
  /** It was completed, and the payload or the commit is not what was written. */
  | 'damaged'
  /** No valid header: `reason` says why. */
  | 'none'
  /** The record reaches beyond the end that was set. */
  | 'beyond'
  /** The end that was set, or of the segment. */
  | 'end'

export interface ScanOptions {
  /** Of the first place, in the segment. */
  readonly position: number
  /** Stop there; default is the end of the segment. */
  readonly endPosition?: number
  /** Records of a lower one are not believed. */
  readonly incarnation?: number
  /** Bytes already in memory, from `position`; without it the scan reads in chunks. */
  readonly window?: Buffer
}

/**
 * Goes from place to place through one segment: the one decoder behind recovery, epochs and inspection.
 *
 * After next(), the fields describe the place at `position`. `bytes` is never written again: payload() may be kept.
 */
export class SegmentScan {
  position: number
  type = 0
  flags = 0
  volume = 0
  /** Bytes on the volume; safe integers. */
  offset = 0
  length = 0
  timeLow = 0
  timeHigh = 0
  payloadBytes = 0
  incarnation: number
  payloadCrc = 0
  reason = ''
  readonly file: SegmentFile
  readonly seed: number
  readonly #endPosition: number
  readonly #fixed: boolean
  #next: number
  #bytes: Buffer
  /** The same memory. Places lie at multiples of 64 in it. */
  #words: Uint32Array
  #start: number
  #chunkBytes = FIRST_CHUNK_BYTES

  constructor(file: SegmentFile, options: ScanOptions) {
    this.file = file
    this.seed = checksumSeed(file.header.journalId)
    this.position = options.position
    this.incarnation = options.incarnation ?? 0
    this.#endPosition = options.endPosition ?? file.segmentBytes
    this.#fixed = options.window !== undefined
    this.#next = options.position
    this.#bytes = options.window ?? Buffer.alloc(0)
    this.#words = wordsOf(this.#bytes)
    this.#start = options.position
  }

  get lsn(): number {
    return this.file.baseLsn + this.position
  }

  /** Of the place behind this one. */
  get nextPosition(): number {
    return this.#next
  }

  /** Nanoseconds since 1970. */
  get time(): bigint {
    return this.#bytes.readBigUInt64LE(this.position - this.#start + recordFields.time.offset)
  }

  /** The 64 bytes of the place, in the scan's memory. */
  get header(): Buffer {
    const at = this.position - this.#start
    return this.#bytes.subarray(at, at + RECORD_HEADER_BYTES)
  }

  get payload(): Buffer {
    const at = this.position - this.#start + RECORD_HEADER_BYTES
    return this.#bytes.subarray(at, at + this.payloadBytes)
  }

  /**
   * Go to the next place.
   * @throws StorageError JOURNAL_DAMAGED for a valid header that no writer makes; JOURNAL_UNREADABLE
   */
  next(): PlaceState {
    this.position = this.#next
    if (this.position >= this.#endPosition) return 'end'
    if (!this.#have(RECORD_HEADER_BYTES)) return this.#fixed ? 'beyond' : this.#none('the file ends here')
    const at = (this.position - this.#start) / 4
    const words = this.#words
    const reason = this.#headerFault(words, at, this.position, this.incarnation)
    if (reason !== undefined) return this.#none(reason)
    this.#decode(words, at)
    const end = this.position + recordSpace(this.payloadBytes)
    if (end > this.#endPosition) return 'beyond'
    this.#next = end
    const commit = words[at + word.commit]!
    // Its checksum goes on where the header's ends.
    const rest = word.commit - word.headerCrc
    if (commit !== checksumWords(words, at + word.headerCrc, rest, words[at + word.headerCrc]!)) {
      return commit === 0 ? 'reserved' : 'damaged'
    }
    return this.#payloadSound() ? 'complete' : 'damaged'
  }

  /** The place is untouched, or the fence that recovery left: 64 zero bytes. */
  isBlank(): boolean {
    return this.#have(RECORD_HEADER_BYTES) && this.header.every((byte) => byte === 0)
  }

  /** A valid header of this incarnation or a later one at any place behind the current one. */
  findBehind(incarnation: number): number | undefined {
    const { segmentBytes } = this.file
    for (let start = this.position + RECORD_HEADER_BYTES; start < segmentBytes; start += CHUNK_BYTES) {
      const chunk = Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, segmentBytes - start))
      const got = this.file.read(start, chunk)
      const words = wordsOf(chunk)
      for (let at = 0; at + RECORD_HEADER_BYTES <= got; at += RECORD_HEADER_BYTES) {
        const fault = this.#headerFault(words, at / 4, start + at, incarnation)
        if (fault === undefined) return start + at
      }
    }
    return undefined
  }

  #none(reason: string): PlaceState {
    this.reason = reason
    return 'none'
  }

  /** Bring `length` bytes from the current place into memory; false when the file or the window is shorter. */
  #have(length: number): boolean {
    const end = this.position + length
    if (this.position >= this.#start && end <= this.#start + this.#bytes.length) return true
    if (this.#fixed) return false
    const wanted = Math.min(Math.max(length, this.#chunkBytes), this.#endPosition - this.position)
    this.#chunkBytes = Math.min(2 * this.#chunkBytes, CHUNK_BYTES)
    const chunk = Buffer.allocUnsafeSlow(wanted)
    const got = this.file.read(this.position, chunk)
    this.#bytes = chunk.subarray(0, got)
    this.#words = wordsOf(this.#bytes)
    this.#start = this.position
    return got >= length
  }

  /** Why this is no header, or undefined when it is one: FORMAT.md, "what a reader must do". */
  #headerFault(words: Uint32Array, at: number, position: number, incarnation: number): string | undefined {
    if (words[at] !== magic) return 'no record'
    if (words[at + word.headerCrc] !== checksumWords(words, at, word.headerCrc, this.seed)) {
      return 'the header’s checksum does not match'
    }
    const lsn = words[at + word.lsn + 1]! * 2 ** 32 + words[at + word.lsn]!
    if (lsn !== this.file.baseLsn + position) return `an old record, of LSN ${lsn}`
    const type = words[at + word.type]! & 255
    if (recordTypeName(type) === undefined) return `unknown type ${type}`
    const space = recordSpace(words[at + word.payloadBytes]!)
    if (position + space > this.file.segmentBytes) return 'a length beyond the segment'
    const writer = words[at + word.incarnation]!
    if (writer < incarnation) return `an old record, of incarnation ${writer} behind ${incarnation}`
    return undefined
  }

  #decode(words: Uint32Array, at: number): void {
    const first = words[at + word.type]!
    this.type = first & 255
    this.flags = (first >>> 8) & 255
    this.volume = first >>> 16
    this.offset = words[at + word.offset + 1]! * 2 ** 32 + words[at + word.offset]!
    this.length = words[at + word.length + 1]! * 2 ** 32 + words[at + word.length]!
    this.timeLow = words[at + word.time]!
    this.timeHigh = words[at + word.time + 1]!
    this.payloadBytes = words[at + word.payloadBytes]!
    this.incarnation = words[at + word.incarnation]!
    this.payloadCrc = words[at + word.payloadCrc]!
    if (!this.#possible()) throw damaged(this.file.path, `the record at LSN ${this.lsn} is one that no writer makes`)
  }

  #possible(): boolean {
    const { type, payloadBytes, length } = this
    if (!Number.isSafeInteger(this.offset + length)) return false
    if (type === recordType.write) return payloadBytes === length
    if (type === recordType.marker) return payloadBytes === length && length <= MARKER_PAYLOAD_LIMIT_BYTES
    if (type === recordType.pad) return this.position + recordSpace(payloadBytes) === this.file.segmentBytes
    return type === recordType.void || payloadBytes === 0
  }

  #payloadSound(): boolean {
    const { type, payloadBytes } = this
    if (payloadBytes === 0 || type === recordType.pad || type === recordType.void) return this.payloadCrc === 0
    return this.#have(RECORD_HEADER_BYTES + payloadBytes) && crc32c(this.payload) === this.payloadCrc
  }
}

function wordsOf(bytes: Buffer): Uint32Array {
  return new Uint32Array(bytes.buffer, bytes.byteOffset, Math.floor(bytes.length / 4))
}
