import { errnoOf, StorageError } from '../block/storage-error.js'

/** What a file system refuses is an operator's to mend; anything else is a broken invariant and stays one. */
export function asStorageError(error: unknown, directory: string): StorageError {
  if (error instanceof StorageError) return error
  const errno = errnoOf(error)
  if (errno === undefined || errno.startsWith('ERR_')) throw error
  const full = errno === 'ENOSPC' || errno === 'EDQUOT'
  return new StorageError(full ? 'DESTINATION_FULL' : 'DESTINATION_UNAVAILABLE', {
    op: 'destage',
    object: directory,
    cause: error,
    retry: 'later',
    hint: full
      ? 'Free space on the file system of the inbound folder or the inbox; what arrives waits.'
      : 'Check the file system of the inbound folder and the inbox; what arrives waits.',
  })
}
