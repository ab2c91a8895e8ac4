import { fdatasyncSync, writeSync } from 'node:fs'
import { StorageError } from '../block/storage-error.js'
import { type Lsn, lsn } from '../block/units.js'
import { makeVoid, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES } from './format.js'
import { JournalWalk } from './journal-walk.js'
import { type JournalRecord, notAsPublished, readRecords } from './reader.js'
import { damaged, SegmentFile } from './segment-file.js'
import { SegmentScan } from './segment-scan.js'

export interface RecoveryOptions {
  readonly directory: string
  readonly journalId: Uint8Array
  readonly segmentBytes: number
  /** Everything before it is on the backing, durably. */
  readonly checkpointLsn: Lsn
  /** Of the writer to come: greater than that of any record, by one when the last writer's is known. */
  readonly incarnation: number
  /**
   * Of the writer whose records lie behind the checkpoint. Records of an earlier one may lie there too, left by a torn
   * tail under the same addresses. Default: any writer's are believed.
   */
  readonly leastIncarnation?: number
  /** The machine was restarted since the journal was written. Must stay true when a recovery is repeated. */
  readonly afterPowerCut: boolean
  /** Write it to the backing; called for WRITE, ZERO and TRIM in LSN order, after the end is known and durable. */
  readonly apply: (record: JournalRecord) => void
}

export interface Recovered {
  /** Where the next writer begins. */
  readonly endLsn: Lsn
  /** WRITE, ZERO, TRIM and MARKER records since the checkpoint. */
  readonly records: number
  /** Places that were given out and never completed; made VOID now. */
  readonly voids: number
}

/**
 * Find the end of a journal after a stop or a crash, make it the durable end, and replay what lies before it.
 *
 * Two passes: the first changes nothing on the backing, so a damaged journal is refused before anything of it is applied.
 * Order: (1) gaps become VOID, (2) the end is fenced with zeros, (3) every segment is synced, (4) records are applied.
 * Applying before (3) would, after a power cut in between, leave the backing with writes that the journal has lost.
 * Repeatable after a crash at any point.
 *
 * @throws StorageError JOURNAL_DAMAGED, JOURNAL_MISSING, FOREIGN_SEGMENT, JOURNAL_UNREADABLE, JOURNAL_WRITE_FAILED
 */
export function recoverJournal(options: RecoveryOptions): Recovered {
  const { directory, journalId, segmentBytes, apply } = options
  const { leastIncarnation = 0 } = options
  const place = { directory, journalId, segmentBytes, leastIncarnation, from: options.checkpointLsn }
  const found = findEnd(options)
  let records = 0
  for (const record of readRecords({ ...place, to: found.endLsn })) {
    records += 1
    if (record.type !== 'marker') apply(record)
  }
  return { ...found, records }
}

function findEnd(options: RecoveryOptions): { endLsn: Lsn; voids: number } {
  const { afterPowerCut } = options
  const walk = new JournalWalk({
    ...options,
    from: options.checkpointLsn,
    writable: true,
    onLeave: (file) => written(file, () => fdatasyncSync(file.fd)),
  })
  let voids = 0
  try {
    for (;;) {
      const state = walk.next()
      if (state === 'end') break
      const { place } = walk
      if (state === 'complete' || state === 'reserved') checkWriter(place, options.incarnation)
      if (state === 'complete') continue
      if (state === 'reserved' && !afterPowerCut) {
        writeVoid(place)
        voids += 1
        continue
      }
      if (state === 'damaged' && !afterPowerCut) throw notAsPublished(place, 'its payload does not match')
      if (state === 'none' && !afterPowerCut) checkEnd(place, options)
      fence(place)
      break
    }
    return { endLsn: lsn(BigInt(walk.lsn)), voids }
  } finally {
    walk.close()
  }
}

function checkWriter(place: SegmentScan, incarnation: number): void {
  if (place.incarnation < incarnation) return
  throw damaged(
    place.file.path,
    `the record at LSN ${place.lsn} is of incarnation ${place.incarnation}, the next writer of ${incarnation}: the agent's state is older than its journal`,
  )
}

/**
 * After a process crash every place up to the last one has a valid header, so a valid one of the same writer behind an
 * invalid one means that the invalid one was damaged. A blank place is the fence of an earlier recovery, or untouched.
 */
function checkEnd(place: SegmentScan, options: RecoveryOptions): void {
  if (place.isBlank()) return
  const writer = place.incarnation > 0 ? place.incarnation : options.incarnation - 1
  const { directory, segmentBytes } = options
  let behind = place.findBehind(writer) !== undefined
  const next = behind ? undefined : SegmentFile.open(directory, place.file.baseLsn + segmentBytes, options)
  if (next) {
    const state = new SegmentScan(next, { position: SEGMENT_HEADER_BYTES, incarnation: writer }).next()
    next.close()
    behind = state !== 'none'
  }
  if (behind) throw notAsPublished(place, 'none')
}

function writeVoid(place: SegmentScan): void {
  const header = Buffer.from(place.header)
  makeVoid(header, place.seed)
  written(place.file, () => writeSync(place.file.fd, header, 0, header.length, place.position))
}

function fence(place: SegmentScan): void {
  if (place.isBlank()) return
  written(place.file, () =>
    writeSync(place.file.fd, Buffer.alloc(RECORD_HEADER_BYTES), 0, RECORD_HEADER_BYTES, place.position),
  )
}

function written(file: SegmentFile, write: () => void): void {
  try {
    write()
  } catch (cause) {
    throw new StorageError('JOURNAL_WRITE_FAILED', {
      op: 'journal recovery',
      object: file.path,
      cause,
      retry: 'later',
      hint: 'The journal’s disk cannot be written. Check the disk; recovery begins again at the next start.',
    })
  }
}
