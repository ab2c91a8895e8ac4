import type { DeviceFile } from './device-file.js'
import { type HeadLayout, type LogSequence, logSequence, recordBytes } from './geometry.js'
import { type LogRecord, parseRecord, RecordChecksum, readLong, recordFields, sequenceAfter } from './log-record.js'

/** Where the mapping log lies. */
export interface LogRing {
  readonly file: DeviceFile
  readonly layout: HeadLayout
  /** Of the pool, in every checksum. */
  readonly seed: number
}

export interface LogEnd {
  /** The sequence behind the last record that is right. */
  readonly end: LogSequence
  /** What the last COMMIT before that covers; the sequence the reading began with when there is none. */
  readonly committed: LogSequence
}

/** Read and checked at once. */
const pieceRecords = 32 * 1024

/**
 * Read whole records from a sequence on until the first that is wrong, or until `before`.
 *
 * @param visit gets records in order, some thousands at a time
 */
export async function readLog(
  ring: LogRing,
  from: LogSequence,
  before: LogSequence | undefined,
  visit: (records: LogRecord[]) => void | Promise<void>,
): Promise<LogEnd> {
  const { logOffset, logRecords } = ring.layout
  const checksum = new RecordChecksum(ring.seed)
  const last = Math.min(from + logRecords, before ?? Number.POSITIVE_INFINITY)
  let committed = from
  let next = from
  let bytes: Buffer = Buffer.alloc(0)
  for (;;) {
    const read = next + bytes.length / recordBytes
    const place = read % logRecords
    // An operation's text may go on behind `before`, never behind the whole ring.
    const count = Math.min(pieceRecords, logRecords - place, from + logRecords - read)
    if (count <= 0 || next >= last) break
    const piece = await ring.file.read(logOffset + place * recordBytes, count * recordBytes)
    bytes = bytes.length === 0 ? piece : Buffer.concat([bytes, piece])
    const records: LogRecord[] = []
    let parsed: LogRecord | 'incomplete' | undefined
    let at = 0
    while (at < bytes.length && next < last) {
      const isRight = readLong(bytes, at + recordFields.sequence.offset) === next && checksum.matches(bytes, at)
      parsed = isRight ? parseRecord(bytes, at) : undefined
      if (parsed === undefined || parsed === 'incomplete') break
      if (parsed.kind === 'commit') committed = logSequence(Math.max(committed, parsed.covered))
      records.push(parsed)
      at += (sequenceAfter(parsed) - next) * recordBytes
      next = sequenceAfter(parsed)
    }
    if (records.length > 0) await visit(records)
    if (parsed === undefined) break
    bytes = bytes.subarray(at)
  }
  return { end: next, committed }
}

/** The end alone: what a power cut leaves is known only when the last COMMIT is. */
export function findLogEnd(ring: LogRing, from: LogSequence): Promise<LogEnd> {
  return readLog(ring, from, undefined, () => {})
}

/** Records that are right behind the one that is not. */
export interface RecordsBeyond {
  readonly count: number
  readonly first: LogSequence
  readonly last: LogSequence
  /** The largest that a COMMIT among them covers; 0 without one. */
  readonly committed: LogSequence
}

/**
 * What lies behind the end of the log. Native code writes records in order: after a process crash anything there means
 * that the record at the end was damaged; after a power cut only a COMMIT there that covers more than the end does.
 */
export async function findBeyond(
  ring: LogRing,
  from: LogSequence,
  end: LogSequence,
): Promise<RecordsBeyond | undefined> {
  const { logOffset, logRecords } = ring.layout
  const checksum = new RecordChecksum(ring.seed)
  let count = 0
  let first = Number.POSITIVE_INFINITY
  let last = 0
  let committed = 0
  for (let place = 0; place < logRecords; place += pieceRecords) {
    const records = Math.min(pieceRecords, logRecords - place)
    const bytes = await ring.file.read(logOffset + place * recordBytes, records * recordBytes)
    for (let at = 0; at < bytes.length; at += recordBytes) {
      const sequence = readLong(bytes, at + recordFields.sequence.offset)
      if (sequence <= end || sequence >= from + logRecords || sequence % logRecords !== place + at / recordBytes)
        continue
      if (!checksum.matches(bytes, at)) continue
      count += 1
      first = Math.min(first, sequence)
      last = Math.max(last, sequence)
      const record = parseRecord(bytes, at)
      if (typeof record === 'object' && record.kind === 'commit') committed = Math.max(committed, record.covered)
    }
  }
  if (count === 0) return undefined
  return { count, first: logSequence(first), last: logSequence(last), committed: logSequence(committed) }
}
