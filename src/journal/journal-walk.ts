import assert from 'node:assert/strict'
import { type Lsn, safeNumber } from '../block/units.js'
import { RECORD_HEADER_BYTES, recordPlace, SEGMENT_HEADER_BYTES } from './format.js'
import { journalSegments, missing, SegmentFile, segmentPath } from './segment-file.js'
import { type PlaceState, SegmentScan } from './segment-scan.js'

export interface JournalPlace {
  readonly directory: string
  /** 16 bytes. */
  readonly journalId: Uint8Array
  readonly segmentBytes: number
  readonly from: Lsn
  /** Records of an earlier writer are not believed; default: any writer's are. */
  readonly leastIncarnation?: number
}

export interface WalkOptions extends JournalPlace {
  /** Where to stop: the end of a record. Without it, the walk goes on to the journal's end. */
  readonly to?: Lsn
  readonly writable?: boolean
  /** Called with each segment that was walked through, before it is closed. */
  readonly onLeave?: (file: SegmentFile) => void
}

/** A SegmentScan over all segments, oldest first. The state 'end' is `to`, or a segment that was not begun. */
export class JournalWalk {
  readonly #options: WalkOptions
  readonly #to: number
  #scan: SegmentScan | undefined
  #lsn: number

  constructor(options: WalkOptions) {
    const { segmentBytes } = options
    assert(segmentBytes > 0 && segmentBytes % (1024 * 1024) === 0, 'segments are multiples of 1 MiB')
    this.#options = options
    this.#lsn = recordPlace(safeNumber(options.from), segmentBytes)
    this.#to = options.to === undefined ? Number.POSITIVE_INFINITY : recordPlace(safeNumber(options.to), segmentBytes)
    assert(this.#lsn % RECORD_HEADER_BYTES === 0, `${this.#lsn} is no record's place`)
  }

  /** The place that next() went to. */
  get place(): SegmentScan {
    assert(this.#scan, 'next() has not been called')
    return this.#scan
  }

  /** The address of that place; at the end, of the record to come. */
  get lsn(): number {
    return this.#lsn
  }

  /** @throws StorageError JOURNAL_MISSING, JOURNAL_DAMAGED, FOREIGN_SEGMENT, JOURNAL_UNREADABLE */
  next(): PlaceState {
    for (;;) {
      if (!this.#scan) {
        if (this.#lsn >= this.#to || !this.#openSegment(this.#options.leastIncarnation ?? 0)) return 'end'
      }
      const scan = this.#scan!
      const state = scan.next()
      this.#lsn = recordPlace(scan.lsn, this.#options.segmentBytes)
      if (state !== 'end' || this.#lsn >= this.#to) return state
      const { incarnation } = scan
      this.#leave()
      if (!this.#openSegment(incarnation)) return 'end'
    }
  }

  close(): void {
    this.#leave()
  }

  #leave(): void {
    const file = this.#scan?.file
    this.#scan = undefined
    if (!file) return
    try {
      this.#options.onLeave?.(file)
    } finally {
      file.close()
    }
  }

  /** False: the journal ends before this segment. */
  #openSegment(incarnation: number): boolean {
    const { directory, segmentBytes } = this.#options
    const position = this.#lsn % segmentBytes
    const baseLsn = this.#lsn - position
    const file = SegmentFile.open(directory, baseLsn, this.#options)
    if (!file) {
      const last = journalSegments(directory).at(-1)
      const begun = position > SEGMENT_HEADER_BYTES || this.#to !== Number.POSITIVE_INFINITY
      if (begun || (last && last.baseLsn > BigInt(baseLsn))) throw missing(segmentPath(directory, baseLsn))
      return false
    }
    this.#scan = new SegmentScan(file, {
      position,
      incarnation,
      endPosition: Math.min(segmentBytes, this.#to - baseLsn),
    })
    return true
  }
}
