import { type CopyPiece, EPOCH_COPY_LIMIT } from './pack-job.js'
import type { CopyCursor, StreamVolume } from './stream-state.js'

/** A volume as an initialisation reads it. */
export interface CopySource {
  readonly index: number
  /** What a worker opens. */
  readonly path: string
  readonly sizeBytes: number
  /** Where its data begin at or after an offset; undefined when only zeros follow. */
  readonly nextData: (offset: number) => Promise<number | undefined>
}

/** A gap shorter than this is read rather than skipped. */
const shortestGapBytes = 1024 * 1024

/**
 * The next pieces of an initialisation: at most one epoch's worth, from the cursor on. Holes are skipped: they read as
 * zeros now, and what is written into them from now on is journaled.
 *
 * @returns the pieces and where the copy stands after them; null when all was copied
 */
export async function planCopy(
  volumes: readonly CopySource[],
  cursor: CopyCursor,
): Promise<{ pieces: CopyPiece[]; next: CopyCursor | null }> {
  const pieces: CopyPiece[] = []
  let { slot, offset } = cursor
  let room = EPOCH_COPY_LIMIT
  while (room > 0) {
    const volume = volumes[slot]
    if (!volume) return { pieces, next: null }
    const data = Math.min((await volume.nextData(offset)) ?? volume.sizeBytes, volume.sizeBytes)
    if (data - offset >= shortestGapBytes || data >= volume.sizeBytes) offset = data
    const lengthBytes = await dataLength(volume, offset, Math.min(room, volume.sizeBytes - offset))
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
export async function dataLength({ nextData }: CopySource, offset: number, mostBytes: number): Promise<number> {
  for (let length = shortestGapBytes; length < mostBytes; length += shortestGapBytes) {
    const data = await nextData(offset + length)
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
