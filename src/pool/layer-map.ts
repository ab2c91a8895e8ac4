import type { BlockIndex, Location } from './geometry.js'

/** Entries of a chunk: neighbours on a volume are mostly mapped together. */
const chunkBlocks = 64
/** Chunks of a leaf: what a search for the next mapped block steps over. */
const leafChunks = 64
/** Chunks whose memory is one array. */
const slabChunks = 64

const absent = -1

/**
 * The own entries of one layer: where its blocks lie. What it does not say, its parent may.
 *
 * 8 bytes a block in chunks of 64, and about 40 bytes for each chunk.
 */
export class LayerMap {
  /** Chunk index to the place of its entries: slab and chunk in the slab. */
  readonly #chunks = new Map<number, number>()
  readonly #slabs: Float64Array[] = []
  readonly #counts: number[] = []
  readonly #spare: number[] = []
  /** Leaf index to the count of its chunks. */
  readonly #leaves = new Map<number, number>()
  #sortedLeaves: number[] | undefined
  #size = 0
  /** The chunk that was looked for last, if there is one: the next is mostly the same. */
  #recentChunk = -1
  #recentPlace = -1

  /** Mapped blocks. */
  get size(): number {
    return this.#size
  }

  get(block: BlockIndex): Location | undefined {
    const place = this.#place(Math.floor(block / chunkBlocks))
    if (place === undefined) return undefined
    const location = this.#entry(place, block % chunkBlocks)
    return location === absent ? undefined : (location as Location)
  }

  has(block: BlockIndex): boolean {
    return this.get(block) !== undefined
  }

  /** What the block had before. */
  set(block: BlockIndex, location: Location): Location | undefined {
    const chunk = Math.floor(block / chunkBlocks)
    const place = this.#place(chunk) ?? this.#addChunk(chunk)
    const before = this.#put(place, block % chunkBlocks, location)
    if (before !== absent) return before as Location
    this.#counts[place]! += 1
    this.#size += 1
    return undefined
  }

  /** What the block had. */
  delete(block: BlockIndex): Location | undefined {
    const chunk = Math.floor(block / chunkBlocks)
    const place = this.#place(chunk)
    if (place === undefined) return undefined
    const before = this.#put(place, block % chunkBlocks, absent)
    if (before === absent) return undefined
    this.#size -= 1
    this.#counts[place]! -= 1
    if (this.#counts[place] === 0) this.#removeChunk(chunk, place)
    return before as Location
  }

  /** The first mapped block at or after this one. */
  nextMapped(from: BlockIndex): BlockIndex | undefined {
    const leaves = this.#leavesInOrder()
    const firstLeaf = Math.floor(from / chunkBlocks / leafChunks)
    for (let index = lowerBound(leaves, firstLeaf); index < leaves.length; index += 1) {
      const found = this.#nextInLeaf(leaves[index]!, from)
      if (found !== undefined) return found
    }
    return undefined
  }

  /** Call back for each mapped block in [from, to), in order. The entries may be changed in the callback. */
  forEach(from: BlockIndex, to: BlockIndex, visit: (block: BlockIndex, location: Location) => void): void {
    for (const chunk of this.#chunksBetween(from, to)) {
      const place = this.#chunks.get(chunk)
      if (place === undefined) continue
      const first = chunk * chunkBlocks
      const end = Math.min(first + chunkBlocks, to)
      // The chunk goes when its last entry is taken: what is visited is a copy.
      const entries = this.#slabs[Math.floor(place / slabChunks)]!.slice(
        (place % slabChunks) * chunkBlocks,
        (place % slabChunks) * chunkBlocks + chunkBlocks,
      )
      for (let block = Math.max(first, from); block < end; block += 1) {
        const location = entries[block - first]!
        if (location !== absent) visit(block as BlockIndex, location as Location)
      }
    }
  }

  /** In order. A long range costs no more than what is mapped, a short one no more than its length. */
  #chunksBetween(from: number, to: number): number[] {
    const first = Math.floor(from / chunkBlocks)
    const end = Math.ceil(to / chunkBlocks)
    const found: number[] = []
    if (end - first <= this.#chunks.size) {
      for (let chunk = first; chunk < end; chunk += 1) if (this.#chunks.has(chunk)) found.push(chunk)
      return found
    }
    for (const chunk of this.#chunks.keys()) if (chunk >= first && chunk < end) found.push(chunk)
    return found.sort((a, b) => a - b)
  }

  #nextInLeaf(leaf: number, from: number): BlockIndex | undefined {
    const end = (leaf + 1) * leafChunks
    for (let chunk = Math.max(leaf * leafChunks, Math.floor(from / chunkBlocks)); chunk < end; chunk += 1) {
      const place = this.#chunks.get(chunk)
      if (place === undefined) continue
      const first = chunk * chunkBlocks
      for (let slot = Math.max(0, from - first); slot < chunkBlocks; slot += 1) {
        if (this.#entry(place, slot) !== absent) return (first + slot) as BlockIndex
      }
    }
    return undefined
  }

  #place(chunk: number): number | undefined {
    if (chunk === this.#recentChunk) return this.#recentPlace
    const place = this.#chunks.get(chunk)
    if (place === undefined) return undefined
    this.#recentChunk = chunk
    this.#recentPlace = place
    return place
  }

  #leavesInOrder(): number[] {
    this.#sortedLeaves ??= [...this.#leaves.keys()].sort((a, b) => a - b)
    return this.#sortedLeaves
  }

  #entry(place: number, slot: number): number {
    return this.#slabs[Math.floor(place / slabChunks)]![(place % slabChunks) * chunkBlocks + slot]!
  }

  #put(place: number, slot: number, value: number): number {
    const slab = this.#slabs[Math.floor(place / slabChunks)]!
    const at = (place % slabChunks) * chunkBlocks + slot
    const before = slab[at]!
    slab[at] = value
    return before
  }

  #addChunk(chunk: number): number {
    let place = this.#spare.pop()
    if (place === undefined) {
      place = this.#counts.length
      if (place % slabChunks === 0) this.#slabs.push(new Float64Array(slabChunks * chunkBlocks).fill(absent))
      this.#counts.push(0)
    }
    this.#chunks.set(chunk, place)
    const leaf = Math.floor(chunk / leafChunks)
    const count = this.#leaves.get(leaf) ?? 0
    if (count === 0) this.#sortedLeaves = undefined
    this.#leaves.set(leaf, count + 1)
    return place
  }

  #removeChunk(chunk: number, place: number): void {
    this.#chunks.delete(chunk)
    this.#recentChunk = -1
    this.#spare.push(place)
    const leaf = Math.floor(chunk / leafChunks)
    const count = this.#leaves.get(leaf)! - 1
    if (count > 0) {
      this.#leaves.set(leaf, count)
    } else {
      this.#leaves.delete(leaf)
      this.#sortedLeaves = undefined
    }
  }
}

/** Index of the first element that is not less. */
function lowerBound(sorted: readonly number[], value: number): number {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (sorted[middle]! < value) low = middle + 1
    else high = middle
  }
  return low
}
