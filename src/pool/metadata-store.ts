import assert from 'node:assert/strict'
import { StorageError } from '../block/storage-error.js'
import { bootId } from './boot-id.js'
import type { Catalog } from './catalog.js'
import type { LayerHoles } from './catalog-codec.js'
import { catalogFaults } from './check-catalog.js'
import { type CheckpointContent, type CheckpointStep, CheckpointWriter } from './checkpoint-writer.js'
import type { DeviceFile } from './device-file.js'
import { type DeviceLayout, Geometry, type LogSequence, type UnitIndex } from './geometry.js'
import { findBeyond, findLogEnd, type LogEnd, type LogRing, readLog } from './log-reader.js'
import type { LogRecord } from './log-record.js'
import { type LabelledDevice, openDevices, openLabelled, type PoolDevices, tooNew } from './pool-devices.js'
import type { Superblock } from './superblock.js'
import { type Damage, readCatalog, readSuperblocks, readUnitMap, type Tree } from './tree-reader.js'
import type { UnitMap } from './unit-map.js'
import type { UnitPage } from './unit-page.js'
import { readUnitPages } from './unit-page-reader.js'

export type { HoleExtents, LayerHoles } from './catalog-codec.js'
export type { CheckpointContent, CheckpointStep } from './checkpoint-writer.js'

export interface OpenMetadataOptions {
  /** Nothing is written; checkpoint() is then a programming error. */
  readonly readOnly?: boolean
  /**
   * Hold the devices against everybody else (O_EXCL, flock) until close() or unlock(). Of a live pool native code does:
   * open with the lock, recover, unlock(), let native open the pool, then assertUnchanged().
   */
  readonly lock: boolean
  /** Called before each step of a checkpoint; what it throws cuts the checkpoint short. */
  readonly onStep?: (step: CheckpointStep) => void
  /** For tests: of another boot than this one. */
  readonly bootId?: Buffer
  /** A sync of this pool failed since it was opened last: of its log counts what counts after a power cut. */
  readonly afterFailure?: boolean
}

export interface StoreParts {
  readonly devices: PoolDevices
  readonly damage: readonly Damage[]
  readonly boot: Buffer
  /** Of whoever opened the pool last. */
  readonly lastBoot: Buffer
  readonly options: OpenMetadataOptions
}

/** The metadata of one pool on its devices: what the last checkpoint wrote, read at open(), and how the next is written. */
export class MetadataStore {
  readonly poolId: Buffer
  /** Goes into the log's checksums. */
  readonly seed: number
  /** Shared by all who do arithmetic; grows in admitDevice(). */
  readonly geometry: Geometry
  /** As of the checkpoint that was read. The caller takes it over and changes it. */
  readonly catalog: Catalog
  readonly holes: LayerHoles
  /** The first record that is not in the checkpoint: recovery replays from here. */
  readonly logSequence: LogSequence
  /** Closed with this checkpoint. */
  readonly clean: boolean
  /** The machine was restarted since somebody opened the pool last, this is another machine, or a sync has failed. */
  readonly afterPowerCut: boolean
  /** What is damaged and was read around. */
  readonly damage: readonly Damage[]
  readonly #devices: DeviceFile[] = []
  readonly #pending: Map<number, LabelledDevice>
  readonly #superblock: Superblock
  readonly #writer: CheckpointWriter | null
  readonly #units: UnitMap

  private constructor(tree: Tree, geometry: Geometry, parts: StoreParts) {
    const { superblock } = tree
    this.poolId = tree.poolId
    this.seed = logSeed(tree.poolId)
    this.geometry = geometry
    this.catalog = tree.catalog
    this.holes = tree.holes
    this.logSequence = superblock.logSequence
    this.clean = superblock.clean
    this.afterPowerCut = parts.options.afterFailure === true || !parts.boot.equals(parts.lastBoot)
    this.damage = parts.damage
    this.#units = tree.units
    this.#superblock = superblock
    this.#pending = new Map(parts.devices.byNumber)
    for (const { index } of geometry.devices) {
      this.#devices.push(this.#pending.get(index)!.file)
      this.#pending.delete(index)
    }
    const { readOnly, onStep } = parts.options
    this.#writer = readOnly ? null : new CheckpointWriter(this.#devices, geometry, tree, parts.boot, onStep)
  }

  /**
   * Read the newest checkpoint that is whole, from the pool's devices in any order.
   *
   * @throws StorageError DEVICE_MISSING naming it, POOL_OPEN, POOL_DAMAGED when no checkpoint is whole, and as of
   * openDevices(); nothing stays open then
   */
  static async open(paths: readonly string[], options: OpenMetadataOptions): Promise<MetadataStore> {
    const devices = await openDevices(paths, options.readOnly ? 'read' : 'write', options.lock)
    try {
      const { superblockDamage, checkpoints, lastBoot } = await readCheckpoints(devices, true)
      const damage = [...devices.damage, ...superblockDamage, ...checkpoints.flatMap((each) => each.damage)]
      const found = checkpoints.at(-1)?.found
      if (!found) throw damaged(devices, damage)
      const faults = catalogFaults(found.tree.catalog)
      if (faults.length > 0) throw damaged(devices, [{ where: 'catalog', what: faults.join(', ') }])
      return MetadataStore.from(found, { devices, damage, boot: options.bootId ?? (await bootId()), lastBoot, options })
    } catch (error) {
      for (const { file } of devices.byNumber.values()) await file.close()
      throw error
    }
  }

  /** On a checkpoint that was read already; the devices are the store's then. */
  static from({ tree, geometry }: FoundTree, parts: StoreParts): MetadataStore {
    return new MetadataStore(tree, geometry, parts)
  }

  /** By device number. */
  get paths(): readonly string[] {
    return this.#devices.map((device) => device.path)
  }

  /** As of the last checkpoint; changed by the next. Copy `layer` and `used` to go on from them. */
  get units(): UnitMap {
    return this.#units
  }

  /**
   * Read the pages of used units, some at a time, in the order of their indices. Also while a checkpoint is written: a
   * page is then as of the one before or of this one.
   *
   * @throws StorageError POOL_DAMAGED naming the first unit whose page has no sound copy
   */
  readPages(indices: Iterable<UnitIndex>, visit: (page: UnitPage, index: UnitIndex) => void): Promise<void> {
    return readUnitPages(this.#devices, this.geometry, this.#units, indices, visit)
  }

  /**
   * The log since the checkpoint: after a process crash every record that is right, after a power cut those that were
   * committed. `end` is behind the last record that is right in any case: nothing new may be written before a whole
   * ring beyond that.
   *
   * @throws StorageError POOL_DAMAGED when records are lost; `acceptLoss`: then the log just ends before them
   */
  async readLog(
    visit: (records: LogRecord[]) => void | Promise<void>,
    acceptLoss = false,
  ): Promise<{ end: LogSequence; applied: LogSequence }> {
    const found = await findLogEnd(this.#ring, this.logSequence)
    if (!acceptLoss) {
      const lost = await this.findLostRecords(found)
      if (lost) {
        throw new StorageError('POOL_DAMAGED', {
          op: 'pool log',
          object: this.catalog.name,
          cause: new Error(lost),
          hint: 'tidemark pool check --repair shows what is lost with it, and goes on from before.',
        })
      }
    }
    const applied = this.afterPowerCut ? found.committed : found.end
    await readLog(this.#ring, this.logSequence, applied, visit)
    return { end: found.end, applied }
  }

  /** In words, when records behind the end of the log say that one before them is damaged. */
  async findLostRecords({ end }: LogEnd): Promise<string | undefined> {
    const beyond = await findBeyond(this.#ring, this.logSequence, end)
    if (!beyond || (this.afterPowerCut && beyond.committed <= end)) return undefined
    return `record ${end} of the log is damaged; ${beyond.count} records behind it, up to ${beyond.last}, are lost`
  }

  /**
   * Write the next checkpoint. One at a time. When it fails the store writes none again: what reached the devices is not
   * known, the checkpoint before is whole. CATALOG_FULL alone comes before anything is written.
   *
   * Before: everything up to `content.logSequence` is durable and committed. After: durable.
   * @returns the oldest record that is needed from here on
   * @throws StorageError DEVICE_FAILED, DISK_FULL, CATALOG_FULL, POOL_DAMAGED
   */
  async checkpoint(content: CheckpointContent): Promise<{ keepFrom: LogSequence }> {
    assert(this.#writer, 'opened to be written')
    const keepFrom = await this.#writer.write(content)
    return { keepFrom }
  }

  /** A device that prepareDevice() has labelled is opened; it takes part from admitDevice() on. Its number. */
  async openDevice(path: string): Promise<number> {
    const opened: DeviceFile[] = []
    try {
      const device = await openLabelled(path, 'write', false, opened, [])
      const { poolId, layout } = device.label
      assert(poolId.equals(this.poolId) && layout.index === this.geometry.devices.length, `${path} is the next device`)
      await this.#pending.get(layout.index)?.file.close()
      this.#pending.set(layout.index, device)
      return layout.index
    } catch (error) {
      for (const file of opened) await file.close()
      throw error
    }
  }

  /**
   * When 'add-device' is applied: the device's units are there, free.
   *
   * @throws StorageError DEVICE_MISSING when a log that is replayed names one that was not given
   */
  admitDevice(index: number): void {
    const device = this.#pending.get(index)
    if (!device) throw missing(this.catalog.name, index, this.catalog.devices[index]?.path)
    this.geometry.addDevice(device.label.layout)
    this.#pending.delete(index)
    this.#devices.push(device.file)
    if (this.#writer) this.#writer.addDevice()
    else this.#units.grow(this.geometry.unitCount)
  }

  /** Let go of what open() locked; the devices stay open. */
  async unlock(): Promise<void> {
    for (const device of this.#devices) await device.unlock()
    for (const { file } of this.#pending.values()) await file.unlock()
  }

  /** @throws StorageError POOL_OPEN when somebody else wrote a checkpoint since this store read or wrote its last */
  async assertUnchanged(): Promise<void> {
    const expected = this.#writer?.sequence ?? this.#superblock.sequence
    const found = await readSuperblocks(this.#devices[0]!, this.poolId, [])
    if (found !== 'newer' && found[0]?.sequence === expected) return
    const hint = 'Another agent has opened it. Export it there first.'
    throw new StorageError('POOL_OPEN', { op: 'pool open', object: this.catalog.name, hint })
  }

  async close(): Promise<void> {
    for (const device of this.#devices) await device.close()
    for (const { file } of this.#pending.values()) await file.close()
  }

  get #ring(): LogRing {
    return { file: this.#devices[0]!, layout: this.geometry.head, seed: this.seed }
  }
}

export function logSeed(poolId: Buffer): number {
  return poolId.readUInt32LE(0)
}

export interface FoundTree {
  readonly tree: Tree
  readonly geometry: Geometry
}

export interface FoundCheckpoint {
  readonly superblock: Superblock
  /** Copies of this checkpoint that are not as they should be. */
  readonly damage: readonly Damage[]
  /** Absent when it is not whole; unit pages do not count. */
  readonly found: FoundTree | undefined
}

/**
 * The checkpoints whose superblock can be read, newest first.
 *
 * @param untilWhole none is read behind one that is whole
 * @throws StorageError DEVICE_MISSING, POOL_TOO_NEW
 */
export async function readCheckpoints(
  devices: PoolDevices,
  untilWhole: boolean,
): Promise<{ superblockDamage: Damage[]; checkpoints: FoundCheckpoint[]; lastBoot: Buffer }> {
  const { byNumber, poolId } = devices
  const head = byNumber.get(0)
  if (!head) throw missing(poolId.toString('hex'), 0, undefined)
  const superblockDamage: Damage[] = []
  const superblocks = await readSuperblocks(head.file, poolId, superblockDamage)
  if (superblocks === 'newer') throw tooNew(head.file.path)
  const checkpoints: FoundCheckpoint[] = []
  for (const superblock of superblocks) {
    const damage: Damage[] = []
    const found = await readTree(devices, head, superblock, damage)
    checkpoints.push({ superblock, damage, found })
    if (untilWhole && found) break
  }
  return { superblockDamage, checkpoints, lastBoot: superblocks[0]?.bootId ?? Buffer.alloc(0) }
}

async function readTree(
  devices: PoolDevices,
  head: LabelledDevice,
  superblock: Superblock,
  damage: Damage[],
): Promise<FoundTree | undefined> {
  const image = await readCatalog(head.file, head.label.layout, superblock, damage)
  if (image === 'newer') throw tooNew(head.file.path)
  if (!image) return undefined
  const layouts: DeviceLayout[] = []
  for (let index = 0; index < superblock.devices; index += 1) {
    const device = devices.byNumber.get(index)
    if (!device) throw missing(image.catalog.name, index, image.catalog.devices[index]?.path)
    layouts.push(device.label.layout)
  }
  const geometry = new Geometry(devices, layouts)
  const files = layouts.map(({ index }) => devices.byNumber.get(index)!.file)
  const units = await readUnitMap(files, geometry, image, damage)
  return units && { tree: { ...image, superblock, units }, geometry }
}

function missing(pool: string, index: number, path: string | undefined): StorageError {
  const seen = path === undefined ? '' : ` It was added as ${path}.`
  return new StorageError('DEVICE_MISSING', {
    op: 'pool open',
    object: `${pool}, device ${index}`,
    hint: `Give all devices of the pool: number ${index} is missing.${seen}`,
  })
}

function damaged({ byNumber }: PoolDevices, damage: readonly Damage[]): StorageError {
  return new StorageError('POOL_DAMAGED', {
    op: 'pool open',
    object: [...byNumber.values()].map(({ file }) => file.path).join(' '),
    cause: new Error(damage.map(({ where, what }) => `${where}: ${what}`).join('; ')),
    hint: 'No checkpoint of the pool can be used. Look for copies of its devices from before.',
  })
}
