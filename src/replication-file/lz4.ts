import { compressSync, uncompressSync } from 'lz4-napi'
import { KiB } from '../block/units.js'

/** Stored as it is. */
export const ENCODING_STORED = 0
/** A 4-byte raw length and an LZ4 block. */
export const ENCODING_LZ4 = 1

export interface Encoded {
  readonly encoding: number
  readonly stored: Buffer
}

/** One sample each `sampleEvery` bytes; shorter than two of those is not worth a look. */
const sampleBytes = 4 * KiB
const sampleEvery = 64 * KiB

/**
 * Compress when it shrinks. Synchronous: for workers.
 *
 * What is encrypted or compressed already is seen from samples, for a sixteenth of the time: what does not shrink there
 * by one part in 64 is stored.
 */
export function shrink(raw: Buffer): Encoded {
  if (raw.length === 0 || !maybeShrinks(raw)) return { encoding: ENCODING_STORED, stored: raw }
  const block = compressSync(raw)
  return block.length < raw.length
    ? { encoding: ENCODING_LZ4, stored: block }
    : { encoding: ENCODING_STORED, stored: raw }
}

function maybeShrinks(raw: Buffer): boolean {
  if (raw.length < 2 * sampleEvery) return true
  const samples: Buffer[] = []
  for (let at = 0; at + sampleBytes <= raw.length; at += sampleEvery) samples.push(raw.subarray(at, at + sampleBytes))
  const sample = Buffer.concat(samples)
  return compressSync(sample).length < sample.length - sample.length / 64
}

/**
 * The raw bytes, or undefined when they are not what was promised.
 *
 * The library believes the length in front of the block and allocates it (27 bytes that claim 4 GiB stall it for
 * seconds and succeed), so the claim is compared with the authenticated length before the call, and the result after it.
 */
export function expand(encoding: number, stored: Buffer, rawLength: number): Buffer | undefined {
  if (encoding === ENCODING_STORED) return stored.length === rawLength ? stored : undefined
  if (encoding !== ENCODING_LZ4 || stored.length < 5 || stored.readUInt32LE(0) !== rawLength) return undefined
  try {
    const raw = uncompressSync(stored)
    return raw.length === rawLength ? raw : undefined
  } catch {
    return undefined
  }
}
