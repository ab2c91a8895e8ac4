/**
 * What a power cut leaves, made from what a process crash left: page cache that was never synced is lost, which the log
 * knows by its last COMMIT. The log is read and replayed here by the rules of DESIGN.md, not by the pool's own code.
 *
 * Records behind the last COMMIT may have reached the device or not: all, none, some or other bytes. What those
 * before it do not name is filled with garbage, and the boot id becomes another.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { DeviceFile } from '../../../src/pool/device-file.js'
import { Geometry, labelOffsets, pageBytes, recordBytes, superblockOffsets } from '../../../src/pool/geometry.js'
import { decodeLabel, type Label } from '../../../src/pool/label.js'
import { readLog } from '../../../src/pool/log-reader.js'
import type { LogRecord } from '../../../src/pool/log-record.js'
import { superblockFields } from '../../../src/pool/superblock.js'
import { readCatalog, readSuperblocks, readUnitMap, unitPageOffset } from '../../../src/pool/tree-reader.js'
import { decodeUnitPage, freeSlot, pageChecksum, unitPageFields } from '../../../src/pool/unit-page.js'
import type { Random } from './random.js'
import { fillWithGarbage } from './stamps.js'

interface Device {
  readonly file: DeviceFile
  readonly label: Label
}

/** Blocks in use and whose they are. */
class UsedBlocks {
  readonly #geometry: Geometry
  /** By location. */
  readonly #slots = new Map<number, { readonly layer: number; readonly block: number }>()
  readonly #maps = new Map<number, Map<number, number>>()

  constructor(geometry: Geometry) {
    this.#geometry = geometry
  }

  has(location: number): boolean {
    return this.#slots.has(location)
  }

  get count(): number {
    return this.#slots.size
  }

  map(layer: number, block: number, location: number): void {
    this.#free(layer, block)
    this.#slots.set(location, { layer, block })
    this.#mapOf(layer).set(block, location)
  }

  apply(record: LogRecord): void {
    if (record.kind === 'map') this.map(record.layer, record.block, record.location)
    else if (record.kind === 'hole') {
      const { layer, block, count } = record
      for (const mapped of [...this.#mapOf(layer).keys()]) {
        if (mapped >= block && mapped < block + count) this.#free(layer, mapped)
      }
    } else if (record.kind === 'own' || record.kind === 'release') {
      for (let slot = 0; slot < this.#geometry.blocksPerUnit; slot++) {
        const location = record.unit * this.#geometry.blocksPerUnit + slot
        const entry = this.#slots.get(location)
        if (!entry) continue
        this.#free(entry.layer, entry.block)
        // One that a hole of the new layer hides is kept here: too much is in use, never too little.
        if (record.kind === 'own' && !this.#mapOf(record.layer).has(entry.block)) {
          this.map(record.layer, entry.block, location)
        }
      }
    }
  }

  #mapOf(layer: number): Map<number, number> {
    let map = this.#maps.get(layer)
    if (!map) {
      map = new Map()
      this.#maps.set(layer, map)
    }
    return map
  }

  #free(layer: number, block: number): void {
    const location = this.#mapOf(layer).get(block)
    if (location === undefined) return
    this.#mapOf(layer).delete(block)
    const entry = this.#slots.get(location)
    if (entry?.layer === layer && entry.block === block) this.#slots.delete(location)
  }
}

async function openDevices(paths: readonly string[]): Promise<Device[]> {
  const devices: Device[] = []
  for (const path of paths) {
    const file = await DeviceFile.open(path, 'write', false)
    const label = decodeLabel(await file.read(labelOffsets[0], pageBytes))
    assert(label && label !== 'newer', `${path} has a label`)
    devices.push({ file, label })
  }
  return devices.sort((a, b) => a.label.layout.index - b.label.layout.index)
}

/** @returns what was done, in words */
export async function cutPower(paths: readonly string[], random: Random): Promise<string> {
  const devices = await openDevices(paths)
  const { file: head, label } = devices[0]!
  const superblocks = await readSuperblocks(head, label.poolId, [])
  assert(superblocks !== 'newer' && superblocks[0], 'there is a superblock')
  const superblock = superblocks[0]
  const layouts = devices.map((device) => device.label.layout)
  const geometry = new Geometry(label, layouts.slice(0, superblock.devices))
  const files = devices.map(({ file }) => file)
  const image = await readCatalog(head, layouts[0]!, superblock, [])
  assert(image && image !== 'newer', 'the newest checkpoint has a catalog')
  const units = await readUnitMap(files, geometry, image, [])
  assert(units, 'the newest checkpoint has a unit map')

  const used = new UsedBlocks(geometry)
  for (let index = 0; index < units.length; index++) {
    if (units.layer[index] === 0) continue
    const unit = geometry.unitAt(index as never)
    const device = devices[geometry.deviceOf(unit)]!
    const at = unitPageOffset(device.label.layout, units.copy[index] as 0 | 1, geometry.unitOnDevice(unit))
    const page = decodeUnitPage(await device.file.read(at, pageBytes), unit, geometry.blocksPerUnit)
    assert(page, `unit ${index} has a page`)
    for (const [slot, block] of page.blocks.entries()) {
      if (block !== freeSlot) used.map(units.layer[index]!, block, geometry.locationOf(unit, slot))
    }
  }

  const seed = label.poolId.readUInt32LE(0)
  const records: LogRecord[] = []
  const ring = { file: head, layout: layouts[0]!.head!, seed }
  const { end } = await readLog(ring, superblock.logSequence, undefined, (piece) => {
    records.push(...piece)
  })
  const commit = records.findLast((record) => record.kind === 'commit')
  const covered = commit?.covered ?? superblock.logSequence
  for (const record of records) if (record.sequence < covered) used.apply(record)

  const behind = random.pick(['kept', 'zeros', 'garbage', 'some'] as const)
  const begin = (commit?.sequence ?? superblock.logSequence - 1) + 1
  for (let sequence = begin; sequence < end && behind !== 'kept'; sequence++) {
    if (behind === 'some' && random.chance(0.5)) continue
    const bytes = behind === 'garbage' ? randomBytes(recordBytes) : Buffer.alloc(recordBytes)
    await head.write(ring.layout.logOffset + (sequence % ring.layout.logRecords) * recordBytes, bytes)
  }
  for (const device of devices) await fillFreeBlocks(device, geometry, used)
  for (const offset of superblockOffsets) await changeBootId(head, offset)
  for (const { file } of devices) await file.close()
  return `${records.length} records, ${covered} covered, ${end - begin} behind the last COMMIT ${behind}, ${used.count} blocks in use`
}

async function fillFreeBlocks({ file, label }: Device, geometry: Geometry, used: UsedBlocks): Promise<void> {
  const { layout, blockBytes } = label
  const garbage = Buffer.alloc(geometry.unitBytes)
  fillWithGarbage(garbage)
  const base = layout.index * 2 ** 34
  const end = (layout.firstUnit + layout.unitCount) * geometry.blocksPerUnit
  for (let block = layout.firstUnit * geometry.blocksPerUnit; block < end; ) {
    let count = 0
    while (count < geometry.blocksPerUnit && block + count < end && !used.has(base + block + count)) count += 1
    if (count > 0) await file.write(block * blockBytes, garbage.subarray(0, count * blockBytes))
    block += Math.max(count, 1)
  }
}

/** Of one superblock, when it is sound. */
async function changeBootId(file: DeviceFile, offset: number): Promise<void> {
  const bytes = await file.read(offset, pageBytes)
  if (bytes.readUInt32LE(unitPageFields.crc.offset) !== pageChecksum(bytes)) return
  bytes.fill(0xbb, superblockFields.bootId.offset, superblockFields.bootId.offset + superblockFields.bootId.size)
  bytes.writeUInt32LE(pageChecksum(bytes), superblockFields.crc.offset)
  await file.write(offset, bytes)
}
