import { type Catalog, childCounts, isWritten, namedLayers, type VolumeEntry, writtenName } from './catalog.js'
import { type LayerId, noLayer } from './geometry.js'

/**
 * What a catalog says that applyOperation() never makes, in words; none for a sound one. Only when there are none may the
 * rest of the code look at it.
 */
export function catalogFaults(catalog: Catalog): string[] {
  const faults = layerFaults(catalog)
  const names = new Set<string>()
  const holders = new Map<LayerId, string>()
  const children = childCounts(catalog)
  const take = (layer: LayerId, holder: string): void => {
    const before = holders.get(layer)
    if (!catalog.layers.has(layer)) faults.push(`${holder} has layer ${layer}, which does not exist`)
    if (before !== undefined) faults.push(`${holder} and ${before} both have layer ${layer}`)
    holders.set(layer, holder)
  }
  for (const volume of catalog.volumes.values()) {
    if (names.has(volume.name)) faults.push(`two volumes are called ${volume.name}`)
    names.add(volume.name)
    take(volume.layer, isWritten(volume) ? `what was written to ${volume.name}` : volume.name)
    if (children.has(volume.layer)) faults.push(`the top layer of ${volume.name} is under another`)
    if (volume.sizeBytes <= 0) faults.push(`${volume.name} has no size`)
    if (volume.id >= catalog.nextId) faults.push(`the id of ${volume.name} will be used again`)
    faults.push(...snapshotFaults(volume))
    for (const { name, layer } of volume.snapshots) take(layer, `${volume.name}@${name}`)
  }
  return [...faults, ...writtenFaults(catalog)]
}

/** What was written to a snapshot stands on it. */
function writtenFaults({ volumes, layers }: Catalog): string[] {
  const taken = new Map<string, LayerId>()
  for (const volume of volumes.values()) {
    for (const { name, layer } of volume.snapshots) taken.set(writtenName(volume.name, name), layer)
  }
  const faults: string[] = []
  for (const volume of volumes.values()) {
    if (!isWritten(volume)) continue
    if (layers.get(volume.layer) !== taken.get(volume.name))
      faults.push(`what was written to ${volume.name} is not over it`)
    if (volume.snapshots.length > 0) faults.push(`what was written to ${volume.name} has snapshots`)
  }
  return faults
}

function snapshotFaults(volume: VolumeEntry): string[] {
  const faults: string[] = []
  const names = new Set<string>()
  for (const { name, sizeBytes } of volume.snapshots) {
    if (names.has(name)) faults.push(`two snapshots are called ${volume.name}@${name}`)
    if (sizeBytes <= 0) faults.push(`${volume.name}@${name} has no size`)
    names.add(name)
  }
  return faults
}

function layerFaults({ layers, nextId }: Catalog): string[] {
  const faults: string[] = []
  /** Layers that lead to a root. */
  const sound = new Set<LayerId>([noLayer])
  for (const layer of layers.keys()) {
    const path: LayerId[] = []
    let at: LayerId | undefined = layer
    while (at !== undefined && !sound.has(at) && !path.includes(at)) {
      path.push(at)
      at = layers.get(at)
    }
    if (at === undefined) faults.push(`a parent of layer ${layer} does not exist`)
    else if (!sound.has(at)) faults.push(`layer ${layer} is below itself`)
    else for (const each of path) sound.add(each)
    if (layer === noLayer || layer >= nextId) faults.push(`layer ${layer} is not an id that was given out`)
  }
  return faults
}

/** Volumes and snapshots that show something of each layer, by layer. */
export function showingLayers(catalog: Catalog): Map<LayerId, string[]> {
  const showing = new Map<LayerId, string[]>()
  const note = (top: LayerId, name: string): void => {
    for (let at: LayerId = top; at !== noLayer; at = catalog.layers.get(at) ?? noLayer) {
      const names = showing.get(at)
      if (names) names.push(name)
      else showing.set(at, [name])
    }
  }
  for (const volume of catalog.volumes.values()) {
    note(volume.layer, isWritten(volume) ? `${volume.name} as it was written to` : volume.name)
    for (const snapshot of volume.snapshots) note(snapshot.layer, `${volume.name}@${snapshot.name}`)
  }
  return showing
}

/** Blocks that a layer may have: what a volume or snapshot with it shows. None for a layer that nobody names. */
export function layerLimits(catalog: Catalog, blockBytes: number): Map<LayerId, number> {
  const limits = new Map<LayerId, number>()
  const named = namedLayers(catalog)
  for (const volume of catalog.volumes.values()) {
    for (const { layer, sizeBytes } of [volume, ...volume.snapshots]) {
      if (named.has(layer)) limits.set(layer, Math.ceil(sizeBytes / blockBytes))
    }
  }
  return limits
}
