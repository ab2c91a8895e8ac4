import { RANGE_BLOCK_BYTES } from '../replication-file/range-digest.js'
import type { VolumeRange } from '../replication-file/volume-range.js'
import { dataLength } from './copy-planner.js'
import type { DigestPiece } from './pack-job.js'
import type { CopyCursor } from './stream-state.js'
import type { VerifyPosition } from './verify-state.js'
import type { SparseVolume, VolumeFile } from './volume-file.js'

/** Read for the digests of one epoch, at both sides, at the most. */
export const EPOCH_DIGEST_LIMIT = 32 * 1024 * 1024
/** Holes named in one epoch at the most: what the destination may have to read where it has none. */
export const EPOCH_HOLE_LIMIT = 1024 * 1024 * 1024

export interface DigestPlan {
  readonly run: number
  readonly isRetry: boolean
  readonly pieces: readonly DigestPiece[]
  /** Where the comparison stands after them; null: at its end. */
  readonly next: CopyCursor | null
}

/** The next epoch's worth of a comparison, for a worker to find. */
export interface DigestPlanJob {
  readonly volumes: readonly VolumeFile[]
  readonly verify: VerifyPosition
}

/**
 * What the next epoch compares: what has to be taken again, else the next pieces from the cursor on. A hole costs
 * nothing here: that it reads as zeros is all there is to say.
 *
 * Pieces begin at blocks of the volume. To be called when what was written before the end of the epoch is on the backing:
 * what was a hole then is one of the epoch, unless it is written meanwhile, and that shows.
 */
export function planDigests(volumes: readonly SparseVolume[], verify: VerifyPosition): DigestPlan {
  const isRetry = verify.retry.length > 0
  const list = isRetry ? verify.retry : (verify.ranges ?? volumes.map(whole))
  const room = { data: EPOCH_DIGEST_LIMIT, holes: EPOCH_HOLE_LIMIT }
  const pieces: DigestPiece[] = []
  let { slot, offset } = isRetry || !verify.cursor ? { slot: 0, offset: 0 } : verify.cursor
  for (; slot < list.length; slot += 1, offset = 0) {
    const range = list[slot]!
    const source = volumes.find(({ index }) => index === range.volume)
    if (!source) continue
    const end = Math.min(range.offset + range.lengthBytes, source.sizeBytes)
    for (let at = range.offset + offset; at < end; ) {
      if (!isRetry && (room.data <= 0 || room.holes <= 0)) {
        return { run: verify.run, isRetry, pieces, next: { slot, offset: at - range.offset } }
      }
      const piece = nextPiece(source, at, end, room)
      pieces.push(piece)
      room[piece.isHole ? 'holes' : 'data'] -= piece.lengthBytes
      at += piece.lengthBytes
    }
  }
  return { run: verify.run, isRetry, pieces, next: null }
}

function whole({ index, sizeBytes }: VolumeFile): VolumeRange {
  return { volume: index, offset: 0, lengthBytes: sizeBytes }
}

/** At least one, so that the piece behind begins at a block, too. */
function wholeBlocks(bytes: number): number {
  return Math.max(RANGE_BLOCK_BYTES, bytes - (bytes % RANGE_BLOCK_BYTES))
}

/** From here to where data or a hole ends, or the room. */
function nextPiece(
  source: SparseVolume,
  at: number,
  end: number,
  room: { readonly data: number; readonly holes: number },
): DigestPiece {
  const { index: volume, path } = source
  const data = source.nextData(at) ?? end
  const dataFrom = data >= end ? end : Math.max(at, data - (data % RANGE_BLOCK_BYTES))
  const place = { volume, path, offset: at }
  if (dataFrom > at) return { ...place, lengthBytes: Math.min(dataFrom - at, wholeBlocks(room.holes)), isHole: true }
  const mostBytes = Math.min(end - at, wholeBlocks(room.data))
  return { ...place, lengthBytes: dataLength(source, at, mostBytes), isHole: false }
}
