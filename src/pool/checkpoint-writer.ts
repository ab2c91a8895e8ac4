import assert from 'node:assert/strict'
import { StorageError } from '../block/storage-error.js'
import type { Catalog } from './catalog.js'
import { catalogLength, emptyDirectory, encodeCatalog, type LayerHoles, type MapDirectory } from './catalog-codec.js'
import type { DeviceFile } from './device-file.js'
import {
  type Geometry,
  type LogSequence,
  noLayer,
  pageBytes,
  superblockOffsets,
  type UnitIndex,
  unitsPerMapPage,
} from './geometry.js'
import { encodeSuperblock, type Superblock, slotOfCheckpoint } from './superblock.js'
import { mapPageCount, mapPageOffset, mapPlace, other, type Tree, unitPageOffset } from './tree-reader.js'
import { encodeMapPage, type MapPagePlace, type UnitMap } from './unit-map.js'
import { applyChange, encodeUnitPage, pageCrcOf, type UnitChange, usedSlots } from './unit-page.js'
import { readUnitPages } from './unit-page-reader.js'

/** Where a checkpoint may be cut short: before each of these. */
export type CheckpointStep = 'reopen' | 'unit-pages' | 'unit-map' | 'catalog' | 'sync' | 'superblock' | 'done'

export interface CheckpointContent {
  /** As of `logSequence`, as all the rest; not changed until the checkpoint is written. */
  readonly catalog: Catalog
  /** Of every layer that has holes. */
  readonly holes: LayerHoles
  /** Each unit that changed since the last checkpoint, once. */
  readonly changes: readonly UnitChange[]
  /** The first record of the log that is not in this. */
  readonly logSequence: LogSequence
  /** The pool is closed with this. */
  readonly clean: boolean
  /**
   * Write it twice: both trees are this one then, and each page is there twice. After recovery, when the sequence jumps
   * and the log of the older tree cannot be kept, and at close.
   */
  readonly twice?: boolean
}

/** Units written together: their pages before and after are in memory, and faults wait while they are encoded. */
const batchUnits = 256
/** Second copies brought up by one checkpoint, at the most; the rest waits for the next. */
const refreshLimit = 8192

/**
 * Writes checkpoints, each into the copies that the one before does not name, so that one that is cut short changed
 * nothing.
 *
 * 0. Of a pool that was closed the superblock says that it is open again, durably: what 1 leaves half written over older
 *    copies would be called damage in a closed pool. One sector of it changes, so that it is never torn.
 * 1. Unit pages, then pages of the unit map, then the catalog, into copies that the last checkpoint does not name.
 * 2. Every device is synced. Without this 3 could name pages that are not there after a power cut.
 * 3. The superblock is written through, over the one before the last.
 *
 * A page that changed in one checkpoint has an older second copy until the next one brings that up, so that in the long
 * run each page is there twice. Which copies are older is written too.
 */
export class CheckpointWriter {
  readonly #devices: readonly DeviceFile[]
  readonly #geometry: Geometry
  readonly #poolId: Buffer
  readonly #bootId: Buffer
  readonly #onStep: (step: CheckpointStep) => void
  /** As of the last checkpoint, or of the one that is being written. */
  readonly #units: UnitMap
  readonly #directory: MapDirectory
  #sequence: number
  #logSequence: LogSequence
  /** The pool is closed as yet. */
  #closedWith: Superblock | undefined
  /** Units whose second page is older, as the unit map says. */
  readonly #olderUnits = new Set<UnitIndex>()
  #state: 'ready' | 'writing' | 'failed' = 'ready'

  /** @param devices, geometry grow outside, before addDevice() */
  constructor(
    devices: readonly DeviceFile[],
    geometry: Geometry,
    tree: Tree,
    bootId: Buffer,
    onStep: (step: CheckpointStep) => void = () => {},
  ) {
    this.#devices = devices
    this.#geometry = geometry
    this.#poolId = tree.poolId
    this.#bootId = bootId
    this.#onStep = onStep
    this.#units = tree.units
    this.#directory = tree.directory
    this.#sequence = tree.superblock.sequence
    this.#logSequence = tree.superblock.logSequence
    if (tree.superblock.clean) this.#closedWith = tree.superblock
    this.#units.older.forEach((older, index) => {
      if (older) this.#olderUnits.add(index as UnitIndex)
    })
  }

  /** Of the last checkpoint. */
  get sequence(): number {
    return this.#sequence
  }

  /** The geometry has a device more, whose unit map says that all units are free. */
  addDevice(): void {
    assert.equal(this.#state, 'ready')
    const before = this.#directory.crc.length
    this.#units.grow(this.#geometry.unitCount)
    const directory = emptyDirectory(mapPageCount(this.#geometry))
    directory.crc.set(this.#directory.crc)
    directory.copy.set(this.#directory.copy)
    directory.older.set(this.#directory.older)
    Object.assign(this.#directory, directory)
    for (let page = before; page < this.#directory.crc.length; page += 1) {
      this.#directory.crc[page] = pageCrcOf(this.#mapPage(page).bytes)
    }
  }

  /** @returns the oldest record needed from here on @throws as of MetadataStore.checkpoint() */
  async write(content: CheckpointContent): Promise<LogSequence> {
    if (this.#state === 'failed') {
      const hint = 'Close the pool and open it again: it goes on from the checkpoint before.'
      throw new StorageError('POOL_FAILED', { op: 'checkpoint', object: content.catalog.name, hint })
    }
    assert.equal(this.#state, 'ready', 'one checkpoint at a time')
    this.#checkLength(content)
    this.#state = 'writing'
    try {
      const before = this.#logSequence
      if (this.#closedWith) await this.#reopen(this.#closedWith)
      // Only the second one says that the pool was closed: of one that was, nothing is half written.
      if (content.twice) await this.#writeOnce({ ...content, clean: false }, Number.POSITIVE_INFINITY)
      else await this.#writeOnce(content, refreshLimit)
      if (content.twice) await this.#writeOnce({ ...content, changes: [] }, Number.POSITIVE_INFINITY)
      this.#state = 'ready'
      return content.twice ? content.logSequence : before
    } catch (error) {
      this.#state = 'failed'
      throw error
    }
  }

  /** Before anything is written: the pool is as before, and a later checkpoint may fit. */
  #checkLength({ catalog, holes }: CheckpointContent): void {
    const length = catalogLength({ catalog, holes, directory: this.#directory })
    const { catalogBytes } = this.#geometry.head
    if (length <= catalogBytes) return
    throw new StorageError('CATALOG_FULL', {
      op: 'checkpoint',
      object: catalog.name,
      cause: new Error(`${length} bytes, there is room for ${catalogBytes}`),
      hint: 'Remove snapshots and clones of this pool: what was trimmed in volumes over them takes the room.',
    })
  }

  async #reopen(closedWith: Superblock): Promise<void> {
    this.#onStep('reopen')
    await this.#writeSuperblock({ ...closedWith, bootId: this.#bootId, clean: false })
    this.#closedWith = undefined
  }

  async #writeSuperblock(superblock: Superblock): Promise<void> {
    await this.#devices[0]!.write(
      superblockOffsets[slotOfCheckpoint(superblock.sequence)],
      encodeSuperblock(superblock),
    )
    await this.#devices[0]!.sync()
  }

  async #writeOnce(content: CheckpointContent, refreshes: number): Promise<void> {
    const sequence = this.#sequence + 1
    this.#onStep('unit-pages')
    const refreshed = await this.#refreshUnits(content.changes, refreshes)
    const changes = content.changes.toSorted((a, b) => a.index - b.index)
    for (let at = 0; at < changes.length; at += batchUnits) {
      await this.#writeUnits(changes.slice(at, at + batchUnits), sequence)
    }
    this.#onStep('unit-map')
    await this.#writeMap([...changes.map(({ index }) => index), ...refreshed])
    this.#onStep('catalog')
    const catalog = await this.#writeCatalog(content, sequence)
    this.#onStep('sync')
    for (const device of this.#devices) await device.sync()
    this.#onStep('superblock')
    await this.#writeSuperblock({
      poolId: this.#poolId,
      sequence,
      logSequence: content.logSequence,
      bootId: this.#bootId,
      clean: content.clean,
      devices: this.#geometry.devices.length,
      catalogCrc: pageCrcOf(catalog),
      catalogLength: catalog.length,
    })
    this.#sequence = sequence
    this.#logSequence = content.logSequence
    this.#onStep('done')
  }

  /** Bring up second copies of units that did not change again; the units. */
  async #refreshUnits(changes: readonly UnitChange[], limit: number): Promise<UnitIndex[]> {
    for (const { index } of changes) this.#olderUnits.delete(index)
    const indices: UnitIndex[] = []
    for (const index of this.#olderUnits) {
      if (indices.length === limit) break
      indices.push(index)
    }
    indices.sort((a, b) => a - b)
    const refreshed: UnitIndex[] = []
    for (let at = 0; at < indices.length; at += batchUnits) {
      refreshed.push(...(await this.#refreshBatch(indices.slice(at, at + batchUnits))))
    }
    for (const index of indices) this.#olderUnits.delete(index)
    for (const index of refreshed) this.#units.older[index] = 0
    return refreshed
  }

  async #refreshBatch(indices: readonly UnitIndex[]): Promise<UnitIndex[]> {
    const pages = new PageRuns()
    const refreshed: UnitIndex[] = []
    try {
      await readUnitPages(this.#devices, this.#geometry, this.#units, indices, (page, index) => {
        const copy = other(this.#units.copy[index] as 0 | 1)
        pages.add(...this.#unitPlace(index, copy), encodeUnitPage(page))
        refreshed.push(index)
      })
    } catch (error) {
      // A damaged page has an older second copy: the repair needs that, and the checkpoint needs neither.
      if (!(error instanceof StorageError) || error.code !== 'POOL_DAMAGED') throw error
    }
    await pages.write(this.#devices)
    return refreshed
  }

  /** @param changes ascending */
  async #writeUnits(changes: readonly UnitChange[], sequence: number): Promise<void> {
    const units = this.#units
    const slots = this.#geometry.blocksPerUnit
    const pages = new PageRuns()
    const entries: { index: UnitIndex; layer: UnitChange['layer']; used: number; crc: number; copy: 0 | 1 }[] = []
    const bring = (change: UnitChange, base: Float64Array | null): void => {
      const { index, layer } = change
      const blocks = applyChange(base, change, slots)
      const used = usedSlots(blocks)
      assert.equal(used, change.used, `used slots of unit index ${index}`)
      assert(used > 0, `unit index ${index} without used slots has no owner`)
      const copy = units.layer[index] === noLayer ? 0 : other(units.copy[index] as 0 | 1)
      const page = encodeUnitPage({ unit: this.#geometry.unitAt(index), layer, checkpoint: sequence, blocks })
      pages.add(...this.#unitPlace(index, copy), page)
      entries.push({ index, layer, used, crc: pageCrcOf(page), copy })
    }
    const based = changes.filter(({ layer, whole }) => layer !== noLayer && !whole)
    const bases = new Map<UnitIndex, Float64Array>()
    const indices = based.map(({ index }) => index)
    await readUnitPages(this.#devices, this.#geometry, units, indices, (page, index) => bases.set(index, page.blocks))
    for (const change of changes) {
      if (change.layer === noLayer) entries.push({ index: change.index, layer: noLayer, used: 0, crc: 0, copy: 0 })
      else bring(change, bases.get(change.index) ?? null)
    }
    await pages.write(this.#devices)
    // Only now: whoever reads pages meanwhile finds what the map names.
    for (const { index, layer, used, crc, copy } of entries) {
      units.set(index, layer, used, crc, copy)
      if (layer !== noLayer) this.#olderUnits.add(index)
    }
  }

  /** The pages of these units, and second copies of pages that did not change again. */
  async #writeMap(indices: readonly UnitIndex[]): Promise<void> {
    const firstPages: number[] = []
    let count = 0
    for (const { mapPages } of this.#geometry.devices) {
      firstPages.push(count)
      count += mapPages
    }
    const changed = new Set<number>()
    for (const index of indices) {
      const device = this.#geometry.deviceAt(index)
      changed.add(firstPages[device]! + Math.floor((index - this.#geometry.baseOf(device)) / unitsPerMapPage))
    }
    const { crc, copy, older } = this.#directory
    const pages = new PageRuns()
    for (let page = 0; page < count; page += 1) {
      if (!changed.has(page) && !older[page]) continue
      const { bytes, place } = this.#mapPage(page)
      const target = other(copy[page] as 0 | 1)
      pages.add(place.device, mapPageOffset(this.#geometry.devices[place.device]!, target, place.number), bytes)
      older[page] = changed.has(page) ? 1 : 0
      if (changed.has(page)) {
        crc[page] = pageCrcOf(bytes)
        copy[page] = target
      }
      if (pages.length === batchUnits) await pages.write(this.#devices)
    }
    await pages.write(this.#devices)
  }

  async #writeCatalog({ catalog, holes }: CheckpointContent, sequence: number): Promise<Buffer> {
    const bytes = encodeCatalog({ poolId: this.#poolId, sequence, catalog, holes, directory: this.#directory })
    const { catalogOffset, catalogBytes } = this.#geometry.head
    await this.#devices[0]!.write(catalogOffset + slotOfCheckpoint(sequence) * catalogBytes, bytes)
    return bytes
  }

  /** @param page counted over all devices */
  #mapPage(page: number): { bytes: Buffer; place: MapPagePlace } {
    let number = page
    let device = 0
    while (number >= this.#geometry.devices[device]!.mapPages) number -= this.#geometry.devices[device++]!.mapPages
    const place = mapPlace(this.#geometry, this.#geometry.devices[device]!, number)
    return { bytes: encodeMapPage(this.#units, place), place }
  }

  #unitPlace(index: UnitIndex, copy: 0 | 1): [device: number, offset: number] {
    const device = this.#geometry.deviceAt(index)
    const layout = this.#geometry.devices[device]!
    return [device, unitPageOffset(layout, copy, index - this.#geometry.baseOf(device))]
  }
}

/** Pages to be written; those that lie one behind the other are written together. */
class PageRuns {
  readonly #pages: { readonly device: number; readonly offset: number; readonly bytes: Buffer }[] = []

  get length(): number {
    return this.#pages.length
  }

  add(device: number, offset: number, bytes: Buffer): void {
    this.#pages.push({ device, offset, bytes })
  }

  /** All that were added since the last time. */
  async write(devices: readonly DeviceFile[]): Promise<void> {
    const pages = this.#pages.splice(0).sort((a, b) => a.device - b.device || a.offset - b.offset)
    const runs: { device: number; offset: number; bytes: Buffer[] }[] = []
    for (const { device, offset, bytes } of pages) {
      const last = runs.at(-1)
      if (last && last.device === device && last.offset + last.bytes.length * pageBytes === offset)
        last.bytes.push(bytes)
      else runs.push({ device, offset, bytes: [bytes] })
    }
    for (let at = 0; at < runs.length; at += writesAtOnce) {
      const some = runs.slice(at, at + writesAtOnce)
      await Promise.all(some.map((run) => devices[run.device]!.write(run.offset, Buffer.concat(run.bytes))))
    }
  }
}

const writesAtOnce = 8
