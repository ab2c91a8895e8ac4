import { isWritten, type VolumeEntry, writtenName } from './catalog.js'
import type { LayerId } from './geometry.js'
import type { PoolState } from './state.js'
import type { ThinVolumeFacts } from './thin-pool.js'

/** The layers that hold what was written to snapshots, by writtenName(). */
export function writtenLayers({ catalog }: PoolState): ReadonlyMap<string, LayerId> {
  const layers = new Map<string, LayerId>()
  for (const volume of catalog.volumes.values()) if (isWritten(volume)) layers.set(volume.name, volume.layer)
  return layers
}

export function volumeFacts(
  state: PoolState,
  volume: VolumeEntry,
  written: ReadonlyMap<string, LayerId>,
): ThinVolumeFacts {
  const allocated = (layer: LayerId): number => state.units.unitCount(layer) * state.geometry.unitBytes
  /** null: it was never attached for writing, or nothing came of that. */
  const writtenBytes = (snapshot: string): number | null => {
    const layer = written.get(writtenName(volume.name, snapshot))
    if (layer === undefined) return null
    const bytes = allocated(layer)
    return bytes > 0 || (state.holes.get(layer)?.extentCount ?? 0) > 0 ? bytes : null
  }
  const snapshots = volume.snapshots.map(({ name, createdAt, sizeBytes, layer, hidden }) => ({
    name,
    createdAt,
    sizeBytes,
    allocatedBytes: allocated(layer),
    writtenBytes: writtenBytes(name),
    hidden,
  }))
  const { name, sizeBytes, createdAt, role, origin, image, stream } = volume
  const ofSnapshots = snapshots.map((snapshot) => snapshot.allocatedBytes + (snapshot.writtenBytes ?? 0))
  const allocatedBytes = ofSnapshots.reduce((sum, bytes) => sum + bytes, allocated(volume.layer))
  return { name, sizeBytes, createdAt, role, allocatedBytes, origin, image, stream, snapshots }
}
