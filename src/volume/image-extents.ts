import type { ByteExtent } from '../pool/thin-pool.js'

/** Handed to a worker at once: what an abort waits for. */
const batchBytes = 32 * 1024 * 1024
const batchExtents = 1024

/** What lies in any of them, ascending, without overlaps, up to `sizeBytes`. */
export function uniteExtents(lists: readonly (readonly ByteExtent[])[], sizeBytes: number): ByteExtent[] {
  const all = lists.flat().sort((a, b) => a.offset - b.offset)
  const united: { offset: number; lengthBytes: number }[] = []
  for (const { offset, lengthBytes } of all) {
    const last = united.at(-1)
    const end = Math.min(sizeBytes, offset + lengthBytes)
    if (last && offset <= last.offset + last.lengthBytes) {
      last.lengthBytes = Math.max(last.lengthBytes, end - last.offset)
    } else if (end > offset) united.push({ offset, lengthBytes: end - offset })
  }
  return united
}

export function extentBytes(extents: readonly ByteExtent[]): number {
  return extents.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)
}

/** The same in pieces that a worker copies one after the other. */
export function* splitBatches(extents: readonly ByteExtent[]): Generator<ByteExtent[]> {
  let batch: ByteExtent[] = []
  let room = batchBytes
  for (const extent of extents) {
    for (let done = 0; done < extent.lengthBytes; ) {
      const lengthBytes = Math.min(room, extent.lengthBytes - done)
      batch.push({ offset: extent.offset + done, lengthBytes })
      done += lengthBytes
      room -= lengthBytes
      if (room > 0 && batch.length < batchExtents) continue
      yield batch
      batch = []
      room = batchBytes
    }
  }
  if (batch.length > 0) yield batch
}
