import assert from 'node:assert/strict'
import type { LoadedEpoch } from '../journal/epoch.js'
import { RECORD_PAYLOAD_LIMIT } from '../replication-file/limits.js'
import { Backing } from '../volume/backing.js'
import { type FoldInput, foldKind } from './fold.js'
import type { CopyPiece } from './pack-job.js'

/** All records of one epoch as columns, oldest first: the copies of an initialisation lie under the journal's records. */
export interface EpochRecords extends FoldInput {
  readonly lsn: BigUint64Array
  readonly timeNs: BigUint64Array
  readonly oldestNs: bigint
  readonly newestNs: bigint
  readonly payload: (record: number) => Buffer
  readonly isCopy: (record: number) => boolean
}

export interface CopiedPiece {
  readonly volume: number
  readonly offset: number
  readonly bytes: Buffer
}

/**
 * Read the pieces of the volumes as they are now, into this memory.
 * @throws StorageError BACKING_UNAVAILABLE
 */
export function copyLayer(pieces: readonly CopyPiece[], into: Buffer): CopiedPiece[] {
  const copied: CopiedPiece[] = []
  let used = 0
  for (const { volume, path, offset, lengthBytes } of pieces) {
    const backing = new Backing(path, 'read')
    try {
      for (let done = 0; done < lengthBytes; done += RECORD_PAYLOAD_LIMIT) {
        const bytes = into.subarray(used, used + Math.min(RECORD_PAYLOAD_LIMIT, lengthBytes - done))
        assert(bytes.length > 0, 'more to copy than an epoch holds')
        used += bytes.length
        backing.read(offset + done, bytes)
        copied.push({ volume, offset: offset + done, bytes })
      }
    } finally {
      backing.close()
    }
  }
  return copied
}

export function journalLayer(journal: LoadedEpoch, copies: readonly CopiedPiece[]): EpochRecords {
  const base = copies.length
  const count = base + journal.count
  const nowNs = BigInt(Date.now()) * 1_000_000n
  const columns = {
    count,
    kind: new Uint8Array(count),
    volume: new Uint16Array(count),
    offset: new Float64Array(count),
    lengthBytes: new Float64Array(count),
    lsn: new BigUint64Array(count),
    timeNs: new BigUint64Array(count),
  }
  copies.forEach(({ volume, offset, bytes }, at) => {
    columns.kind[at] = foldKind.write
    columns.volume[at] = volume
    columns.offset[at] = offset
    columns.lengthBytes[at] = bytes.length
    columns.lsn[at] = journal.startLsn
    columns.timeNs[at] = nowNs
  })
  for (const name of ['kind', 'volume', 'offset', 'lengthBytes'] as const) {
    columns[name].set(journal[name].subarray(0, journal.count), base)
  }
  columns.lsn.set(journal.lsn.subarray(0, journal.count), base)
  columns.timeNs.set(journal.timeNs.subarray(0, journal.count), base)
  return {
    ...columns,
    oldestNs: journal.count > 0 ? journal.timeNs[0]! : nowNs,
    newestNs: journal.count > 0 ? journal.timeNs[journal.count - 1]! : nowNs,
    payload: (record) => (record < base ? copies[record]!.bytes : journal.payload(record - base)),
    isCopy: (record) => record < base,
  }
}
