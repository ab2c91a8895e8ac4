import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import path from 'node:path'
import { StorageError } from '../block/storage-error.js'
import { fileCalls } from '../intercept/file-calls.js'

/**
 * One agent a state directory: two would write the same journals. The kernel ends the lock with the process.
 *
 * @returns what gives it back
 * @throws StorageError STATE_LOCKED naming the process that has it
 */
export function lockState(directory: string): () => void {
  const file = path.join(directory, 'lock')
  const fd = openSync(file, 'a+', 0o600)
  if (!fileCalls.lock(fd)) {
    const holder = readFileSync(file, 'utf8').trim()
    closeSync(fd)
    throw new StorageError('STATE_LOCKED', {
      op: 'agent',
      object: directory,
      hint: `Another agent (pid ${holder || 'unknown'}) uses this state directory. Stop it first, or give --state another one.`,
    })
  }
  ftruncateSync(fd)
  writeSync(fd, `${process.pid}\n`)
  return () => closeSync(fd)
}
