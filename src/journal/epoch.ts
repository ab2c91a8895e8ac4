import assert from 'node:assert/strict'
import { type Lsn, lsn, safeNumber } from '../block/units.js'
import { recordPlace, recordType } from './format.js'
import type { JournalPlace } from './journal-walk.js'
import { notAsPublished } from './reader.js'
import { missing, SegmentFile, segmentPath } from './segment-file.js'
import { SegmentScan } from './segment-scan.js'

/** Journal bytes that are in memory for one epoch, at the most, unless the caller says less. */
export const EPOCH_LIMIT_BYTES = 64 * 1024 * 1024

export interface LoadOptions extends JournalPlace {
  /** Not beyond what is published. */
  readonly to: Lsn
  /** Stop at a record boundary before this much was read: `endLsn` says where. At least the largest record. */
  readonly limitBytes?: number
  /** Memory for what is read, `limitBytes` long; without it, new memory. */
  readonly into?: Buffer
}

/** The records of an LSN range as columns, oldest first; PAD and VOID are left out. Columns may be longer than `count`. */
export interface LoadedEpoch {
  readonly startLsn: Lsn
  /** `to`, or where the limit made it stop. */
  readonly endLsn: Lsn
  readonly count: number
  /** 1 WRITE, 2 ZERO, 3 TRIM, 4 MARKER. */
  readonly kind: Uint8Array
  readonly volume: Uint16Array
  readonly offset: Float64Array
  readonly lengthBytes: Float64Array
  readonly lsn: BigUint64Array
  readonly timeNs: BigUint64Array
  /** A view of the loaded bytes (empty for ZERO and TRIM): keeping one keeps all, and `into` must not change. */
  payload(record: number): Buffer
}

/**
 * Read a published range of the journal into memory, verified, without a copy for each record.
 *
 * @throws StorageError JOURNAL_MISSING, JOURNAL_DAMAGED, FOREIGN_SEGMENT, JOURNAL_UNREADABLE
 */
export function loadEpoch(options: LoadOptions): LoadedEpoch {
  const { directory, segmentBytes } = options
  const start = recordPlace(safeNumber(options.from), segmentBytes)
  const to = Math.max(start, recordPlace(safeNumber(options.to), segmentBytes))
  const end = Math.min(to, start + (options.limitBytes ?? EPOCH_LIMIT_BYTES))
  const bytes = options.into?.subarray(0, end - start) ?? Buffer.allocUnsafeSlow(end - start)
  assert(bytes.length === end - start, 'room for what is read')
  const columns = new Columns(bytes)
  let at = start
  let incarnation = 0
  let limited = false
  while (at < end && !limited) {
    const position = at % segmentBytes
    const baseLsn = at - position
    const file = SegmentFile.open(directory, baseLsn, options)
    if (!file) throw missing(segmentPath(directory, baseLsn))
    try {
      const window = bytes.subarray(at - start, Math.min(end, baseLsn + segmentBytes) - start)
      const got = file.read(position, window)
      const scan = new SegmentScan(file, {
        position,
        endPosition: position + window.length,
        incarnation,
        window: window.subarray(0, got),
      })
      let state = scan.next()
      for (; state === 'complete'; state = scan.next()) columns.add(scan, scan.lsn - start)
      limited = state === 'beyond' && end < to
      if (state !== 'end' && !limited) throw notAsPublished(scan, state)
      incarnation = scan.incarnation
      at = recordPlace(scan.lsn, segmentBytes)
    } finally {
      file.close()
    }
  }
  assert(at > start || start === to, 'the limit is smaller than a record')
  return columns.loaded(lsn(BigInt(start)), lsn(BigInt(at)))
}

class Columns {
  #count = 0
  #kind = new Uint8Array(0)
  #volume = new Uint16Array(0)
  #offset = new Float64Array(0)
  #lengthBytes = new Float64Array(0)
  #payloadAt = new Uint32Array(0)
  #payloadBytes = new Uint32Array(0)
  // Written by halves: a BigInt for each record would cost more than all the rest.
  #lsn = new Uint32Array(0)
  #timeNs = new Uint32Array(0)

  constructor(readonly bytes: Buffer) {
    this.#grow(Math.max(64, Math.ceil(bytes.length / 4096)))
  }

  add(place: SegmentScan, at: number): void {
    const { type } = place
    if (type === recordType.pad || type === recordType.void) return
    if (this.#count === this.#kind.length) this.#grow(this.#count * 2)
    const index = this.#count++
    const address = place.lsn
    this.#kind[index] = type
    this.#volume[index] = place.volume
    this.#offset[index] = place.offset
    this.#lengthBytes[index] = place.length
    this.#payloadAt[index] = at + 64
    this.#payloadBytes[index] = place.payloadBytes
    this.#lsn[index * 2] = address % 2 ** 32
    this.#lsn[index * 2 + 1] = address / 2 ** 32
    this.#timeNs[index * 2] = place.timeLow
    this.#timeNs[index * 2 + 1] = place.timeHigh
  }

  loaded(startLsn: Lsn, endLsn: Lsn): LoadedEpoch {
    const { bytes } = this
    const payloadAt = this.#payloadAt
    const payloadBytes = this.#payloadBytes
    const count = this.#count
    return {
      startLsn,
      endLsn,
      count,
      kind: this.#kind,
      volume: this.#volume,
      offset: this.#offset,
      lengthBytes: this.#lengthBytes,
      lsn: new BigUint64Array(this.#lsn.buffer),
      timeNs: new BigUint64Array(this.#timeNs.buffer),
      payload: (record) => {
        assert(record >= 0 && record < count, `there is no record ${record}`)
        return bytes.subarray(payloadAt[record]!, payloadAt[record]! + payloadBytes[record]!)
      },
    }
  }

  #grow(capacity: number): void {
    this.#kind = grown(this.#kind, new Uint8Array(capacity))
    this.#volume = grown(this.#volume, new Uint16Array(capacity))
    this.#offset = grown(this.#offset, new Float64Array(capacity))
    this.#lengthBytes = grown(this.#lengthBytes, new Float64Array(capacity))
    this.#payloadAt = grown(this.#payloadAt, new Uint32Array(capacity))
    this.#payloadBytes = grown(this.#payloadBytes, new Uint32Array(capacity))
    this.#lsn = grown(this.#lsn, new Uint32Array(capacity * 2))
    this.#timeNs = grown(this.#timeNs, new Uint32Array(capacity * 2))
  }
}

function grown<T extends Uint8Array | Uint16Array | Uint32Array | Float64Array>(from: T, to: T): T {
  to.set(from)
  return to
}
