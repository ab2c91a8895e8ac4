import { leafBlocks } from '../intercept/addon.js'
import { chainOf } from './catalog.js'
import type { BlockIndex, LayerId, Location } from './geometry.js'
import type { HoleSet } from './hole-set.js'
import type { LayerMap } from './layer-map.js'
import type { PoolState } from './state.js'

interface Layer {
  readonly map: LayerMap
  readonly holes: HoleSet | undefined
}

const undecided = -2
const zeros = -1

/** What a volume or snapshot shows: its chain of layers, merged. The maps of all of them are here. As of now, not later. */
export class ChainView {
  readonly #layers: Layer[]

  constructor(state: PoolState, top: LayerId) {
    this.#layers = chainOf(state.catalog, top).map((id) => ({ map: mapOf(state, id), holes: state.holes.get(id) }))
  }

  /** Where the top layer has the block. */
  own(block: BlockIndex): Location | undefined {
    return this.#layers[0]!.map.get(block)
  }

  /** Where the block lies; undefined: it reads as zeros. */
  find(block: BlockIndex): Location | undefined {
    for (const { map, holes } of this.#layers) {
      const location = map.get(block)
      if (location !== undefined) return location
      if (holes?.has(block)) return undefined
    }
    return undefined
  }

  /**
   * As of NativeVolume.loadLeaf(): for each block of the leaf -1, or twice its location, and one more where the top layer
   * has it. null: nothing is mapped.
   */
  leaf(leaf: number): Float64Array | null {
    const first = (leaf * leafBlocks) as BlockIndex
    const end = (first + leafBlocks) as BlockIndex
    let entries: Float64Array | undefined
    let holed = false
    for (const [depth, { map, holes }] of this.#layers.entries()) {
      const writable = depth === 0 ? 1 : 0
      map.forEach(first, end, (block, location) => {
        entries ??= new Float64Array(leafBlocks).fill(undecided)
        if (entries[block - first] === undecided) entries[block - first] = location * 2 + writable
      })
      if (depth === this.#layers.length - 1) break
      holes?.forEach(first, end, (block, count) => {
        entries ??= new Float64Array(leafBlocks).fill(undecided)
        holed = true
        for (let at = block - first; at < block - first + count; at += 1) {
          if (entries[at] === undecided) entries[at] = zeros
        }
      })
    }
    if (!entries) return null
    for (let at = 0; at < leafBlocks; at += 1) if (entries[at] === undecided) entries[at] = zeros
    return holed && entries.every((entry) => entry === zeros) ? null : entries
  }

  /** The first block at or after this one that does not read as zeros. */
  nextMapped(from: BlockIndex): BlockIndex | undefined {
    let nearest: BlockIndex | undefined
    for (let depth = 0; depth < this.#layers.length; depth += 1) {
      const found = this.#nextVisible(depth, from, nearest)
      if (found !== undefined) nearest = found
    }
    return nearest
  }

  /** The layer's first own block that no hole above it hides, before `end`. */
  #nextVisible(depth: number, from: BlockIndex, end: BlockIndex | undefined): BlockIndex | undefined {
    const { map } = this.#layers[depth]!
    let block = map.nextMapped(from)
    while (block !== undefined && (end === undefined || block < end)) {
      let next = block
      for (let above = 0; above < depth; above += 1) next = this.#layers[above]!.holes?.nextOutside(next) ?? next
      if (next === block) return block
      block = map.nextMapped(next)
    }
    return undefined
  }
}

function mapOf(state: PoolState, layer: LayerId): LayerMap {
  const map = state.maps.get(layer)
  if (!map) throw new Error(`the map of layer ${layer} is not here`)
  return map
}
