import { readdirSync, readFileSync } from 'node:fs'
import { open, realpath, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { syncDirectory } from '../block/durable-file.js'
import { errnoOf, StorageError } from '../block/storage-error.js'
import { MiB, sectorBytes } from '../block/units.js'
import { probe } from '../intercept/probe.js'
import { Backing } from './backing.js'

export interface BackingFacts {
  /** Without links. */
  readonly path: string
  readonly kind: 'file' | 'raw'
  /** Of a file; a block device tells its size when it is opened. */
  readonly sizeBytes: number | undefined
}

/**
 * What lies at a path that shall back a volume.
 *
 * @param forbidden folders of the agent: a volume in its own buffer would feed on itself
 * @throws StorageError NOT_FOUND, NOT_A_FILE_OR_BLOCK_DEVICE, PATH_IN_BUFFER, DEVICE_BUSY, BAD_SIZE
 */
export async function inspectBacking(op: string, given: string, forbidden: readonly string[]): Promise<BackingFacts> {
  const real = await realpath(given).catch((cause) => {
    throw new StorageError('NOT_FOUND', {
      op,
      object: given,
      cause,
      hint: errnoOf(cause) === 'ENOENT' ? 'Check the path; nothing is there.' : 'Check the path and its permissions.',
    })
  })
  await refuseInside(op, real, forbidden)
  const facts = await stat(real)
  if (facts.isBlockDevice()) return { path: real, kind: 'raw', sizeBytes: undefined }
  if (!facts.isFile()) {
    throw new StorageError('NOT_A_FILE_OR_BLOCK_DEVICE', {
      op,
      object: given,
      hint: 'Give a block device or a flat file.',
    })
  }
  const device = loopDeviceOver(real)
  if (device) {
    throw new StorageError('DEVICE_BUSY', {
      op,
      object: given,
      hint: `${device} is attached to this file. Detach it first: losetup --detach ${device}`,
    })
  }
  if (facts.size === 0 || facts.size % sectorBytes !== 0) {
    throw new StorageError('BAD_SIZE', {
      op,
      object: given,
      hint: `Its size is ${facts.size} bytes; a volume needs a positive multiple of 512. truncate --size=%512 FILE rounds it up.`,
    })
  }
  return { path: real, kind: 'file', sizeBytes: facts.size }
}

/**
 * Make a new flat file of zeros, or take a block device that holds nothing.
 *
 * @throws StorageError ALREADY_EXISTS, NOT_FOUND, DATA_PRESENT, PATH_IN_BUFFER, DISK_FULL
 */
export async function createBacking(
  given: string,
  sizeBytes: number,
  forbidden: readonly string[],
  force: boolean,
): Promise<BackingFacts> {
  const op = 'volume create'
  const present = await stat(given).catch(() => undefined)
  if (present?.isBlockDevice()) return blankDevice(op, given, forbidden, force)
  if (present) {
    throw new StorageError('ALREADY_EXISTS', {
      op,
      object: given,
      hint: 'To protect what is there use: tidemark volume adopt. To begin anew, remove it or give another path.',
    })
  }
  const parent = await realpath(path.dirname(path.resolve(given))).catch((cause) => {
    throw new StorageError('NOT_FOUND', { op, object: given, cause, hint: 'Make the folder first.' })
  })
  const file = path.join(parent, path.basename(given))
  await refuseInside(op, file, forbidden)
  await makeFile(op, file, sizeBytes)
  return { path: file, kind: 'file', sizeBytes }
}

/** Zeroed at once; between two pieces the agent does its other work. */
const zeroPieceBytes = 16 * MiB

/** Make a block device read as zeros up to `sizeBytes`, durably. Takes as long as the device needs. */
export async function emptyDevice(device: string, sizeBytes: number): Promise<void> {
  const backing = new Backing(device, 'write')
  try {
    for (let offset = 0; offset < sizeBytes; offset += zeroPieceBytes) {
      backing.zero(offset, Math.min(zeroPieceBytes, sizeBytes - offset))
      await new Promise((resolve) => setImmediate(resolve))
    }
    backing.sync()
  } finally {
    backing.close()
  }
}

async function makeFile(op: string, file: string, sizeBytes: number): Promise<void> {
  try {
    const handle = await open(file, 'wx', 0o600)
    try {
      await handle.truncate(sizeBytes)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await syncDirectory(path.dirname(file))
  } catch (cause) {
    if (errnoOf(cause) !== 'EEXIST') await rm(file, { force: true })
    const code = { ENOSPC: 'DISK_FULL', EFBIG: 'BAD_SIZE' }[errnoOf(cause) ?? ''] ?? 'BACKING_UNAVAILABLE'
    throw new StorageError(code, { op, object: file, cause, hint: 'Nothing was made. Choose another place or size.' })
  }
}

async function blankDevice(
  op: string,
  given: string,
  forbidden: readonly string[],
  force: boolean,
): Promise<BackingFacts> {
  const facts = await inspectBacking(op, given, forbidden)
  const content = await probe(facts.path)
  if (content && !force) {
    throw new StorageError('DATA_PRESENT', {
      op,
      object: given,
      hint: `It holds ${content.description}. To protect that use: tidemark volume adopt. To lose it: --force.`,
    })
  }
  return facts
}

async function refuseInside(op: string, real: string, forbidden: readonly string[]): Promise<void> {
  for (const folder of forbidden) {
    const root = await realpath(folder).catch(() => folder)
    if (real === root || real.startsWith(`${root}/`)) {
      throw new StorageError('PATH_IN_BUFFER', {
        op,
        object: real,
        hint: `It lies inside ${root}, which the agent uses itself. Choose a path outside.`,
      })
    }
  }
}

/** The loop device that is attached to this file (without links), if any. */
export function loopDeviceOver(file: string): string | undefined {
  for (const name of readdirSync('/sys/block').filter((entry) => entry.startsWith('loop'))) {
    try {
      if (readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').trimEnd() === file) return `/dev/${name}`
    } catch {
      // No file is attached to this one.
    }
  }
  return undefined
}
