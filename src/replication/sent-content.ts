import assert from 'node:assert/strict'
import { BlockDigests, DIGEST_BLOCK_BYTES, DIGEST_WORDS } from './block-digests.js'

export const SENT_BLOCK_BYTES = DIGEST_BLOCK_BYTES
/** 40 bytes each: 10 MiB, for 1 GiB of volume written last. */
export const SENT_ENTRY_COUNT = 262_144
const leastEntryCount = 64

const wordsPerEntry = 2 + DIGEST_WORDS
/** Digests made in one call. */
const digestsAtOnce = 256

/**
 * What the far side will hold, block by block, once all earlier epochs are applied: enough of it to leave out writes
 * of the same content.
 *
 * Invariant: an entry of (volume, block) is the digest of what the epochs packed so far leave there; a block without
 * entry is unknown. So whatever goes into an epoch must be told here, in order, and when an epoch that was told is not
 * committed, or anything else is in doubt (a new generation, a failed pack), clear() is the answer. Memory only: after
 * a restart everything is unknown.
 *
 * A direct-mapped table: two blocks that share a place push each other out. Digests are keyed (BlockDigests): with
 * hashes everybody can compute, content could be chosen that is taken for another.
 */
export class SentContent {
  /** Entry: block (low 32 bits), volume + 1 and the block's high 16 bits (0: empty), digest. */
  readonly #words: Uint32Array
  readonly #entryCount: number
  readonly #digests = new BlockDigests()
  readonly #found = new Uint32Array(digestsAtOnce * DIGEST_WORDS)

  /** As large as it can be of use for volumes of so much in all. */
  static for(volumeBytes: number): SentContent {
    let count = leastEntryCount
    while (count < SENT_ENTRY_COUNT && count * SENT_BLOCK_BYTES < volumeBytes) count *= 2
    return new SentContent(count)
  }

  get memoryBytes(): number {
    return this.#words.byteLength
  }

  /** @param entryCount a power of two */
  constructor(entryCount = SENT_ENTRY_COUNT) {
    assert(entryCount > 0 && (entryCount & (entryCount - 1)) === 0, `${entryCount} entries`)
    this.#entryCount = entryCount
    this.#words = new Uint32Array(entryCount * wordsPerEntry)
  }

  /**
   * Pass one extent of an epoch, once what it overlaps of the same epoch is folded away. Blocks that change anything
   * are remembered, or forgotten where they are covered in part.
   *
   * @returns the pieces that must be sent, in order; none when the far side holds all of it already
   */
  sift(volume: number, offset: number, payload: Buffer): { readonly start: number; readonly lengthBytes: number }[] {
    const pieces: { start: number; lengthBytes: number }[] = []
    const keep = (start: number, end: number) => {
      const last = pieces.at(-1)
      if (end <= start) return
      if (last && last.start + last.lengthBytes === start) last.lengthBytes += end - start
      else pieces.push({ start, lengthBytes: end - start })
    }
    const head = Math.min(payload.length, (SENT_BLOCK_BYTES - (offset % SENT_BLOCK_BYTES)) % SENT_BLOCK_BYTES)
    const blocksEnd = head + Math.floor((payload.length - head) / SENT_BLOCK_BYTES) * SENT_BLOCK_BYTES
    this.forget(volume, offset, head)
    keep(0, head)
    for (let from = head; from < blocksEnd; from += digestsAtOnce * SENT_BLOCK_BYTES) {
      const to = Math.min(from + digestsAtOnce * SENT_BLOCK_BYTES, blocksEnd)
      const blocks = from === 0 && to === payload.length ? payload : payload.subarray(from, to)
      this.#digests.write(blocks, this.#found)
      for (let at = from, word = 0; at < to; at += SENT_BLOCK_BYTES, word += DIGEST_WORDS) {
        if (!this.#exchange(volume, (offset + at) / SENT_BLOCK_BYTES, word)) keep(at, at + SENT_BLOCK_BYTES)
      }
    }
    this.forget(volume, offset + blocksEnd, payload.length - blocksEnd)
    keep(blocksEnd, payload.length)
    return pieces
  }

  /** Whether the far side will hold exactly this in the aligned block at `offset`. */
  isIdentical(volume: number, offset: number, block: Buffer): boolean {
    const entry = this.#entryOf(volume, blockAt(offset, block))
    this.#digests.write(block, this.#found)
    return entry.known && this.#holds(entry.at, 0)
  }

  /** The aligned block at `offset` goes into the epoch being packed. */
  remember(volume: number, offset: number, block: Buffer): void {
    const index = blockAt(offset, block)
    this.#digests.write(block, this.#found)
    this.#exchange(volume, index, 0)
  }

  /** Any extent that is sent without being remembered: part of a block, zeros, a trim. */
  forget(volume: number, offset: number, lengthBytes: number): void {
    if (lengthBytes <= 0) return
    const first = Math.floor(offset / SENT_BLOCK_BYTES)
    const last = Math.floor((offset + lengthBytes - 1) / SENT_BLOCK_BYTES)
    if (last - first >= this.#entryCount) {
      for (let at = 0; at < this.#words.length; at += wordsPerEntry) {
        const tag = this.#words[at + 1]!
        const block = (tag & 0xffff) * 2 ** 32 + this.#words[at]!
        if (tag >>> 16 === volume + 1 && block >= first && block <= last) this.#words[at + 1] = 0
      }
      return
    }
    for (let block = first; block <= last; block += 1) {
      const entry = this.#entryOf(volume, block)
      if (entry.known) this.#words[entry.at + 1] = 0
    }
  }

  clear(): void {
    this.#words.fill(0)
  }

  /** Remember the digest that was found, from this word on, and tell whether it was there already. */
  #exchange(volume: number, block: number, found: number): boolean {
    const entry = this.#entryOf(volume, block)
    if (entry.known && this.#holds(entry.at, found)) return true
    this.#words[entry.at] = entry.low
    this.#words[entry.at + 1] = entry.tag
    for (let word = 0; word < DIGEST_WORDS; word += 1) this.#words[entry.at + 2 + word] = this.#found[found + word]!
    return false
  }

  #holds(at: number, found: number): boolean {
    for (let word = 0; word < DIGEST_WORDS; word += 1) {
      if (this.#words[at + 2 + word] !== this.#found[found + word]) return false
    }
    return true
  }

  #entryOf(volume: number, block: number): { at: number; low: number; tag: number; known: boolean } {
    const high = Math.floor(block / 2 ** 32)
    if (!(volume >= 0 && volume < 0xffff && high <= 0xffff)) assert.fail(`block ${block} of volume ${volume}`)
    const low = block >>> 0
    const tag = (((volume + 1) << 16) | high) >>> 0
    // Neighbours lie side by side; volumes and high halves are spread, so that equal layouts do not meet.
    const slot = (low + Math.imul(tag, 0x9e3779b1)) & (this.#entryCount - 1)
    const at = slot * wordsPerEntry
    return { at, low, tag, known: this.#words[at] === low && this.#words[at + 1] === tag }
  }
}

function blockAt(offset: number, block: Buffer): number {
  if (offset % SENT_BLOCK_BYTES !== 0 || block.length !== SENT_BLOCK_BYTES) assert.fail(`not a block at ${offset}`)
  return offset / SENT_BLOCK_BYTES
}
