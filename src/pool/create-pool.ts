import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { open, realpath, rm, stat, truncate } from 'node:fs/promises'
import path from 'node:path'
import { syncDirectory } from '../block/durable-file.js'
import { errnoOf, StorageError } from '../block/storage-error.js'
import { sectorBytes } from '../block/units.js'
import { bootId } from './boot-id.js'
import { emptyCatalog } from './catalog.js'
import { emptyDirectory, encodeCatalog } from './catalog-codec.js'
import { DeviceFile } from './device-file.js'
import {
  checkPoolSizes,
  type DeviceLayout,
  Geometry,
  labelOffsets,
  layOutDevice,
  logSequence,
  type PoolSizes,
  superblockOffsets,
} from './geometry.js'
import { encodeLabel, poolIdBytes } from './label.js'
import type { MetadataStore } from './metadata-store.js'
import { encodeSuperblock, slotOfCheckpoint } from './superblock.js'
import type { CreatePoolOptions } from './thin-pool.js'
import { mapPageCount, mapPageOffset, mapPlace } from './tree-reader.js'
import { encodeMapPage, UnitMap } from './unit-map.js'
import { pageCrcOf } from './unit-page.js'

export type NewDevice = CreatePoolOptions['devices'][number]

export interface CreateContext {
  /** Throws when the block device holds something that must not be lost. Absent: nothing is asked. */
  readonly assertFree?: (path: string) => void | Promise<void>
  /** Fixed by tests; otherwise made up, and now. */
  readonly poolId?: Buffer
  readonly createdAt?: string
  readonly bootId?: Buffer
}

/** The two checkpoints of a new pool. */
const firstCheckpoints = [1, 2] as const

/**
 * Make a pool of new files, and of block devices that hold nothing. Durable when it resolves; the labels are written
 * last, so what was interrupted is no pool. Files it made are gone again when it fails.
 *
 * @throws StorageError ALREADY_EXISTS, BAD_SIZE, BAD_POOL_OPTION, DISK_FULL, NOT_FOUND, POOL_OPEN, DEVICE_FAILED,
 * NOT_A_FILE_OR_BLOCK_DEVICE
 */
export async function createPool(options: CreatePoolOptions, context: CreateContext = {}): Promise<void> {
  checkPoolSizes(options)
  const poolId = context.poolId ?? randomBytes(poolIdBytes)
  await withNewDevices(options.devices, context, async (files, sizes) => {
    const geometry = new Geometry(
      options,
      sizes.map((sizeBytes, index) => layOutDevice(options, index, sizeBytes)),
    )
    assert(geometry.devices.length > 0, 'a pool has a device')
    for (const layout of geometry.devices) await prepare(files[layout.index]!, layout, geometry)
    await writeHead(files, geometry, options, poolId, context)
    // After everything they lead to: a label without that would be a damaged pool instead of none.
    for (const file of files) await file.syncWhole()
    for (const [index, file] of files.entries()) await writeLabels(file, poolId, options, geometry.devices[index]!)
  })
}

/**
 * Make a device ready to become the pool's next: `store.openDevice()` and the operation 'add-device' come after that.
 * Until then it is labelled, and nothing more. Durable when it resolves.
 *
 * @throws StorageError as of createPool()
 */
export async function prepareDevice(
  store: MetadataStore,
  device: NewDevice,
  context: CreateContext = {},
): Promise<DeviceLayout> {
  const { geometry, poolId } = store
  const index = geometry.devices.length
  return withNewDevices([device], context, async ([file], [sizeBytes]) => {
    const layout = layOutDevice(geometry, index, sizeBytes!)
    // Refused here when the pool would become too large, before anything is written.
    const extended = new Geometry(geometry, [...geometry.devices, layout])
    await prepare(file!, layout, extended)
    await file!.syncWhole()
    await writeLabels(file!, poolId, geometry, layout)
    return layout
  })
}

async function withNewDevices<T>(
  devices: readonly NewDevice[],
  context: CreateContext,
  fill: (files: DeviceFile[], sizes: number[]) => Promise<T>,
): Promise<T> {
  const made: { path: string; isNew: boolean }[] = []
  const files: DeviceFile[] = []
  try {
    const sizes: number[] = []
    for (const device of devices) {
      if (device.kind === 'file') await makeFile(device, made)
      else await context.assertFree?.(device.path)
      const file = await DeviceFile.open(device.path, 'write', true)
      files.push(file)
      sizes.push(await takeSize(file, device))
    }
    return await fill(files, sizes)
  } catch (error) {
    for (const { path, isNew } of made) await (isNew ? rm(path, { force: true }) : truncate(path, 0))
    throw error
  } finally {
    for (const file of files) await file.close()
  }
}

/** A name for the file, new or of an empty one. */
async function makeFile(
  { path: given, sizeBytes }: NewDevice,
  made: { path: string; isNew: boolean }[],
): Promise<void> {
  if (sizeBytes === undefined) throw badSize(given, 'Say how large it shall be: --size SIZE.')
  const present = await stat(given).catch(() => undefined)
  if (present && !(present.isFile() && present.size === 0)) {
    throw new StorageError('ALREADY_EXISTS', {
      op: 'pool create',
      object: given,
      hint: 'Something is there already. Give a new path; a block device is given with --device.',
    })
  }
  if (present) {
    made.push({ path: given, isNew: false })
    return
  }
  try {
    const handle = await open(given, 'wx', 0o600)
    made.push({ path: given, isNew: true })
    await handle.close()
    await syncDirectory(path.dirname(await realpath(given)))
  } catch (cause) {
    const code = errnoOf(cause) === 'ENOENT' ? 'NOT_FOUND' : 'DEVICE_FAILED'
    throw new StorageError(code, { op: 'pool create', object: given, cause, hint: 'Make the folder first.' })
  }
}

async function takeSize(file: DeviceFile, device: NewDevice): Promise<number> {
  if (file.isBlockDevice !== (device.kind === 'raw')) {
    const hint = 'A file is given with --file, a block device with --device.'
    throw new StorageError('NOT_A_FILE_OR_BLOCK_DEVICE', { op: 'pool create', object: file.path, hint })
  }
  if (device.sizeBytes !== undefined && (device.sizeBytes <= 0 || device.sizeBytes % sectorBytes !== 0)) {
    throw badSize(file.path, 'Give a positive size that is a multiple of 512 bytes.')
  }
  if (device.kind === 'file') {
    await file.extendTo(device.sizeBytes!)
    return device.sizeBytes!
  }
  const there = await file.sizeBytes()
  if (device.sizeBytes !== undefined && device.sizeBytes > there) {
    throw badSize(file.path, `It has ${there} bytes. Give that or less, or no size at all.`)
  }
  return device.sizeBytes ?? there
}

/**
 * Everything but what device 0 has more. Zeros are written: in a file, so that no checkpoint ever runs out of space; on
 * a block device, over the labels, superblocks and catalogs of a pool that was there, and its log.
 */
async function prepare(file: DeviceFile, layout: DeviceLayout, geometry: Geometry): Promise<void> {
  const end = file.isBlockDevice ? layout.mapOffset : layout.firstUnit * geometry.unitBytes
  await file.writeZeros(0, end)
  const free = new UnitMap(geometry.unitCount)
  for (let number = 0; number < layout.mapPages; number += piecePages) {
    const count = Math.min(piecePages, layout.mapPages - number)
    const pages = Array.from({ length: count }, (_, at) => encodeMapPage(free, mapPlace(geometry, layout, number + at)))
    for (const copy of [0, 1] as const) await file.write(mapPageOffset(layout, copy, number), Buffer.concat(pages))
  }
}

const piecePages = 256

/** The first checkpoint, twice. */
async function writeHead(
  files: readonly DeviceFile[],
  geometry: Geometry,
  options: CreatePoolOptions,
  poolId: Buffer,
  context: CreateContext,
): Promise<void> {
  const devices = geometry.devices.map(({ index, sizeBytes }) => ({ sizeBytes, path: options.devices[index]!.path }))
  const catalog = emptyCatalog(options.name, context.createdAt ?? new Date().toISOString(), devices)
  const directory = emptyDirectory(mapPageCount(geometry))
  const free = new UnitMap(geometry.unitCount)
  let page = 0
  for (const layout of geometry.devices) {
    for (let number = 0; number < layout.mapPages; number += 1) {
      directory.crc[page++] = pageCrcOf(encodeMapPage(free, mapPlace(geometry, layout, number)))
    }
  }
  const boot = context.bootId ?? (await bootId())
  for (const sequence of firstCheckpoints) {
    const slot = slotOfCheckpoint(sequence)
    const bytes = encodeCatalog({ poolId, sequence, catalog, holes: new Map(), directory })
    const { catalogOffset, catalogBytes } = geometry.head
    await files[0]!.write(catalogOffset + slot * catalogBytes, bytes)
    const superblock = encodeSuperblock({
      poolId,
      sequence,
      logSequence: logSequence(0),
      bootId: boot,
      clean: true,
      devices: geometry.devices.length,
      catalogCrc: pageCrcOf(bytes),
      catalogLength: bytes.length,
    })
    await files[0]!.write(superblockOffsets[slot], superblock)
  }
}

async function writeLabels(file: DeviceFile, poolId: Buffer, sizes: PoolSizes, layout: DeviceLayout): Promise<void> {
  const { unitBytes, blockBytes } = sizes
  const label = encodeLabel({ poolId, unitBytes, blockBytes, layout })
  for (const offset of labelOffsets) await file.write(offset, label)
  await file.sync()
}

function badSize(object: string, hint: string): StorageError {
  return new StorageError('BAD_SIZE', { op: 'pool create', object, hint })
}
