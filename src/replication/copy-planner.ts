import { type CopyPiece, EPOCH_COPY_LIMIT } from './pack-job.js'
import type { CopyCursor, StreamVolume } from './stream-state.js'
import type { SparseVolume, VolumeFile } from './volume-file.js'

/** What an epoch copies, and where the copy stands after it; null when all was copied. */
export interface CopyPlan {
  readonly pieces: CopyPiece[]
  readonly next: CopyCursor | null
}

/** The next epoch's worth of an initialisation, for a worker to find. */
export interface CopyPlanJob {
  readonly volumes: readonly VolumeFile[]
  readonly cursor: CopyCursor
}

/** A gap shorter than this is read rather than skipped. */
const shortestGapBytes = 1024 * 1024

/**
 * The next pieces of an initialisation: at most one epoch's worth, from the cursor on. Holes are skipped: they read as
 * zeros now, and what is written into them from now on is journaled.
 */
export function planCopy(volumes: readonly SparseVolume[], cursor: CopyCursor): CopyPlan {
  const pieces: CopyPiece[] = []
  let { slot, offset } = cursor
  let room = EPOCH_COPY_LIMIT
  while (room > 0) {
    const volume = volumes[slot]
    if (!volume) return { pieces, next: null }
    const data = Math.min(volume.nextData(offset) ?? volume.sizeBytes, volume.sizeBytes)
    if (data - offset >= shortestGapBytes || data >= volume.sizeBytes) offset = data
    const lengthBytes = dataLength(volume, offset, Math.min(room, volume.sizeBytes - offset))
    if (lengthBytes > 0) pieces.push({ volume: volume.index, path: volume.path, offset, lengthBytes })
    room -= lengthBytes
    offset += lengthBytes
    if (offset >= volume.sizeBytes) {
      slot += 1
      offset = 0
    }
  }
  return { pieces, next: slot < volumes.length ? { slot, offset } : null }
}

/** From the offset to the next gap worth skipping, to within such a gap's length; `mostBytes` at the most. */
export function dataLength({ nextData }: SparseVolume, offset: number, mostBytes: number): number {
  for (let length = shortestGapBytes; length < mostBytes; length += shortestGapBytes) {
    const data = nextData(offset + length)
    if (data === undefined || data - offset - length >= shortestGapBytes) return length
  }
  return mostBytes
}

/** Bytes copied so far, and in all. */
export function copyProgress(
  volumes: readonly StreamVolume[],
  cursor: CopyCursor | null,
): { doneBytes: number; totalBytes: number } {
  const totalBytes = volumes.reduce((sum, volume) => sum + volume.sizeBytes, 0)
  if (!cursor) return { doneBytes: totalBytes, totalBytes }
  const before = volumes.slice(0, cursor.slot).reduce((sum, volume) => sum + volume.sizeBytes, 0)
  return { doneBytes: before + cursor.offset, totalBytes }
}
