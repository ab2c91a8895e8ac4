import type { BlockIndex } from './geometry.js'
import type { BlockExtent } from './hole-set.js'

const leafBlocks = 4096
const wordBits = 32
const leafWords = leafBlocks / wordBits

/** Many blocks of one volume: a bit each, in leaves of 4,096 blocks that cost nothing while they are empty. */
export class BlockSet {
  readonly #leaves = new Map<number, Uint32Array>()

  add(block: BlockIndex, count = 1): void {
    this.#change(block, count, true)
  }

  delete(block: BlockIndex, count = 1): void {
    this.#change(block, count, false)
  }

  has(block: BlockIndex): boolean {
    const leaf = this.#leaves.get(Math.floor(block / leafBlocks))
    if (!leaf) return false
    const bit = block % leafBlocks
    return ((leaf[bit >>> 5]! >>> (bit & 31)) & 1) === 1
  }

  /** Merged, in order. */
  extents(): BlockExtent[] {
    const found: BlockExtent[] = []
    let start = -1
    let end = -1
    const flush = (): void => {
      if (start >= 0) found.push({ block: start as BlockIndex, count: end - start })
    }
    for (const index of [...this.#leaves.keys()].sort((a, b) => a - b)) {
      const leaf = this.#leaves.get(index)!
      for (let bit = 0; bit < leafBlocks; bit += 1) {
        const word = leaf[bit >>> 5]!
        if (word === 0 && (bit & 31) === 0) {
          bit += wordBits - 1
          continue
        }
        if (((word >>> (bit & 31)) & 1) === 0) continue
        const block = index * leafBlocks + bit
        if (block !== end) {
          flush()
          start = block
        }
        end = block + 1
      }
    }
    flush()
    return found
  }

  #change(block: number, count: number, value: boolean): void {
    const end = block + count
    // Taking away a range longer than what is there visits only what is there.
    if (!value && count / leafBlocks > this.#leaves.size) {
      for (const index of [...this.#leaves.keys()]) {
        const first = index * leafBlocks
        const from = Math.max(first, block)
        const to = Math.min(first + leafBlocks, end)
        if (from < to) this.#changeInLeaf(index, from - first, to - first, value)
      }
      return
    }
    for (let at = block; at < end; ) {
      const index = Math.floor(at / leafBlocks)
      const first = index * leafBlocks
      const to = Math.min(first + leafBlocks, end)
      this.#changeInLeaf(index, at - first, to - first, value)
      at = to
    }
  }

  #changeInLeaf(index: number, from: number, to: number, value: boolean): void {
    let leaf = this.#leaves.get(index)
    if (!leaf) {
      if (!value) return
      leaf = new Uint32Array(leafWords)
      this.#leaves.set(index, leaf)
    }
    if (!value && from === 0 && to === leafBlocks) {
      this.#leaves.delete(index)
      return
    }
    for (let bit = from; bit < to; ) {
      const word = bit >>> 5
      const low = bit & 31
      const high = Math.min(wordBits, low + to - bit)
      const mask = high - low === wordBits ? 0xffffffff : ((2 ** (high - low) - 1) << low) >>> 0
      leaf[word] = value ? leaf[word]! | mask : leaf[word]! & ~mask
      bit += high - low
    }
  }
}
