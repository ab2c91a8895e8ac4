/**
 * What may be a folder's or file's name at the far side. Everything that reaches a file system, an FTP command or a URL
 * passes here first, at both ends. Letters are lower-case, so that a share that folds case has no twins.
 */
import { StorageError } from '../block/storage-error.js'
import { TEMPORARY_SUFFIX } from './transport.js'

export const NAME_LIMIT = 120

const folderPattern = /^[0-9a-f]{32}$/
const namePattern = new RegExp(`^[0-9a-z][0-9a-z._-]{0,${NAME_LIMIT - 1}}$`)

/** A folder is a stream's id: 16 bytes in hex. */
export function isRemoteFolder(value: string): boolean {
  return folderPattern.test(value)
}

export function isRemoteName(value: string): boolean {
  return namePattern.test(value) && !value.includes('..') && !value.endsWith(TEMPORARY_SUFFIX)
}

/** Where `destination test` leaves its small file for a moment; no stream has this id. */
export const TEST_FOLDER = '0'.repeat(32)

/** @throws StorageError BAD_NAME before anything reaches the wire */
export function checkRemoteName(op: string, folder: string, name?: string): void {
  if (isRemoteFolder(folder) && (name === undefined || isRemoteName(name))) return
  throw new StorageError('BAD_NAME', {
    op,
    object: JSON.stringify((name === undefined ? folder : `${folder}/${name}`).slice(0, 200)),
    hint: 'A remote folder is 32 hex digits; a name is lower-case letters, digits, dots, dashes and underscores.',
  })
}
