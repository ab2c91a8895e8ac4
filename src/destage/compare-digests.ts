import assert from 'node:assert/strict'
import { StorageError } from '../block/storage-error.js'
import type { Comparison } from '../replication-file/acknowledgement.js'
import type { PartRecord } from '../replication-file/part.js'
import { RANGE_BLOCK_BYTES, RANGE_DIGEST_BYTES, rangeDigest } from '../replication-file/range-digest.js'
import type { VolumeRange } from '../replication-file/volume-range.js'
import { Backing } from '../volume/backing.js'
import type { ImageJob } from './destage-job.js'

export type DigestRecord = Extract<PartRecord, { readonly kind: 'digest' }>
/** What is read of an image. */
export type Readable = Pick<Backing, 'read' | 'nextData'>

const readBytes = 16 * RANGE_BLOCK_BYTES
const zeros = Buffer.alloc(RANGE_BLOCK_BYTES)

/**
 * Compare what the images hold with the digests: to be called when everything up to the end of their epoch is applied and
 * synced, and nothing beyond. What the page cache has is dropped first, so it is the disk that is compared. What cannot be read
 * differs. Nothing is changed here.
 *
 * @returns what was found of the newest run, neighbours as one range; null when there is nothing to compare
 * @throws StorageError BACKING_UNAVAILABLE when the cache cannot be dropped
 */
export function compareDigests(
  records: readonly DigestRecord[],
  images: readonly ImageJob[],
  backings: ReadonlyMap<number, Readable>,
): Comparison | null {
  if (records.length === 0) return null
  const run = records.reduce((newest, record) => Math.max(newest, record.run), 0)
  for (const disk of new Set(images.flatMap(({ disks }) => disks))) dropCache(disk)
  const differing: VolumeRange[] = []
  let comparedBytes = 0
  let differingBytes = 0
  const buffer = Buffer.allocUnsafe(readBytes)
  for (const record of records) {
    if (record.run !== run) continue
    const backing = backings.get(record.volume)
    assert(backing, 'digests of volumes that are here')
    comparedBytes += record.lengthBytes
    for (const { offset, lengthBytes } of differingBlocks(record, backing, buffer)) {
      differingBytes += lengthBytes
      const last = differing.at(-1)
      if (last && last.volume === record.volume && last.offset + last.lengthBytes === offset) {
        differing[differing.length - 1] = { ...last, lengthBytes: last.lengthBytes + lengthBytes }
      } else differing.push({ volume: record.volume, offset, lengthBytes })
    }
  }
  return { run, comparedBytes, differingBytes, differing }
}

function dropCache(path: string): void {
  const disk = new Backing(path, 'read')
  try {
    disk.dropCache()
  } finally {
    disk.close()
  }
}

interface Block {
  readonly offset: number
  readonly lengthBytes: number
}

function* differingBlocks(record: DigestRecord, backing: Readable, buffer: Buffer): Generator<Block> {
  const end = record.offset + record.lengthBytes
  for (let at = record.offset; at < end; ) {
    const from = record.digests.length > 0 ? at : dataFrom(record, backing, at)
    if (from >= end) return
    const window = buffer.subarray(0, Math.min(readBytes, end - from))
    const isRead = canRead(backing, from, window)
    for (let start = 0; start < window.length; start += RANGE_BLOCK_BYTES) {
      const block = window.subarray(start, Math.min(start + RANGE_BLOCK_BYTES, window.length))
      const offset = from + start
      const isEqual = (isRead || canRead(backing, offset, block)) && holds(record, offset, block)
      if (!isEqual) yield { offset, lengthBytes: block.length }
    }
    at = from + window.length
  }
}

function holds({ salt, digests, offset }: DigestRecord, at: number, block: Buffer): boolean {
  if (digests.length === 0) return block.compare(zeros, 0, block.length) === 0
  const place = ((at - offset) / RANGE_BLOCK_BYTES) * RANGE_DIGEST_BYTES
  return rangeDigest(salt, block).equals(digests.subarray(place, place + RANGE_DIGEST_BYTES))
}

/** The first block of the range, from this one on, that is not a hole of the image. */
function dataFrom({ offset }: DigestRecord, backing: Readable, at: number): number {
  const data = backing.nextData(at) ?? Number.POSITIVE_INFINITY
  if (data === Number.POSITIVE_INFINITY) return data
  return Math.max(at, data - ((data - offset) % RANGE_BLOCK_BYTES))
}

/** A sector that the disk cannot give back is a difference, not a reason to stop. */
function canRead(backing: Readable, offset: number, into: Buffer): boolean {
  try {
    backing.read(offset, into)
    return true
  } catch (error) {
    if (error instanceof StorageError) return false
    throw error
  }
}
