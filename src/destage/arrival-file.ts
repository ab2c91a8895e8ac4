import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { errnoOf, StorageError } from '../block/storage-error.js'
import { PART_FILE_LIMIT } from '../replication-file/limits.js'

/**
 * Read a whole file that a stranger may have made: a regular file with one name and a bounded size, or nothing.
 * Never follows a link, never waits on a pipe. The size is taken once; what grows meanwhile is not read.
 *
 * @throws StorageError FOREIGN_FILE, NOT_FOUND
 */
export function readArrival(file: string): Buffer {
  let fd: number
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK | constants.O_NOCTTY)
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') {
      throw new StorageError('NOT_FOUND', { op: 'read', object: file, cause, hint: 'It was removed meanwhile.' })
    }
    throw foreign(file, `cannot be opened: ${errnoOf(cause) ?? String(cause)}`)
  }
  try {
    const facts = fstatSync(fd)
    if (!facts.isFile()) throw foreign(file, 'not a regular file')
    if (facts.nlink !== 1) throw foreign(file, 'it has several names')
    if (facts.size > PART_FILE_LIMIT) throw foreign(file, `${facts.size} bytes are more than a part has`)
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

function foreign(file: string, why: string): StorageError {
  return new StorageError('FOREIGN_FILE', {
    op: 'read',
    object: file,
    cause: why,
    hint: 'Somebody else put it into the arrival folder. Remove it, and check who may write there.',
  })
}
