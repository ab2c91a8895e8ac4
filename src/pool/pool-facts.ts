import type { VolumeEntry } from './catalog.js'
import type { LayerId } from './geometry.js'
import type { PoolState } from './state.js'
import type { ThinVolumeFacts } from './thin-pool.js'

export function volumeFacts(state: PoolState, volume: VolumeEntry): ThinVolumeFacts {
  const allocated = (layer: LayerId): number => state.units.unitCount(layer) * state.geometry.unitBytes
  const snapshots = volume.snapshots.map(({ name, createdAt, sizeBytes, layer, hidden }) => ({
    name,
    createdAt,
    sizeBytes,
    allocatedBytes: allocated(layer),
    hidden,
  }))
  const { name, sizeBytes, createdAt, role, origin, image } = volume
  const allocatedBytes = snapshots.reduce((sum, snapshot) => sum + snapshot.allocatedBytes, allocated(volume.layer))
  return { name, sizeBytes, createdAt, role, allocatedBytes, origin, image, snapshots }
}
