import { type Catalog, findWritten, type Operation, type VolumeEntry } from './catalog.js'
import {
  CATALOG_HEADER_BYTES,
  directoryEntryBytes,
  holesBytes,
  type LayerHoles,
  volumeObject,
} from './catalog-codec.js'
import { type Geometry, unitsPerMapPage } from './geometry.js'

/** A layer's pair of ids in the text, at the most. */
const layerBytes = 24
const volumeOverheadBytes = 320
const snapshotOverheadBytes = 160
const deviceOverheadBytes = 64

export interface CatalogRoom {
  /** Of one copy. */
  readonly capacityBytes: number
  /** What is taken, or a little less than what is said here. */
  readonly usedBytes: number
  /** Operations that make the catalog grow leave so much, so that those that free always fit, and holes too. */
  readonly reserveBytes: number
}

/** Entries are never changed, only replaced: what each takes is reckoned once. */
const sizes = new WeakMap<VolumeEntry, number>()

/**
 * Whether volumes may make more holes. What they make until the next checkpoint looks again fits into the rest: the log
 * holds no more of them than three eighths of a catalog have room for.
 */
export function hasRoomForHoles(catalog: Catalog, holes: LayerHoles, geometry: Geometry): boolean {
  const { capacityBytes, usedBytes } = catalogRoom(catalog, holes, geometry)
  return usedBytes <= capacityBytes / 2
}

export function catalogRoom(catalog: Catalog, holes: LayerHoles | number, geometry: Geometry): CatalogRoom {
  const capacityBytes = geometry.head.catalogBytes
  const mapPages = geometry.devices.reduce((sum, device) => sum + device.mapPages, 0)
  let usedBytes = CATALOG_HEADER_BYTES + 256 + mapPages * directoryEntryBytes + catalog.layers.size * layerBytes
  usedBytes += typeof holes === 'number' ? holes : holesBytes(holes)
  for (const device of catalog.devices) usedBytes += deviceOverheadBytes + textBytes(device.path)
  for (const volume of catalog.volumes.values()) {
    const size = sizes.get(volume) ?? textBytes(volumeObject(volume)) + 1
    sizes.set(volume, size)
    usedBytes += size
  }
  return { capacityBytes, usedBytes: usedBytes + textBytes(catalog.name), reserveBytes: capacityBytes / 8 }
}

/**
 * False: the operation makes the catalog larger than it may become. Operations that free something always fit.
 *
 * @param holes of all layers, or what holesBytes() says of them
 */
export function wouldFit(
  catalog: Catalog,
  operation: Operation,
  holes: LayerHoles | number,
  geometry: Geometry,
): boolean {
  const growth = growthOf(catalog, operation, geometry)
  if (growth <= 0) return true
  const { capacityBytes, usedBytes, reserveBytes } = catalogRoom(catalog, holes, geometry)
  return usedBytes + growth + reserveBytes <= capacityBytes
}

function growthOf(catalog: Catalog, operation: Operation, geometry: Geometry): number {
  switch (operation.op) {
    case 'create-volume':
      return layerBytes + volumeOverheadBytes + textBytes(operation.name)
    case 'clone': {
      const origin = catalog.volumes.get(operation.from)?.name ?? ''
      const names = textBytes(operation.name) + textBytes(origin) + textBytes(operation.snapshot)
      return layerBytes + volumeOverheadBytes + names
    }
    case 'snapshot':
      return layerBytes + snapshotOverheadBytes + textBytes(operation.name)
    case 'rename-volume': {
      // What goes is more than a name.
      if (operation.replace !== undefined) return 0
      const volume = catalog.volumes.get(operation.volume)
      const longer = textBytes(operation.name) - textBytes(volume?.name ?? '')
      // What was written to its snapshots is called after it.
      const after = volume?.snapshots.filter(({ name }) => findWritten(catalog, volume, name)).length ?? 0
      return longer * (1 + after)
    }
    case 'set-image': {
      const old = catalog.volumes.get(operation.volume)?.image ?? null
      return textBytes(operation.image) - textBytes(old)
    }
    case 'set-stream': {
      const keyBytes = '"stream":,'.length
      const bytesOf = (stream: string | null): number => (stream === null ? 0 : keyBytes + textBytes(stream))
      return bytesOf(operation.stream) - bytesOf(catalog.volumes.get(operation.volume)?.stream ?? null)
    }
    case 'add-device': {
      const units = Math.ceil(operation.sizeBytes / geometry.unitBytes)
      const directory = Math.ceil(units / unitsPerMapPage) * directoryEntryBytes
      return deviceOverheadBytes + textBytes(operation.path) + directory
    }
    default:
      return 0
  }
}

function textBytes(value: unknown): number {
  return Buffer.byteLength(JSON.stringify(value))
}
