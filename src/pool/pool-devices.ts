import { StorageError } from '../block/storage-error.js'
import { DeviceFile } from './device-file.js'
import { type DeviceLayout, labelOffsets, type PoolSizes, pageBytes } from './geometry.js'
import { decodeLabel, type Label } from './label.js'
import { type Damage, slotNames } from './tree-reader.js'

export interface LabelledDevice {
  readonly file: DeviceFile
  readonly label: Label
}

/** The devices of one pool, whichever were given. */
export interface PoolDevices extends PoolSizes {
  readonly poolId: Buffer
  /** By device number; some may be missing. */
  readonly byNumber: ReadonlyMap<number, LabelledDevice>
  readonly damage: readonly Damage[]
}

/**
 * Open the devices of a pool in any order: their labels say which is which.
 *
 * @throws StorageError NOT_A_POOL_DEVICE, FOREIGN_DEVICE, DUPLICATE_DEVICE, DEVICE_TOO_SMALL, POOL_TOO_NEW, and as of
 * DeviceFile.open(); nothing stays open then
 */
export async function openDevices(
  paths: readonly string[],
  mode: 'read' | 'write',
  lock: boolean,
): Promise<PoolDevices> {
  const opened: DeviceFile[] = []
  const byNumber = new Map<number, LabelledDevice>()
  const damage: Damage[] = []
  try {
    for (const path of paths) {
      const device = await openLabelled(path, mode, lock, opened, damage)
      const { index } = device.label.layout
      const twin = byNumber.get(index)
      const first = byNumber.values().next().value
      if (first && !first.label.poolId.equals(device.label.poolId)) throw foreign(path, first.file.path)
      if (twin) throw duplicate(path, twin.file.path, index)
      byNumber.set(index, device)
    }
    const [any] = byNumber.values()
    if (!any) throw notAPool('no device', 'Give all devices of the pool.')
    const { poolId, unitBytes, blockBytes } = any.label
    return { poolId, unitBytes, blockBytes, byNumber, damage }
  } catch (error) {
    for (const file of opened) await file.close()
    throw error
  }
}

/** @param opened gets the file, for whoever closes it when something fails later */
export async function openLabelled(
  path: string,
  mode: 'read' | 'write',
  lock: boolean,
  opened: DeviceFile[],
  damage: Damage[],
): Promise<LabelledDevice> {
  const file = await DeviceFile.open(path, mode, lock)
  opened.push(file)
  const label = await readLabel(file, damage)
  const sizeBytes = await file.sizeBytes()
  if (sizeBytes < label.layout.sizeBytes) {
    throw new StorageError('DEVICE_TOO_SMALL', {
      op: 'pool open',
      object: path,
      hint: `It has ${sizeBytes} bytes, the pool was made on ${label.layout.sizeBytes}. Give it its old size back: what was cut off held data.`,
    })
  }
  return { file, label }
}

async function readLabel(file: DeviceFile, damage: Damage[]): Promise<Label> {
  const { path } = file
  const end = labelOffsets[1] + pageBytes
  if ((await file.sizeBytes()) < end) throw notAPool(path, notAPoolHint)
  const bytes = await file.read(0, end)
  const copies = labelOffsets.map((offset) => decodeLabel(bytes.subarray(offset, offset + pageBytes)))
  if (copies.includes('newer')) throw tooNew(path)
  const label = copies.find((copy) => typeof copy === 'object')
  if (typeof label !== 'object') throw notAPool(path, notAPoolHint)
  copies.forEach((copy, slot) => {
    if (copy === undefined) damage.push({ where: labelName(label.layout, slot), what: 'it is damaged' })
  })
  return label
}

export function labelName(layout: DeviceLayout, slot: number): string {
  return `device ${layout.index}, label ${slotNames[slot]}`
}

export function tooNew(path: string): StorageError {
  const hint = 'Use at least the version of Tidemark that wrote it last.'
  return new StorageError('POOL_TOO_NEW', { op: 'pool open', object: path, hint })
}

const notAPoolHint = 'It carries no label of a pool. Check the path; give the devices a pool was created on.'

function notAPool(path: string, hint: string): StorageError {
  return new StorageError('NOT_A_POOL_DEVICE', { op: 'pool open', object: path, hint })
}

function foreign(path: string, other: string): StorageError {
  const hint = `It belongs to another pool than ${other}. Give the devices of one pool.`
  return new StorageError('FOREIGN_DEVICE', { op: 'pool open', object: path, hint })
}

function duplicate(path: string, other: string, index: number): StorageError {
  const hint = `It is device ${index} of the pool, as ${other} is: one is a copy. Give the one that was used last.`
  return new StorageError('DUPLICATE_DEVICE', { op: 'pool open', object: path, hint })
}
