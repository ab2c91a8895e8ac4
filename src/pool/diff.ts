import { BlockSet } from './block-set.js'
import { chainOf } from './catalog.js'
import type { BlockIndex, LayerId } from './geometry.js'
import type { LayerLoader } from './layer-loader.js'
import type { PoolState } from './state.js'
import type { ByteExtent } from './thin-pool.js'
import { freeSlot } from './unit-page.js'

/**
 * What may differ between two frozen or top layers: what the layers say that only one of them stands on. Everything below
 * the last layer both stand on is common to them.
 *
 * Inside the pool's structure lock. @throws StorageError POOL_DAMAGED
 */
export async function changedBlocks(
  state: PoolState,
  loader: LayerLoader,
  from: LayerId,
  to: LayerId,
): Promise<BlockSet> {
  const fromChain = chainOf(state.catalog, from)
  const toChain = chainOf(state.catalog, to)
  const common = new Set(fromChain)
  const ancestor = toChain.find((layer) => common.has(layer))
  const above = (chain: readonly LayerId[]): readonly LayerId[] =>
    ancestor === undefined ? chain : chain.slice(0, chain.indexOf(ancestor))
  const changed = new BlockSet()
  for (const layer of [...above(fromChain), ...above(toChain)]) {
    for (const { block, count } of state.holes.get(layer) ?? []) changed.add(block, count)
    await forEachOwn(state, loader, layer, (block) => changed.add(block))
  }
  return changed
}

/** What a layer and all it stands on map together. As above. */
export async function mappedBlocks(state: PoolState, loader: LayerLoader, top: LayerId): Promise<BlockSet> {
  const mapped = new BlockSet()
  // From the root up: what comes later hides what was before.
  for (const layer of chainOf(state.catalog, top).reverse()) {
    const own = new BlockSet()
    await forEachOwn(state, loader, layer, (block) => own.add(block))
    for (const { block, count } of state.holes.get(layer) ?? []) mapped.delete(block, count)
    for (const { block, count } of own.extents()) mapped.add(block, count)
  }
  return mapped
}

/** @param sizeBytes what lies behind it is left out */
export function byteExtents(blocks: BlockSet, blockBytes: number, sizeBytes: number): ByteExtent[] {
  const extents: ByteExtent[] = []
  for (const { block, count } of blocks.extents()) {
    const offset = block * blockBytes
    const end = Math.min(offset + count * blockBytes, sizeBytes)
    if (end > offset) extents.push({ offset, lengthBytes: end - offset })
  }
  return extents
}

async function forEachOwn(
  state: PoolState,
  loader: LayerLoader,
  layer: LayerId,
  visit: (block: BlockIndex) => void,
): Promise<void> {
  const map = state.maps.get(layer)
  if (map) {
    map.forEach(0 as BlockIndex, Number.MAX_SAFE_INTEGER as BlockIndex, visit)
    return
  }
  const units = state.units.unitsOf(layer).sort((a, b) => a - b)
  await loader.readLayer(layer, units, (_index, blocks) => {
    for (const block of blocks) if (block !== freeSlot) visit(block as BlockIndex)
  })
}
