import type { BlockIndex } from './geometry.js'
import type { HoleExtents } from './metadata-store.js'

export interface BlockExtent {
  readonly block: BlockIndex
  readonly count: number
}

/**
 * Blocks of a layer that read as zeros whatever its parent says: sorted extents that do not touch each other.
 *
 * An own entry of the layer hides the hole below it, so a write leaves the extents as they are and one trim of a whole
 * volume stays one extent.
 */
export class HoleSet {
  #starts: number[] = []
  #ends: number[] = []

  static fromExtents(extents: HoleExtents): HoleSet {
    const set = new HoleSet()
    for (let at = 0; at < extents.length; at += 2) set.add(extents[at] as BlockIndex, extents[at + 1]!)
    return set
  }

  /** For a checkpoint: a copy. */
  toExtents(): HoleExtents {
    const extents = new Float64Array(2 * this.extentCount)
    for (let index = 0; index < this.extentCount; index += 1) {
      extents[2 * index] = this.#starts[index]!
      extents[2 * index + 1] = this.#ends[index]! - this.#starts[index]!
    }
    return extents
  }

  get extentCount(): number {
    return this.#starts.length
  }

  has(block: BlockIndex): boolean {
    const index = this.#firstEndAfter(block)
    return index < this.#starts.length && this.#starts[index]! <= block
  }

  add(block: BlockIndex, count: number): void {
    if (count <= 0) return
    let start: number = block
    let end = block + count
    const last = this.#ends.length - 1
    if (last < 0 || this.#ends[last]! < start) {
      this.#starts.push(start)
      this.#ends.push(end)
      return
    }
    // Extents that overlap or touch become one.
    const from = this.#firstEndAfter(start - 1)
    let to = from
    while (to < this.#starts.length && this.#starts[to]! <= end) to += 1
    if (to > from) {
      start = Math.min(start, this.#starts[from]!)
      end = Math.max(end, this.#ends[to - 1]!)
    }
    this.#starts.splice(from, to - from, start)
    this.#ends.splice(from, to - from, end)
  }

  addAll(other: HoleSet): void {
    if (other.extentCount > 64 && this.extentCount > 64) {
      this.#merge(other)
      return
    }
    for (const { block, count } of other) this.add(block, count)
  }

  /** The first block at or after this one that is no hole. */
  nextOutside(block: BlockIndex): BlockIndex {
    const index = this.#firstEndAfter(block)
    return index < this.#starts.length && this.#starts[index]! <= block ? (this.#ends[index]! as BlockIndex) : block
  }

  /** Call back for what lies in [from, to), in order. */
  forEach(from: BlockIndex, to: BlockIndex, visit: (block: BlockIndex, count: number) => void): void {
    for (let index = this.#firstEndAfter(from); index < this.#starts.length; index += 1) {
      const start = Math.max(this.#starts[index]!, from)
      const end = Math.min(this.#ends[index]!, to)
      if (start >= to) return
      visit(start as BlockIndex, end - start)
    }
  }

  *[Symbol.iterator](): Generator<BlockExtent> {
    for (let index = 0; index < this.#starts.length; index += 1) {
      yield { block: this.#starts[index]! as BlockIndex, count: this.#ends[index]! - this.#starts[index]! }
    }
  }

  #merge(other: HoleSet): void {
    const merged = new HoleSet()
    let mine = 0
    let its = 0
    while (mine < this.#starts.length || its < other.#starts.length) {
      const isMine =
        its === other.#starts.length || (this.#starts[mine] ?? Number.POSITIVE_INFINITY) <= other.#starts[its]!
      const start = isMine ? this.#starts[mine]! : other.#starts[its]!
      const end = isMine ? this.#ends[mine++]! : other.#ends[its++]!
      merged.add(start as BlockIndex, end - start)
    }
    this.#starts = merged.#starts
    this.#ends = merged.#ends
  }

  /** Index of the first extent that ends after the block. */
  #firstEndAfter(block: number): number {
    let low = 0
    let high = this.#ends.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#ends[middle]! <= block) low = middle + 1
      else high = middle
    }
    return low
  }
}
