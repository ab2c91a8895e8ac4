import { type Lsn, lsn, type VolumeIndex, volumeIndex } from '../block/units.js'
import { recordTypeName } from './format.js'
import { type JournalPlace, JournalWalk } from './journal-walk.js'
import { damaged } from './segment-file.js'
import type { SegmentScan } from './segment-scan.js'

export type JournalRecord =
  | (Addressed & { readonly type: 'write'; readonly payload: Buffer })
  | (Addressed & { readonly type: 'zero' | 'trim' })
  | (Stamped & { readonly type: 'marker'; readonly payload: Buffer })

interface Stamped {
  readonly lsn: Lsn
  /** Nanoseconds since 1970, by the source's clock. */
  readonly timeNs: bigint
}

interface Addressed extends Stamped {
  readonly volume: VolumeIndex
  /** Bytes on the volume. */
  readonly offset: number
  readonly lengthBytes: number
}

/**
 * The journal's records in LSN order; PAD and VOID are stepped over.
 *
 * With `to` (not beyond what is published) everything up to it must be there. Without, it ends where the journal ends.
 * Reads synchronously, in chunks: use it in a worker.
 *
 * @throws StorageError JOURNAL_MISSING, JOURNAL_DAMAGED, FOREIGN_SEGMENT, JOURNAL_UNREADABLE
 */
export function* readRecords(options: JournalPlace & { readonly to?: Lsn }): Generator<JournalRecord> {
  const walk = new JournalWalk(options)
  try {
    for (;;) {
      const state = walk.next()
      if (state === 'complete') {
        const record = recordAt(walk.place)
        if (record) yield record
      } else if (state === 'damaged' || (options.to !== undefined && state !== 'end')) {
        throw notAsPublished(walk.place, state)
      } else {
        return
      }
    }
  } finally {
    walk.close()
  }
}

export function notAsPublished(place: SegmentScan, state: string): Error {
  const why = state === 'none' ? place.reason : state
  return damaged(place.file.path, `the record at LSN ${place.lsn} is not as it was written: ${why}`)
}

/** Undefined for PAD and VOID. */
export function recordAt(place: SegmentScan): JournalRecord | undefined {
  const type = recordTypeName(place.type)
  const isMarker = type === 'marker'
  if (!isMarker && type !== 'write' && type !== 'zero' && type !== 'trim') return undefined
  const at = lsn(BigInt(place.lsn))
  const timeNs = place.time
  if (isMarker) return { type, lsn: at, timeNs, payload: place.payload }
  const volume = volumeIndex(place.volume)
  const { offset, length: lengthBytes } = place
  // Each spelled out: this is done for every record, and with objects that are spread it was a fifth of reading a journal.
  if (type !== 'write') return { type, lsn: at, timeNs, volume, offset, lengthBytes }
  return { type, lsn: at, timeNs, volume, offset, lengthBytes, payload: place.payload }
}
