import assert from 'node:assert/strict'
import { type LayerId, noLayer } from './geometry.js'
import type { ImageOrigin } from './thin-pool.js'

const ofSnapshot = '@'

/** A volume in the catalog, from 1 on; never used again for another. */
export type VolumeId = number & { readonly kind: 'volume-id' }
export const volumeId = (value: number): VolumeId => value as VolumeId

export interface SnapshotEntry {
  readonly name: string
  /** Frozen. */
  readonly layer: LayerId
  readonly sizeBytes: number
  readonly createdAt: string
  readonly hidden: boolean
}

export interface VolumeEntry {
  readonly id: VolumeId
  readonly name: string
  readonly sizeBytes: number
  /** The top layer: the only one that is written; it has no children and nobody else names it. */
  readonly layer: LayerId
  readonly createdAt: string
  readonly role: 'volume' | 'inbound'
  /** VOLUME@SNAPSHOT as they were called when it was cloned. */
  readonly origin: string | null
  readonly image: ImageOrigin | null
  /** That records it in a journal of the holder's agent, which answers its flushes; or null. */
  readonly stream: string | null
  /** Oldest first. */
  readonly snapshots: readonly SnapshotEntry[]
}

export interface DeviceEntry {
  readonly sizeBytes: number
  /** Where it was when it was added: for people who look for a missing one. */
  readonly path: string
}

/**
 * What a pool holds: volumes, snapshots and layers. Changed by applyOperation() alone, in the order of the mapping log.
 * The holes of layers are kept beside it.
 */
export interface Catalog {
  readonly name: string
  readonly createdAt: string
  /** Ids of volumes and layers from here on were never used. */
  nextId: number
  /** Made anew by each agent that opens the pool and did not have it last; null: by none that knows of it. */
  holder: string | null
  readonly devices: DeviceEntry[]
  /** Each layer's parent; noLayer for a root. */
  readonly layers: Map<LayerId, LayerId>
  readonly volumes: Map<VolumeId, VolumeEntry>
}

/** The ids are chosen by the caller, from `nextId` on: an operation gives the same catalog whenever it is applied. */
export type Operation =
  | {
      readonly op: 'create-volume'
      readonly volume: VolumeId
      readonly layer: LayerId
      readonly name: string
      readonly sizeBytes: number
      readonly createdAt: string
      readonly role: 'volume' | 'inbound'
    }
  /** A volume over a snapshot's layer. */
  | {
      readonly op: 'clone'
      readonly volume: VolumeId
      readonly layer: LayerId
      readonly name: string
      readonly from: VolumeId
      readonly snapshot: string
      readonly createdAt: string
    }
  /** Without snapshots. Its layers become garbage. */
  | { readonly op: 'remove-volume'; readonly volume: VolumeId }
  /** `replace`: that volume's snapshots become this one's, and it goes. What was written to snapshots stays theirs. */
  | { readonly op: 'rename-volume'; readonly volume: VolumeId; readonly name: string; readonly replace?: VolumeId }
  /** To a smaller size: HOLE records for what is cut off come first. */
  | { readonly op: 'resize'; readonly volume: VolumeId; readonly sizeBytes: number }
  /** The top layer becomes the snapshot's; `layer` is the new one on it. */
  | {
      readonly op: 'snapshot'
      readonly volume: VolumeId
      readonly name: string
      readonly layer: LayerId
      readonly createdAt: string
      readonly hidden: boolean
    }
  /** With what was written to it. */
  | { readonly op: 'remove-snapshot'; readonly volume: VolumeId; readonly name: string }
  /** `layer` becomes the volume's top layer, over the snapshot's; the old one becomes garbage. */
  | { readonly op: 'rollback'; readonly volume: VolumeId; readonly name: string; readonly layer: LayerId }
  | { readonly op: 'set-image'; readonly volume: VolumeId; readonly image: ImageOrigin | null }
  | { readonly op: 'set-stream'; readonly volume: VolumeId; readonly stream: string | null }
  /** Streams are those of the holder: of another than before no volume is in any. */
  | { readonly op: 'hold'; readonly holder: string }
  | { readonly op: 'add-device'; readonly device: number; readonly sizeBytes: number; readonly path: string }
  /** A garbage layer's units are all its only child's: that gets its parent. Holes are moved by the caller. */
  | { readonly op: 'merged'; readonly layer: LayerId; readonly child: LayerId }
  /** A garbage layer without children has no units left. */
  | { readonly op: 'dropped'; readonly layer: LayerId }

export function emptyCatalog(name: string, createdAt: string, devices: readonly DeviceEntry[]): Catalog {
  return { name, createdAt, nextId: 1, holder: null, devices: [...devices], layers: new Map(), volumes: new Map() }
}

/**
 * Change the catalog as the operation says. An operation that does not fit is a broken invariant: it asserts, and the
 * catalog is as before.
 */
export function applyOperation(catalog: Catalog, operation: Operation): void {
  switch (operation.op) {
    case 'create-volume': {
      const { volume: id, layer, name, sizeBytes, createdAt, role } = operation
      assertNewName(catalog, name)
      addIds(catalog, id, layer, noLayer)
      const entry = {
        id,
        name,
        sizeBytes,
        layer,
        createdAt,
        role,
        origin: null,
        image: null,
        stream: null,
        snapshots: [],
      }
      catalog.volumes.set(id, entry)
      return
    }
    case 'clone': {
      const { volume: id, layer, name, from, createdAt } = operation
      const source = volumeIn(catalog, from)
      const snapshot = snapshotIn(source, operation.snapshot)
      assertNewName(catalog, name)
      addIds(catalog, id, layer, snapshot.layer)
      const origin = `${source.name}@${snapshot.name}`
      const { sizeBytes } = snapshot
      const entry = { id, name, sizeBytes, layer, createdAt, origin, image: null, stream: null, snapshots: [] }
      catalog.volumes.set(id, { ...entry, role: 'volume' })
      return
    }
    case 'remove-volume': {
      const volume = volumeIn(catalog, operation.volume)
      assert.equal(volume.snapshots.length, 0, `volume ${volume.id} has no snapshots`)
      catalog.volumes.delete(volume.id)
      return
    }
    case 'rename-volume':
      rename(catalog, operation.volume, operation.name, operation.replace)
      return
    case 'resize': {
      assert(operation.sizeBytes > 0, 'a size')
      change(catalog, operation.volume, { sizeBytes: operation.sizeBytes })
      return
    }
    case 'snapshot': {
      const { name, layer, createdAt, hidden } = operation
      const volume = volumeIn(catalog, operation.volume)
      assert(!findSnapshot(volume, name), `volume ${volume.id} has no snapshot ${name}`)
      addIds(catalog, 0, layer, volume.layer)
      const snapshot = { name, layer: volume.layer, sizeBytes: volume.sizeBytes, createdAt, hidden }
      change(catalog, volume.id, { layer, snapshots: [...volume.snapshots, snapshot] })
      return
    }
    case 'remove-snapshot': {
      const volume = volumeIn(catalog, operation.volume)
      const gone = snapshotIn(volume, operation.name)
      const written = findWritten(catalog, volume, gone.name)
      if (written) catalog.volumes.delete(written.id)
      change(catalog, volume.id, { snapshots: volume.snapshots.filter((snapshot) => snapshot !== gone) })
      return
    }
    case 'rollback': {
      const volume = volumeIn(catalog, operation.volume)
      const { layer, sizeBytes } = snapshotIn(volume, operation.name)
      addIds(catalog, 0, operation.layer, layer)
      change(catalog, volume.id, { layer: operation.layer, sizeBytes })
      return
    }
    case 'set-image':
      change(catalog, operation.volume, { image: operation.image })
      return
    case 'set-stream':
      change(catalog, operation.volume, { stream: operation.stream })
      return
    case 'hold':
      assert(operation.holder.length > 0, 'a holder')
      catalog.holder = operation.holder
      for (const { id, stream } of catalog.volumes.values()) if (stream !== null) change(catalog, id, { stream: null })
      return
    case 'add-device':
      assert.equal(operation.device, catalog.devices.length, 'devices are added in order')
      catalog.devices.push({ sizeBytes: operation.sizeBytes, path: operation.path })
      return
    case 'merged': {
      const { layer, child } = operation
      const parent = garbageParent(catalog, layer)
      assert.deepEqual(childrenOf(catalog, layer), [child], `layer ${layer} has one child`)
      catalog.layers.delete(layer)
      catalog.layers.set(child, parent)
      return
    }
    case 'dropped':
      garbageParent(catalog, operation.layer)
      assert.equal(childrenOf(catalog, operation.layer).length, 0, `layer ${operation.layer} has no child`)
      catalog.layers.delete(operation.layer)
      return
    default:
      assert.fail(`an operation ${JSON.stringify(operation)}`)
  }
}

/** The layer and what it stands on, to the root. */
export function chainOf(catalog: Catalog, layer: LayerId): LayerId[] {
  const chain: LayerId[] = []
  for (let at = layer; at !== noLayer; at = parentOf(catalog, at)) chain.push(at)
  return chain
}

export function parentOf(catalog: Catalog, layer: LayerId): LayerId {
  const parent = catalog.layers.get(layer)
  assert(parent !== undefined, `layer ${layer} exists`)
  return parent
}

/** Looks at every layer: for the background, and for few layers. */
export function childrenOf(catalog: Catalog, layer: LayerId): LayerId[] {
  const children: LayerId[] = []
  for (const [id, parent] of catalog.layers) if (parent === layer) children.push(id)
  return children
}

/** Children of every layer that has any. */
export function childCounts(catalog: Catalog): Map<LayerId, number> {
  const counts = new Map<LayerId, number>()
  for (const parent of catalog.layers.values()) {
    if (parent !== noLayer) counts.set(parent, (counts.get(parent) ?? 0) + 1)
  }
  return counts
}

/** Layers that a volume or snapshot names. */
export function namedLayers(catalog: Catalog): Set<LayerId> {
  const named = new Set<LayerId>()
  for (const volume of catalog.volumes.values()) {
    named.add(volume.layer)
    for (const snapshot of volume.snapshots) named.add(snapshot.layer)
  }
  return named
}

/** Layers that nobody names, oldest first: to be merged into their only child, dropped, or kept for their children. */
export function garbageLayers(catalog: Catalog): LayerId[] {
  const named = namedLayers(catalog)
  return [...catalog.layers.keys()].filter((layer) => !named.has(layer)).sort((a, b) => a - b)
}

export function findVolume(catalog: Catalog, name: string): VolumeEntry | undefined {
  for (const volume of catalog.volumes.values()) if (volume.name === name) return volume
  return undefined
}

export function findSnapshot(volume: VolumeEntry, name: string): SnapshotEntry | undefined {
  return volume.snapshots.find((snapshot) => snapshot.name === name)
}

/**
 * What a host wrote to a snapshot is a thin clone of it under this name, which no operator can give: it comes and goes
 * with the snapshot, and is shown as the snapshot's.
 */
export function writtenName(volume: string, snapshot: string): string {
  return `${volume}${ofSnapshot}${snapshot}`
}

/** It holds what was written to a snapshot, and is no volume of its own to anybody. */
export function isWritten({ name }: VolumeEntry): boolean {
  return name.includes(ofSnapshot)
}

export function findWritten(catalog: Catalog, volume: VolumeEntry, snapshot: string): VolumeEntry | undefined {
  return findVolume(catalog, writtenName(volume.name, snapshot))
}

function rename(catalog: Catalog, id: VolumeId, name: string, replace: VolumeId | undefined): void {
  const volume = volumeIn(catalog, id)
  const holder = findVolume(catalog, name)
  if (replace === undefined) {
    assert(holder === undefined || holder === volume, `no volume is called ${name}`)
    renameWritten(catalog, volume, name)
    change(catalog, id, { name })
    return
  }
  const replaced = volumeIn(catalog, replace)
  assert(replaced === holder && replaced !== volume, `volume ${replace} is called ${name}`)
  for (const snapshot of replaced.snapshots) {
    assert(!findSnapshot(volume, snapshot.name), `only one of them has a snapshot ${snapshot.name}`)
  }
  renameWritten(catalog, volume, name)
  catalog.volumes.delete(replace)
  change(catalog, id, { name, snapshots: [...replaced.snapshots, ...volume.snapshots] })
}

function renameWritten(catalog: Catalog, volume: VolumeEntry, name: string): void {
  for (const snapshot of volume.snapshots) {
    const written = findWritten(catalog, volume, snapshot.name)
    if (written) change(catalog, written.id, { name: writtenName(name, snapshot.name) })
  }
}

function change(catalog: Catalog, id: VolumeId, changes: Partial<VolumeEntry>): void {
  catalog.volumes.set(id, { ...volumeIn(catalog, id), ...changes })
}

function volumeIn(catalog: Catalog, id: VolumeId): VolumeEntry {
  const volume = catalog.volumes.get(id)
  assert(volume, `volume ${id} exists`)
  return volume
}

function snapshotIn(volume: VolumeEntry, name: string): SnapshotEntry {
  const snapshot = findSnapshot(volume, name)
  assert(snapshot, `volume ${volume.id} has a snapshot ${name}`)
  return snapshot
}

function assertNewName(catalog: Catalog, name: string): void {
  assert(name.length > 0 && !findVolume(catalog, name), `no volume is called ${name}`)
}

/** The last step of an operation that can fail. @param volume 0: only a layer is new */
function addIds(catalog: Catalog, volume: number, layer: LayerId, parent: LayerId): void {
  assert(Number.isInteger(layer) && layer > 0 && layer < 2 ** 32, `${layer} is a layer id`)
  assert(Number.isInteger(volume) && volume >= 0 && volume !== layer, `${volume} is a volume id`)
  for (const id of [volume, layer]) {
    assert(!catalog.layers.has(id as LayerId) && !catalog.volumes.has(id as VolumeId), `id ${id} is new`)
  }
  catalog.layers.set(layer, parent)
  catalog.nextId = Math.max(catalog.nextId, volume + 1, layer + 1)
}

function garbageParent(catalog: Catalog, layer: LayerId): LayerId {
  const parent = parentOf(catalog, layer)
  assert(!namedLayers(catalog).has(layer), `nobody names layer ${layer}`)
  return parent
}
