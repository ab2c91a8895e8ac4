/** Digests of what the volumes hold at the end of an epoch, made in the worker. */
import { type Lsn, safeNumber, volumeIndex } from '../block/units.js'
import { loadEpoch } from '../journal/epoch.js'
import type { PartRecord } from '../replication-file/part.js'
import {
  RANGE_BLOCK_BYTES,
  RANGE_DIGEST_BYTES,
  rangeBlockCount,
  rangeDigest,
} from '../replication-file/range-digest.js'
import type { VolumeRange } from '../replication-file/volume-range.js'
import { Backing } from '../volume/backing.js'
import { foldKind } from './fold.js'
import { type DigestJob, type DigestPiece, EPOCH_COPY_LIMIT, type PackJob } from './pack-job.js'

/** Journal looked through for what was written meanwhile, at the most; beyond that all of it counts as written. */
const journalLimitBytes = 128 * 1024 * 1024
const readBytes = 16 * RANGE_BLOCK_BYTES

/**
 * Of each piece one digest a block; nothing of a hole.
 * @throws StorageError BACKING_UNAVAILABLE
 */
export function digestPieces({ pieces, salt }: DigestJob): Uint8Array[] {
  const buffer = Buffer.allocUnsafe(readBytes)
  const key = Buffer.from(salt)
  return pieces.map((piece) => (piece.isHole ? new Uint8Array(0) : digestPiece(piece, key, buffer)))
}

function digestPiece({ path, offset, lengthBytes }: DigestPiece, salt: Buffer, buffer: Buffer): Uint8Array {
  const digests = new Uint8Array(rangeBlockCount(lengthBytes) * RANGE_DIGEST_BYTES)
  const backing = new Backing(path, 'read')
  try {
    for (let done = 0; done < lengthBytes; done += readBytes) {
      const window = buffer.subarray(0, Math.min(readBytes, lengthBytes - done))
      backing.read(offset + done, window)
      for (let start = 0; start < window.length; start += RANGE_BLOCK_BYTES) {
        const digest = rangeDigest(salt, window.subarray(start, start + RANGE_BLOCK_BYTES))
        digests.set(digest, ((done + start) / RANGE_BLOCK_BYTES) * RANGE_DIGEST_BYTES)
      }
    }
  } finally {
    backing.close()
  }
  return digests
}

export interface DigestedRanges {
  readonly records: PartRecord[]
  readonly digestedBytes: number
  readonly busy: VolumeRange[]
}

/**
 * The records of an epoch that ends at `endLsn`: blocks that no record between that and the last read touches. Whatever a
 * read may have seen of a write lies in the journal before `after`, and all that came before the end had reached the backing
 * before the first read.
 */
export function digestRecords(job: PackJob, endLsn: Lsn, isState: boolean, memory: () => Buffer): DigestedRanges {
  const { digests } = job
  const made: DigestedRanges & { digestedBytes: number } = { records: [], digestedBytes: 0, busy: [] }
  if (!digests) return made
  const { pieces, after } = digests
  const isKnown = isState && safeNumber(after - endLsn) <= journalLimitBytes
  const written = pieces.map(({ lengthBytes }) => new Uint8Array(rangeBlockCount(lengthBytes)).fill(isKnown ? 0 : 1))
  if (isKnown) markWritten(job, endLsn, written, memory)
  pieces.forEach((piece, number) => {
    const blocks = written[number]!
    for (let from = 0; from < blocks.length; ) {
      let to = from + 1
      while (to < blocks.length && blocks[to] === blocks[from]) to += 1
      const start = from * RANGE_BLOCK_BYTES
      const range = {
        volume: volumeIndex(piece.volume),
        offset: piece.offset + start,
        lengthBytes: Math.min(to * RANGE_BLOCK_BYTES, piece.lengthBytes) - start,
      }
      if (blocks[from] !== 0) made.busy.push(range)
      else {
        const all = Buffer.from(digests.made[number]!)
        const own = piece.isHole ? all : all.subarray(from * RANGE_DIGEST_BYTES, to * RANGE_DIGEST_BYTES)
        made.records.push({ kind: 'digest', ...range, run: digests.run, salt: Buffer.from(digests.salt), digests: own })
        made.digestedBytes += range.lengthBytes
      }
      from = to
    }
  })
  return made
}

function markWritten(job: PackJob, endLsn: Lsn, written: readonly Uint8Array[], memory: () => Buffer): void {
  const { directory, id, segmentBytes } = job.journal
  const { pieces, after } = job.digests!
  const order = pieces.map((piece, number) => ({ piece, number })).sort((a, b) => comparePlaces(a.piece, b.piece))
  for (let from = endLsn; from < after; ) {
    const loaded = loadEpoch({
      ...{ directory, journalId: Buffer.from(id), segmentBytes, from, to: after },
      ...{ limitBytes: EPOCH_COPY_LIMIT, into: memory() },
    })
    for (let at = 0; at < loaded.count; at += 1) {
      const kind = loaded.kind[at]
      if (kind !== foldKind.write && kind !== foldKind.zero && kind !== foldKind.trim) continue
      const extent = { volume: loaded.volume[at]!, offset: loaded.offset[at]!, lengthBytes: loaded.lengthBytes[at]! }
      markExtent(extent, order, written)
    }
    from = loaded.endLsn
  }
}

function comparePlaces(a: VolumeRange, b: VolumeRange): number {
  return a.volume - b.volume || a.offset - b.offset
}

function markExtent(
  extent: VolumeRange,
  order: readonly { readonly piece: DigestPiece; readonly number: number }[],
  written: readonly Uint8Array[],
): void {
  const end = extent.offset + extent.lengthBytes
  let low = 0
  let high = order.length
  while (low < high) {
    const middle = (low + high) >>> 1
    const { piece } = order[middle]!
    const isBefore =
      piece.volume < extent.volume ||
      (piece.volume === extent.volume && piece.offset + piece.lengthBytes <= extent.offset)
    if (isBefore) low = middle + 1
    else high = middle
  }
  for (let at = low; at < order.length; at += 1) {
    const { piece, number } = order[at]!
    if (piece.volume !== extent.volume || piece.offset >= end) return
    const first = Math.floor((Math.max(extent.offset, piece.offset) - piece.offset) / RANGE_BLOCK_BYTES)
    const last = Math.floor((Math.min(end, piece.offset + piece.lengthBytes) - 1 - piece.offset) / RANGE_BLOCK_BYTES)
    written[number]!.fill(1, first, last + 1)
  }
}
