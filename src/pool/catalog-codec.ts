import assert from 'node:assert/strict'
import { crc32c } from '../block/crc32c.js'
import { type Catalog, type DeviceEntry, type SnapshotEntry, type VolumeEntry, volumeId } from './catalog.js'
import { type LayerId, layerId } from './geometry.js'
import { poolIdBytes, writerVersion } from './label.js'
import { readLong } from './log-record.js'
import type { ImageOrigin } from './thin-pool.js'
import { copyFlags, encodeCopies } from './unit-map.js'
import { soundPageChecksum } from './unit-page.js'

/** The catalog, the holes of layers and the checksums of unit map pages, as one piece; FORMAT.md says where each byte is. */

export const CATALOG_MAGIC = 'TMCT'
export const CATALOG_VERSION = 1
export const CATALOG_HEADER_BYTES = 64
export const directoryEntryBytes = 8

export const catalogFields = {
  magic: { offset: 0, size: 4 },
  crc: { offset: 4, size: 4 },
  version: { offset: 8, size: 2 },
  headerLength: { offset: 10, size: 2 },
  writerVersion: { offset: 12, size: 4 },
  poolId: { offset: 16, size: 16 },
  sequence: { offset: 32, size: 8 },
  textBytes: { offset: 40, size: 4 },
  mapPages: { offset: 44, size: 4 },
  holesBytes: { offset: 48, size: 4 },
} as const

/** Holes of a layer: start and count of each extent, one behind the other, ascending, apart from each other. */
export type HoleExtents = Float64Array
export type LayerHoles = ReadonlyMap<LayerId, HoleExtents>

/** Which copy of each unit map page counts, and its checksum: pages of all devices in order. */
export interface MapDirectory {
  crc: Uint32Array
  copy: Uint8Array
  /** 1: the other copy is older; 0: it is the same. */
  older: Uint8Array
}

export function emptyDirectory(pages: number): MapDirectory {
  return { crc: new Uint32Array(pages), copy: new Uint8Array(pages), older: new Uint8Array(pages) }
}

export interface CatalogImage {
  readonly poolId: Buffer
  /** Of the checkpoint. */
  readonly sequence: number
  readonly catalog: Catalog
  readonly holes: LayerHoles
  readonly directory: MapDirectory
}

export function encodeCatalog(image: CatalogImage): Buffer {
  const text = Buffer.from(catalogText(image.catalog), 'utf8')
  const { crc, copy, older } = image.directory
  const directory = Buffer.alloc(crc.length * directoryEntryBytes)
  for (let page = 0; page < crc.length; page += 1) {
    directory.writeUInt32LE(crc[page]!, page * directoryEntryBytes)
    directory.writeUInt32LE(encodeCopies(copy[page]!, older[page]!), page * directoryEntryBytes + 4)
  }
  const holes = encodeHoles(image.holes)
  const header = Buffer.alloc(CATALOG_HEADER_BYTES)
  const f = catalogFields
  header.write(CATALOG_MAGIC, f.magic.offset, 'latin1')
  header.writeUInt16LE(CATALOG_VERSION, f.version.offset)
  header.writeUInt16LE(CATALOG_HEADER_BYTES, f.headerLength.offset)
  header.writeUInt32LE(writerVersion, f.writerVersion.offset)
  image.poolId.copy(header, f.poolId.offset)
  header.writeBigUInt64LE(BigInt(image.sequence), f.sequence.offset)
  header.writeUInt32LE(text.length, f.textBytes.offset)
  header.writeUInt32LE(crc.length, f.mapPages.offset)
  header.writeUInt32LE(holes.length, f.holesBytes.offset)
  const bytes = Buffer.concat([header, text, directory, holes])
  bytes.writeUInt32LE(crc32c(bytes.subarray(f.version.offset)), f.crc.offset)
  return bytes
}

/** What encodeCatalog() takes. */
export function catalogLength({ catalog, holes, directory }: Omit<CatalogImage, 'poolId' | 'sequence'>): number {
  const parts = Buffer.byteLength(catalogText(catalog)) + directory.crc.length * directoryEntryBytes + holesBytes(holes)
  return CATALOG_HEADER_BYTES + parts
}

/** The checksum of a catalog's bytes as its header has it, or undefined when it is wrong. */
export function catalogChecksum(bytes: Buffer): number | undefined {
  return bytes.length < CATALOG_HEADER_BYTES ? undefined : soundPageChecksum(bytes, CATALOG_MAGIC)
}

/**
 * A catalog whose checksum was compared. 'newer': written by a program that knows more; undefined: of another pool, or it
 * says what no writer says.
 */
export function decodeCatalog(bytes: Buffer, poolId: Buffer): CatalogImage | 'newer' | undefined {
  const f = catalogFields
  if (bytes.readUInt16LE(f.version.offset) !== CATALOG_VERSION) return 'newer'
  if (!bytes.subarray(f.poolId.offset, f.poolId.offset + poolIdBytes).equals(poolId)) return undefined
  const textEnd = CATALOG_HEADER_BYTES + bytes.readUInt32LE(f.textBytes.offset)
  const mapPages = bytes.readUInt32LE(f.mapPages.offset)
  const directoryEnd = textEnd + mapPages * directoryEntryBytes
  if (directoryEnd + bytes.readUInt32LE(f.holesBytes.offset) !== bytes.length) return undefined
  try {
    const directory = emptyDirectory(mapPages)
    for (let page = 0; page < mapPages; page += 1) {
      directory.crc[page] = bytes.readUInt32LE(textEnd + page * directoryEntryBytes)
      const copies = bytes.readUInt32LE(textEnd + page * directoryEntryBytes + 4)
      check(copies <= 3, 'a copy')
      directory.copy[page] = copies & copyFlags.second
      directory.older[page] = (copies & copyFlags.otherIsOlder) >> 1
    }
    const catalog = parseCatalog(bytes.toString('utf8', CATALOG_HEADER_BYTES, textEnd))
    const holes = decodeHoles(bytes.subarray(directoryEnd))
    const sequence = count(readLong(bytes, f.sequence.offset))
    return { poolId, sequence, catalog, holes, directory }
  } catch (error) {
    if (error instanceof MalformedCatalog || error instanceof SyntaxError) return undefined
    throw error
  }
}

/** The catalog as JSON; the same catalog always gives the same text. */
export function catalogText(catalog: Catalog): string {
  const layers = [...catalog.layers].sort(([a], [b]) => a - b)
  const volumes = [...catalog.volumes.values()].sort((a, b) => a.id - b.id).map(volumeObject)
  const { name, createdAt, nextId, holder } = catalog
  const devices = catalog.devices.map(deviceObject)
  return JSON.stringify({ name, createdAt, nextId, ...(holder !== null && { holder }), devices, layers, volumes })
}

/** Keys in one order, whoever made the entry. */
function deviceObject({ sizeBytes, path }: DeviceEntry): DeviceEntry {
  return { sizeBytes, path }
}

export function snapshotObject({ name, layer, sizeBytes, createdAt, hidden }: SnapshotEntry): SnapshotEntry {
  return { name, layer, sizeBytes, createdAt, hidden }
}

/** As the text has it: a volume in no stream does not say so. */
export function volumeObject(volume: VolumeEntry): Omit<VolumeEntry, 'stream'> & { readonly stream?: string } {
  const { id, name, sizeBytes, layer, createdAt, role, origin, image, stream } = volume
  const snapshots = volume.snapshots.map(snapshotObject)
  const inStream = stream !== null && { stream }
  return { id, name, sizeBytes, layer, createdAt, role, origin, image: imageObject(image), ...inStream, snapshots }
}

function imageObject(image: ImageOrigin | null): ImageOrigin | null {
  if (image === null) return null
  const { volume, base, own, complete } = image
  return { volume, base, own, complete }
}

class MalformedCatalog extends Error {}

function check(condition: boolean, what: string): asserts condition {
  if (!condition) throw new MalformedCatalog(what)
}

/** Shape only; whether the parts fit together is catalogFaults()'s business. @throws SyntaxError, MalformedCatalog */
function parseCatalog(text: string): Catalog {
  const root = record(JSON.parse(text))
  const layers = list(root.layers).map((pair): [LayerId, LayerId] => {
    check(Array.isArray(pair) && pair.length === 2, 'a layer')
    return [layerId(count(pair[0])), layerId(count(pair[1]))]
  })
  const volumes = list(root.volumes).map(parseVolume)
  return {
    name: string(root.name),
    createdAt: string(root.createdAt),
    nextId: count(root.nextId),
    holder: root.holder === undefined ? null : string(root.holder),
    devices: list(root.devices).map((entry) => {
      const { sizeBytes, path } = record(entry)
      return { sizeBytes: count(sizeBytes), path: string(path) }
    }),
    layers: new Map(layers),
    volumes: new Map(volumes.map((volume) => [volume.id, volume])),
  }
}

function parseVolume(value: unknown): VolumeEntry {
  const entry = record(value)
  check(entry.role === 'volume' || entry.role === 'inbound', 'a role')
  return {
    id: volumeId(count(entry.id)),
    name: string(entry.name),
    sizeBytes: count(entry.sizeBytes),
    layer: layerId(count(entry.layer)),
    createdAt: string(entry.createdAt),
    role: entry.role,
    origin: entry.origin === null ? null : string(entry.origin),
    image: entry.image === null ? null : parseImage(record(entry.image)),
    stream: entry.stream === undefined ? null : string(entry.stream),
    snapshots: list(entry.snapshots).map(parseSnapshot),
  }
}

function parseSnapshot(value: unknown): SnapshotEntry {
  const { name, layer, sizeBytes, createdAt, hidden } = record(value)
  check(typeof hidden === 'boolean', 'hidden or not')
  return {
    name: string(name),
    layer: layerId(count(layer)),
    sizeBytes: count(sizeBytes),
    createdAt: string(createdAt),
    hidden,
  }
}

function parseImage({ volume, base, own, complete }: Record<string, unknown>): ImageOrigin {
  check(typeof complete === 'boolean', 'complete or not')
  return { volume: string(volume), base: string(base), own: own === null ? null : string(own), complete }
}

function record(value: unknown): Record<string, unknown> {
  check(typeof value === 'object' && value !== null && !Array.isArray(value), 'an object')
  return value as Record<string, unknown>
}

function list(value: unknown): unknown[] {
  check(Array.isArray(value), 'a list')
  return value
}

function string(value: unknown): string {
  check(typeof value === 'string', 'a string')
  return value
}

function count(value: unknown): number {
  check(typeof value === 'number' && Number.isSafeInteger(value) && value >= 0, 'a number')
  return value
}

/** For each layer its id and count of extents, then for each extent the gap before it and its length; numbers of 7 bits. */
export function encodeHoles(holes: LayerHoles): Buffer {
  const bytes = Buffer.allocUnsafe(holesBytes(holes))
  let at = 0
  const put = (value: number): void => {
    let rest = value
    for (; rest >= 128; rest = Math.floor(rest / 128)) bytes[at++] = (rest % 128) | 128
    bytes[at++] = rest
  }
  for (const [layer, extents] of [...holes].sort(([a], [b]) => a - b)) {
    if (extents.length === 0) continue
    put(layer)
    put(extents.length / 2)
    let end = 0
    for (let index = 0; index < extents.length; index += 2) {
      put(extents[index]! - end)
      put(extents[index + 1]!)
      end = extents[index]! + extents[index + 1]!
    }
  }
  assert.equal(at, bytes.length)
  return bytes
}

/** What they take in the catalog. */
export function holesBytes(holes: LayerHoles): number {
  let total = 0
  for (const [layer, extents] of holes) {
    if (extents.length === 0) continue
    total += numberBytes(layer) + numberBytes(extents.length / 2)
    let end = 0
    for (let index = 0; index < extents.length; index += 2) {
      total += numberBytes(extents[index]! - end) + numberBytes(extents[index + 1]!)
      end = extents[index]! + extents[index + 1]!
    }
  }
  return total
}

function numberBytes(value: number): number {
  let bytes = 1
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) bytes += 1
  return bytes
}

function decodeHoles(bytes: Buffer): Map<LayerId, HoleExtents> {
  const holes = new Map<LayerId, HoleExtents>()
  let at = 0
  const take = (): number => {
    let value = 0
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++]
      check(byte !== undefined && scale <= 2 ** 49, 'a number of holes')
      value += (byte & 127) * scale
      if (byte < 128) break
    }
    check(Number.isSafeInteger(value), 'a number of holes')
    return value
  }
  while (at < bytes.length) {
    const layer = layerId(take())
    const length = take()
    // Two bytes an extent at the least: nothing is made that the bytes cannot fill.
    check(!holes.has(layer) && length > 0 && length <= (bytes.length - at) / 2, 'holes of a layer')
    const extents = new Float64Array(length * 2)
    let end = 0
    for (let index = 0; index < extents.length; index += 2) {
      const gap = take()
      const blocks = take()
      check((gap > 0 || index === 0) && blocks > 0 && Number.isSafeInteger(end + gap + blocks), 'an extent')
      extents[index] = end + gap
      extents[index + 1] = blocks
      end += gap + blocks
    }
    holes.set(layer, extents)
  }
  return holes
}
