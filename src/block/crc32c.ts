import { crc32c as compute } from '@node-rs/crc32'

/** CRC-32C (Castagnoli), continued from `previous`. An accident detector, never authentication. */
export function crc32c(bytes: Uint8Array, previous = 0): number {
  return compute(bytes as Buffer, previous) >>> 0
}
