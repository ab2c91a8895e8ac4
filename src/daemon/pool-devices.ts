import { realpath, stat } from 'node:fs/promises'
import path from 'node:path'
import type { PoolDevice } from '../api/agent-operations.js'
import { StorageError } from '../block/storage-error.js'
import { probe } from '../intercept/probe.js'
import { inspectBacking, loopDeviceOver } from '../volume/backing-checks.js'
import type { PoolEngine } from './pool-engine.js'

export interface DeviceRules {
  readonly op: string
  /** Folders of the agent. */
  readonly forbidden: readonly string[]
  /** What has this path (without links) already: `the volume db`, or undefined. */
  readonly holder: (path: string) => string | undefined
  readonly identify: PoolEngine['identify']
  /** Overwrite what lies there. */
  readonly force: boolean
}

export interface PreparedDevice extends PoolDevice {
  /** A file lies there that is to be lost. */
  readonly replaces: boolean
}

/**
 * The device as a pool may take it: its path without links, and whether something is to be lost.
 *
 * @throws StorageError NOT_FOUND, NOT_A_BLOCK_DEVICE, ALREADY_EXISTS, DATA_PRESENT, PATH_IN_BUFFER, DEVICE_BUSY,
 * ALREADY_IN_USE, BAD_SIZE
 */
export async function prepareDevice(given: PoolDevice, rules: DeviceRules): Promise<PreparedDevice> {
  const prepared = given.kind === 'raw' ? await prepareRaw(given, rules) : await prepareFile(given, rules)
  const holder = rules.holder(prepared.path)
  if (holder === undefined) return prepared
  throw new StorageError('ALREADY_IN_USE', { op: rules.op, object: given.path, hint: `It belongs to ${holder}.` })
}

async function prepareRaw(given: PoolDevice, rules: DeviceRules): Promise<PreparedDevice> {
  const { op, forbidden, identify, force } = rules
  const facts = await inspectBacking(op, given.path, forbidden)
  if (facts.kind !== 'raw') {
    throw new StorageError('NOT_A_BLOCK_DEVICE', {
      op,
      object: given.path,
      hint: 'It is a file. To make a new one for the pool give --file PATH --size SIZE.',
    })
  }
  if (!force) {
    const content = (await describePool(facts.path, identify)) ?? (await probe(facts.path))?.description
    if (content !== undefined) {
      throw new StorageError('DATA_PRESENT', {
        op,
        object: given.path,
        hint: `It holds ${content}. To lose it: --force.`,
      })
    }
  }
  return { ...given, path: facts.path, replaces: false }
}

async function prepareFile(given: PoolDevice, rules: DeviceRules): Promise<PreparedDevice> {
  const { op, force } = rules
  const object = given.path
  if (given.sizeBytes === undefined) throw new StorageError('BAD_SIZE', { op, object, hint: 'A file needs a --size.' })
  const present = await stat(given.path).catch(() => undefined)
  const file = present ? await realpath(given.path) : await newPath(op, given.path)
  await refuseOwnFolders(file, rules)
  if (!present) return { ...given, path: file, replaces: false }
  if (!force || !present.isFile()) {
    const hint = present.isFile()
      ? 'Give another path. To lose the file: --force.'
      : 'It is no file. Give another path.'
    throw new StorageError('ALREADY_EXISTS', { op, object, hint })
  }
  const device = loopDeviceOver(file)
  if (device !== undefined) {
    const hint = `${device} is attached to this file. Detach it first: losetup --detach ${device}`
    throw new StorageError('DEVICE_BUSY', { op, object, hint })
  }
  return { ...given, path: file, replaces: true }
}

/** Where a file will be, without links. */
async function newPath(op: string, given: string): Promise<string> {
  const folder = await realpath(path.dirname(given)).catch((cause) => {
    throw new StorageError('NOT_FOUND', { op, object: given, cause, hint: 'Make the folder first.' })
  })
  return path.join(folder, path.basename(given))
}

async function refuseOwnFolders(file: string, { op, forbidden }: DeviceRules): Promise<void> {
  for (const root of await Promise.all(forbidden.map((own) => realpath(own).catch(() => own)))) {
    if (!file.startsWith(`${root}/`)) continue
    throw new StorageError('PATH_IN_BUFFER', {
      op,
      object: file,
      hint: `It lies inside ${root}, which the agent uses itself. Choose a path outside.`,
    })
  }
}

async function describePool(file: string, identify: PoolEngine['identify']): Promise<string | undefined> {
  try {
    const id = await identify(file)
    return id && `a part of the pool ${id}, which tidemark pool import takes in`
  } catch (error) {
    if (error instanceof StorageError && ['POOL_TOO_NEW', 'DEVICE_TOO_SMALL'].includes(error.code)) {
      return `a part of a pool (${error.code})`
    }
    throw error
  }
}
