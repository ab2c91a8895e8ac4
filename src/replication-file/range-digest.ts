import { createHash } from 'node:crypto'
import { KiB } from '../block/units.js'

/** A range is compared in blocks of this size, from its beginning; the last one may be shorter. */
export const RANGE_BLOCK_BYTES = 64 * KiB
export const RANGE_DIGEST_BYTES = 16
export const RANGE_SALT_BYTES = 16
/** In front of the digests. */
export const RANGE_HEADER_BYTES = 32

/** What a range of a volume holds at the end of an epoch. */
export interface RangeDigest {
  readonly lengthBytes: number
  /** The comparison it belongs to: a later one has a higher number. */
  readonly run: number
  /** RANGE_SALT_BYTES, drawn for the comparison. */
  readonly salt: Buffer
  /** One of each block, in order; empty: the range reads as zeros. */
  readonly digests: Buffer
}

/**
 * The first half of SHA-256 over the salt and the block. Who chooses content does not know the salt when he does, so he
 * cannot prepare two blocks that are taken for one another.
 */
export function rangeDigest(salt: Buffer, block: Buffer): Buffer {
  return createHash('sha256').update(salt).update(block).digest().subarray(0, RANGE_DIGEST_BYTES)
}

export function rangeBlockCount(lengthBytes: number): number {
  return Math.ceil(lengthBytes / RANGE_BLOCK_BYTES)
}

/** As the payload of a DIGEST record: FORMAT.md. */
export function writeRangeDigest({ lengthBytes, run, salt, digests }: RangeDigest): Buffer {
  const bytes = Buffer.alloc(RANGE_HEADER_BYTES + digests.length)
  bytes.writeBigUInt64LE(BigInt(lengthBytes), 0)
  bytes.writeUInt32LE(run, 8)
  bytes.writeUInt32LE(digests.length > 0 ? RANGE_BLOCK_BYTES : 0, 12)
  salt.copy(bytes, 16)
  digests.copy(bytes, RANGE_HEADER_BYTES)
  return bytes
}

/** @returns undefined when it is none; the length is any number then that a caller still has to check */
export function readRangeDigest(bytes: Buffer): RangeDigest | undefined {
  if (bytes.length < RANGE_HEADER_BYTES) return undefined
  const length = bytes.readBigUInt64LE(0)
  if (length > BigInt(Number.MAX_SAFE_INTEGER)) return undefined
  const lengthBytes = Number(length)
  const run = bytes.readUInt32LE(8)
  const blockBytes = bytes.readUInt32LE(12)
  const digests = Buffer.from(bytes.subarray(RANGE_HEADER_BYTES))
  const wanted = blockBytes === 0 ? 0 : rangeBlockCount(lengthBytes) * RANGE_DIGEST_BYTES
  if (run === 0 || digests.length !== wanted) return undefined
  if (blockBytes !== 0 && (blockBytes !== RANGE_BLOCK_BYTES || wanted === 0)) return undefined
  return { lengthBytes, run, salt: Buffer.from(bytes.subarray(16, RANGE_HEADER_BYTES)), digests }
}
