import { randomBytes } from 'node:crypto'
import { createRequire } from 'node:module'
import { KiB } from '../block/units.js'

export const DIGEST_BLOCK_BYTES = 4 * KiB
/** 32-bit words of a digest. */
export const DIGEST_WORDS = 8

const keyBytes = DIGEST_BLOCK_BYTES + 16

interface DigestCalls {
  blockDigests(key: Uint8Array, blocks: Uint8Array, digests: Uint32Array): void
}

const native: DigestCalls = createRequire(import.meta.url)('../../../build/Release/tidemark_digest.node')

/**
 * Digests of blocks under a random key that never leaves this object (native/sys/block_digest.h): content chosen by
 * somebody who does not know the key meets another's digest with a chance of 2^-128. To be shown to nobody.
 */
export class BlockDigests {
  readonly #key = randomBytes(keyBytes)

  /** Of whole blocks, DIGEST_WORDS words each, in order, to the beginning of `digests`. */
  write(blocks: Uint8Array, digests: Uint32Array): void {
    native.blockDigests(this.#key, blocks, digests)
  }
}
