import assert from 'node:assert/strict'
import { formatBytes } from '../block/size.js'
import { StorageError } from '../block/storage-error.js'
import { KiB, MiB } from '../block/units.js'

/** Index of a block in a volume or layer, from its first byte on. */
export type BlockIndex = number & { readonly kind: 'block-index' }
/** Where a block lies: `device << 34 | block index on that device`. Below 2^40. */
export type Location = number & { readonly kind: 'location' }
/** `location / blocks a unit`: the device is in its high bits. */
export type UnitNumber = number & { readonly kind: 'unit-number' }
/** A unit of the pool counted from 0 without gaps, devices in order: the index of per-unit arrays. */
export type UnitIndex = number & { readonly kind: 'unit-index' }
/** A layer, from 1 on, below 2^32; never used again for another. */
export type LayerId = number & { readonly kind: 'layer-id' }
/** Position in the mapping log, from 0 on, never used again. */
export type LogSequence = number & { readonly kind: 'log-sequence' }

export const blockIndex = (value: number): BlockIndex => value as BlockIndex
export const poolLocation = (value: number): Location => value as Location
export const unitNumber = (value: number): UnitNumber => value as UnitNumber
export const unitIndex = (value: number): UnitIndex => value as UnitIndex
export const layerId = (value: number): LayerId => value as LayerId
export const logSequence = (value: number): LogSequence => value as LogSequence

/** No layer: the parent of a root, the owner of a free unit. */
export const noLayer = 0 as LayerId

export const pageBytes = 4 * KiB
/** Blocks that a location can count on one device. */
export const deviceBlocks = 2 ** 34
export const deviceLimit = 64
/** Units of one pool, at the most: what is kept in memory for each is about 30 bytes. */
export const unitLimit = 2 ** 24

/** The places that are the same on every device: beyond what partition tables and other systems' signatures overwrite. */
export const labelOffsets = [0, 32 * KiB] as const
export const superblockOffsets = [4 * KiB, 36 * KiB] as const
const regionsOffset = 64 * KiB

/** Entries of 12 bytes behind a header of 16: units a page of the unit map covers. */
export const unitsPerMapPage = 340
export const recordBytes = 32
/** What a unit page has room for. */
export const slotLimit = 504
/** Bytes of each catalog copy, and of the log's ring: what device 0's size gives, within these. */
const catalogLimits = { least: 64 * KiB, most: 8 * MiB }
const logLimits = { least: 128 * KiB, most: 16 * MiB }

/** What only device 0 has. Offsets and sizes in bytes. */
export interface HeadLayout {
  /** Catalog slot n lies at `catalogOffset + n * catalogBytes`. */
  readonly catalogOffset: number
  readonly catalogBytes: number
  readonly logOffset: number
  /** Capacity of the ring in records, a power of two. */
  readonly logRecords: number
}

/** Where everything lies on one device, in bytes from its beginning. Written in its label, never changed. */
export interface DeviceLayout {
  readonly index: number
  /** What the pool uses of it; what lies beyond is not touched. */
  readonly sizeBytes: number
  readonly head: HeadLayout | null
  /** Copy n of the unit map lies at `mapOffset + n * mapPages * pageBytes`. */
  readonly mapOffset: number
  readonly mapPages: number
  /** Copy n of the unit pages lies at `pagesOffset + n * unitCount * pageBytes`. */
  readonly pagesOffset: number
  /** Number on this device of the first unit with data; whatever lies before is metadata. */
  readonly firstUnit: number
  readonly unitCount: number
}

export interface PoolSizes {
  readonly unitBytes: number
  readonly blockBytes: number
}

/**
 * Where things go on a new device of so many bytes.
 *
 * @throws StorageError BAD_SIZE when it is too small or too large for these units
 */
export function layOutDevice(sizes: PoolSizes, index: number, sizeBytes: number): DeviceLayout {
  const usable = Math.floor(sizeBytes / sizes.unitBytes)
  if (Math.floor(sizeBytes / sizes.blockBytes) > deviceBlocks) {
    throw badSize(index, sizeBytes, `Blocks of ${formatBytes(sizes.blockBytes)} reach that far not: use larger blocks.`)
  }
  const head = index === 0 ? layOutHead(sizeBytes) : null
  // Reckoned for units that turn out to be metadata too, so what the rest needs fits in any case.
  const first = Math.ceil(regionsEnd(head, usable) / sizes.unitBytes)
  const unitCount = usable - first
  if (unitCount < 1) {
    const needed = (first + 1) * sizes.unitBytes
    throw badSize(
      index,
      sizeBytes,
      `With units of ${formatBytes(sizes.unitBytes)} a device needs ${formatBytes(needed)} at the least. Give it more, or choose smaller units.`,
    )
  }
  const mapPages = Math.ceil(unitCount / unitsPerMapPage)
  const mapOffset = headEnd(head)
  return {
    index,
    sizeBytes,
    head,
    mapOffset,
    mapPages,
    pagesOffset: mapOffset + 2 * mapPages * pageBytes,
    firstUnit: first,
    unitCount,
  }
}

export function arePoolSizes({ unitBytes, blockBytes }: PoolSizes): boolean {
  const blocks = unitBytes / blockBytes
  return (
    isPowerOfTwo(blockBytes) &&
    blockBytes >= 4 * KiB &&
    blockBytes <= MiB &&
    isPowerOfTwo(unitBytes) &&
    blocks >= 8 &&
    blocks <= slotLimit
  )
}

/** @throws StorageError BAD_POOL_OPTION when block or unit are no sizes a pool can have */
export function checkPoolSizes(sizes: PoolSizes): void {
  if (arePoolSizes(sizes)) return
  const { unitBytes, blockBytes } = sizes
  if (!arePoolSizes({ blockBytes, unitBytes: 8 * blockBytes })) {
    throw badOption('block', blockBytes, 'A block is a power of two from 4KiB to 1MiB.')
  }
  const range = `${formatBytes(8 * blockBytes)} to ${formatBytes(256 * blockBytes)}`
  const hint = `With blocks of ${formatBytes(blockBytes)} a unit is a power of two from ${range}.`
  throw badOption('unit', unitBytes, hint)
}

function isPowerOfTwo(value: number): boolean {
  return Number.isSafeInteger(value) && value > 0 && Number.isInteger(Math.log2(value))
}

/** False for what no writer lays out: regions that overlap, leave their device or are not made of pages. */
export function isSaneLayout(sizes: PoolSizes, layout: DeviceLayout): boolean {
  const { head } = layout
  const regions: number[] = [regionsOffset]
  if (head) {
    regions.push(head.catalogOffset, head.catalogOffset + 2 * head.catalogBytes)
    regions.push(head.logOffset, head.logOffset + head.logRecords * recordBytes)
    if (head.catalogBytes <= 0 || head.logRecords <= 0 || !Number.isInteger(Math.log2(head.logRecords))) return false
  }
  regions.push(layout.mapOffset, layout.mapOffset + 2 * layout.mapPages * pageBytes)
  regions.push(layout.pagesOffset, layout.pagesOffset + 2 * layout.unitCount * pageBytes)
  regions.push(layout.firstUnit * sizes.unitBytes, (layout.firstUnit + layout.unitCount) * sizes.unitBytes)
  regions.push(layout.sizeBytes)
  return (
    layout.unitCount > 0 &&
    layout.mapPages === Math.ceil(layout.unitCount / unitsPerMapPage) &&
    layout.index < deviceLimit &&
    regions.slice(0, -1).every((offset) => Number.isSafeInteger(offset) && offset % pageBytes === 0) &&
    regions.every((offset, at) => at === 0 || offset >= regions[at - 1]!) &&
    layout.sizeBytes / sizes.blockBytes <= deviceBlocks
  )
}

/** The whole pool's address arithmetic. Devices are added, never taken away; all who hold it see a new one. */
export class Geometry {
  readonly blockBytes: number
  readonly unitBytes: number
  readonly blocksPerUnit: number
  readonly #unitsPerDeviceNumber: number
  readonly #devices: DeviceLayout[] = []
  /** Index of the first unit of each device; at the end the count of all. */
  readonly #bases: number[] = [0]

  /** @throws StorageError BAD_POOL_OPTION */
  constructor(sizes: PoolSizes, devices: readonly DeviceLayout[]) {
    checkPoolSizes(sizes)
    this.blockBytes = sizes.blockBytes
    this.unitBytes = sizes.unitBytes
    this.blocksPerUnit = sizes.unitBytes / sizes.blockBytes
    this.#unitsPerDeviceNumber = deviceBlocks / this.blocksPerUnit
    for (const device of devices) this.addDevice(device)
  }

  /** @throws StorageError BAD_SIZE, BAD_POOL_OPTION when the pool would become too large */
  addDevice(device: DeviceLayout): void {
    assert.equal(device.index, this.#devices.length, 'devices are added in order')
    if (this.#devices.length === deviceLimit) {
      throw badOption('devices', deviceLimit + 1, `A pool has ${deviceLimit} devices at the most.`)
    }
    if (this.unitCount + device.unitCount > unitLimit) {
      const hint = `A pool has ${unitLimit} units at the most: create it with larger units.`
      throw badOption('unit', this.unitBytes, hint)
    }
    this.#devices.push(device)
    this.#bases.push(this.unitCount + device.unitCount)
  }

  get devices(): readonly DeviceLayout[] {
    return this.#devices
  }

  /** What device 0 has more than the others. */
  get head(): HeadLayout {
    const head = this.#devices[0]?.head
    assert(head, 'device 0 has the log')
    return head
  }

  /** Units that can hold data, of all devices. */
  get unitCount(): number {
    return this.#bases[this.#bases.length - 1]!
  }

  unitOf(location: Location): UnitNumber {
    return Math.floor(location / this.blocksPerUnit) as UnitNumber
  }

  /** Place of the location inside its unit. */
  slotOf(location: Location): number {
    return location % this.blocksPerUnit
  }

  locationOf(unit: UnitNumber, slot: number): Location {
    return (unit * this.blocksPerUnit + slot) as Location
  }

  deviceOf(unit: UnitNumber): number {
    return Math.floor(unit / this.#unitsPerDeviceNumber)
  }

  /** Index of the unit's device-wide place: 0 is the first unit with data of its device. */
  unitOnDevice(unit: UnitNumber): number {
    return (unit % this.#unitsPerDeviceNumber) - this.#devices[this.deviceOf(unit)]!.firstUnit
  }

  /** True when this is a unit that can hold data: false for metadata, for what is no device, and for no number. */
  hasUnit(unit: number): unit is UnitNumber {
    if (!Number.isSafeInteger(unit) || unit < 0) return false
    const device = this.#devices[Math.floor(unit / this.#unitsPerDeviceNumber)]
    if (!device) return false
    const place = (unit % this.#unitsPerDeviceNumber) - device.firstUnit
    return place >= 0 && place < device.unitCount
  }

  /** True when a block can lie there. */
  hasLocation(location: number): location is Location {
    return Number.isSafeInteger(location) && this.hasUnit(Math.floor(location / this.blocksPerUnit))
  }

  indexOf(unit: UnitNumber): UnitIndex {
    const device = Math.floor(unit / this.#unitsPerDeviceNumber)
    return (this.#bases[device]! + (unit % this.#unitsPerDeviceNumber) - this.#devices[device]!.firstUnit) as UnitIndex
  }

  unitAt(index: UnitIndex): UnitNumber {
    const device = this.deviceAt(index)
    const onDevice = index - this.#bases[device]! + this.#devices[device]!.firstUnit
    return (device * this.#unitsPerDeviceNumber + onDevice) as UnitNumber
  }

  deviceAt(index: UnitIndex): number {
    let device = 0
    while (index >= this.#bases[device + 1]!) device += 1
    return device
  }

  /** Index of a device's first unit. */
  baseOf(device: number): UnitIndex {
    return this.#bases[device]! as UnitIndex
  }

  /** For people: `device 1, unit 17`. */
  describeUnit(unit: UnitNumber): string {
    return `device ${this.deviceOf(unit)}, unit ${unit % this.#unitsPerDeviceNumber}`
  }
}

/** Bytes of the label, superblocks, catalogs and the log. */
function headEnd(head: HeadLayout | null): number {
  return head ? head.logOffset + head.logRecords * recordBytes : regionsOffset
}

/** Where metadata for so many units end. */
function regionsEnd(head: HeadLayout | null, unitCount: number): number {
  return headEnd(head) + 2 * (Math.ceil(unitCount / unitsPerMapPage) + unitCount) * pageBytes
}

function layOutHead(sizeBytes: number): HeadLayout {
  const catalogBytes = powerOfTwoBelow(sizeBytes / 64, catalogLimits.least, catalogLimits.most)
  return {
    catalogOffset: regionsOffset,
    catalogBytes,
    logOffset: regionsOffset + 2 * catalogBytes,
    logRecords: powerOfTwoBelow(sizeBytes / 256, logLimits.least, logLimits.most) / recordBytes,
  }
}

function powerOfTwoBelow(value: number, least: number, most: number): number {
  return Math.min(Math.max(2 ** Math.floor(Math.log2(value)), least), most)
}

function badSize(device: number, sizeBytes: number, hint: string): StorageError {
  return new StorageError('BAD_SIZE', {
    op: 'pool layout',
    object: `device ${device} of ${formatBytes(sizeBytes)}`,
    hint,
  })
}

function badOption(option: string, value: number, hint: string): StorageError {
  return new StorageError('BAD_POOL_OPTION', { op: 'pool layout', object: `${option} ${value}`, hint })
}
