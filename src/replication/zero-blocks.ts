import { KiB } from '../block/units.js'

/** The grain of looking for zeros; aligned on the volume, not in the payload. */
export const ZERO_BLOCK_BYTES = 4 * KiB

/** A piece of a payload. */
export interface PayloadPiece {
  readonly zero: boolean
  /** From the beginning of the payload. */
  readonly start: number
  readonly lengthBytes: number
}

const zeros = Buffer.alloc(ZERO_BLOCK_BYTES)

/**
 * Split the payload of a write at whole, aligned blocks of zeros. The pieces cover it in order, neighbours differ; the
 * head and tail that fill no block always count as data.
 *
 * @param offset of the payload on its volume
 */
export function splitZeroBlocks(offset: number, payload: Buffer): PayloadPiece[] {
  const head = Math.min(payload.length, -offset & (ZERO_BLOCK_BYTES - 1))
  const blocksEnd = head + Math.floor((payload.length - head) / ZERO_BLOCK_BYTES) * ZERO_BLOCK_BYTES
  const pieces: PayloadPiece[] = []
  // Most payloads are a block or two, and none of zeros.
  let first = head
  while (first < blocksEnd && !isZeroBlock(payload, first)) first += ZERO_BLOCK_BYTES
  if (first >= blocksEnd) {
    if (payload.length > 0) pieces.push({ zero: false, start: 0, lengthBytes: payload.length })
    return pieces
  }
  const add = (zero: boolean, start: number, end: number) => {
    const last = pieces.at(-1)
    if (end <= start) return
    if (last?.zero === zero) pieces[pieces.length - 1] = { ...last, lengthBytes: end - last.start }
    else pieces.push({ zero, start, lengthBytes: end - start })
  }
  let done = 0
  let zero = false
  for (let at = first; at < blocksEnd; at += ZERO_BLOCK_BYTES) {
    const isZero = isZeroBlock(payload, at)
    if (isZero === zero) continue
    add(zero, done, at)
    zero = isZero
    done = at
  }
  add(zero, done, blocksEnd)
  add(false, blocksEnd, payload.length)
  return pieces
}

/** Most data shows itself in one of four bytes; the rest is compared as a whole. */
function isZeroBlock(payload: Buffer, at: number): boolean {
  if (payload[at] || payload[at + 1365] || payload[at + 2730] || payload[at + ZERO_BLOCK_BYTES - 1]) return false
  return payload.compare(zeros, 0, ZERO_BLOCK_BYTES, at, at + ZERO_BLOCK_BYTES) === 0
}
