import { closeSync, constants, fstatSync, openSync, readSync, type Stats } from 'node:fs'
import { open, rename, rm } from 'node:fs/promises'
import { writeDurably } from '../block/durable-file.js'
import { errnoOf, StorageError } from '../block/storage-error.js'
import { PART_FILE_LIMIT } from '../replication-file/limits.js'

/** Follows no link, waits on no pipe. */
const readFlags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK | constants.O_NOCTTY
/** Read at once. */
const chunkBytes = 1024 * 1024

/**
 * Read a whole file that a stranger may have made: a regular file with one name and a bounded size, or nothing.
 * Never follows a link, never waits on a pipe. The size is taken once; what grows meanwhile is not read.
 *
 * @throws StorageError FOREIGN_FILE, NOT_FOUND
 */
export function readArrival(file: string): Buffer {
  let fd: number
  try {
    fd = openSync(file, readFlags)
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') {
      throw new StorageError('NOT_FOUND', { op: 'read', object: file, cause, hint: 'It was removed meanwhile.' })
    }
    throw foreign(file, `cannot be opened: ${errnoOf(cause) ?? String(cause)}`)
  }
  try {
    const facts = fstatSync(fd)
    const fault = faultOf(facts)
    if (fault !== null) throw foreign(file, fault)
    const bytes = Buffer.alloc(facts.size)
    let done = 0
    while (done < bytes.length) {
      const count = readSync(fd, bytes, done, bytes.length - done, done)
      if (count === 0) break
      done += count
    }
    return bytes.subarray(0, done)
  } finally {
    closeSync(fd)
  }
}

/**
 * Move a file out of a folder others may write to, whatever takes its name meanwhile. On another disk it is durable there
 * before the original goes.
 *
 * @param onProgress bytes read for that
 * @returns false when it is gone, or no file that can be a part any more
 */
export async function moveArrival(from: string, to: string, onProgress?: (bytes: number) => void): Promise<boolean> {
  try {
    await rename(from, to)
    return true
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false
    if (errnoOf(error) !== 'EXDEV') throw error
  }
  const bytes = await readUnlessChanged(from, onProgress)
  if (!bytes) return false
  await writeDurably(to, bytes)
  await rm(from, { force: true })
  return true
}

/** As readArrival(), for a file that may be far away: what was a file a moment ago may have been replaced since. */
async function readUnlessChanged(file: string, onProgress?: (bytes: number) => void): Promise<Buffer | undefined> {
  const handle = await open(file, readFlags).catch(() => undefined)
  if (!handle) return undefined
  try {
    const facts = await handle.stat()
    if (faultOf(facts) !== null) return undefined
    const bytes = Buffer.alloc(facts.size)
    let done = 0
    while (done < bytes.length) {
      const { bytesRead } = await handle.read(bytes, done, Math.min(chunkBytes, bytes.length - done), done)
      if (bytesRead === 0) break
      done += bytesRead
      onProgress?.(bytesRead)
    }
    return bytes.subarray(0, done)
  } finally {
    await handle.close()
  }
}

/** Why a file can be no part, whatever its name, or null. */
export function faultOf(facts: Pick<Stats, 'isFile' | 'nlink' | 'size'>): string | null {
  if (!facts.isFile()) return 'it is not a regular file'
  if (facts.nlink !== 1) return 'it has several names'
  return facts.size > PART_FILE_LIMIT ? `${facts.size} bytes are more than a part has` : null
}

function foreign(file: string, why: string): StorageError {
  return new StorageError('FOREIGN_FILE', {
    op: 'read',
    object: file,
    cause: why,
    hint: 'Somebody else put it into the arrival folder. Remove it, and check who may write there.',
  })
}
