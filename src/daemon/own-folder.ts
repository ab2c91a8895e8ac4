import { lstat, readdir, stat } from 'node:fs/promises'
import path from 'node:path'
import { errnoOf, StorageError } from '../block/storage-error.js'
import { whyStrangersMayChange } from '../block/strangers.js'

/** Files of strangers arrive in it: nothing in it is believed. */
const inbox = 'inbox'

/**
 * A folder that the agent keeps its own files in, if it is there: nobody else may put one there, or a link in the place of
 * one, nor take one away.
 *
 * @throws StorageError UNSAFE_FOLDER
 */
export async function checkOwnFolder(op: string, directory: string): Promise<void> {
  const facts = await stat(directory).catch((error) => {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  })
  if (facts) refuseStrangers(op, directory, facts)
}

/**
 * The state directory, and what lies in it: a database or journal that others may write to is as bad as a folder that they
 * may put one in.
 *
 * @throws StorageError UNSAFE_FOLDER
 */
export async function checkStateDirectory(op: string, directory: string): Promise<void> {
  await checkOwnFolder(op, directory)
  for (const name of await readdir(directory)) {
    const entry = path.join(directory, name)
    const facts = await lstat(entry)
    // The mode of a link says nothing: its owner may change where it leads, and what is there is looked at where it is used.
    if (name !== inbox) refuseStrangers(op, entry, facts.isSymbolicLink() ? { mode: 0, uid: facts.uid } : facts)
  }
}

function refuseStrangers(op: string, object: string, facts: { readonly mode: number; readonly uid: number }): void {
  const why = whyStrangersMayChange(facts)
  if (why === undefined) return
  throw new StorageError('UNSAFE_FOLDER', {
    op,
    object,
    cause: why,
    hint: `What lies there is believed, and written as root. See that nobody has changed it, then: chown root ${object}; chmod go-w ${object}`,
  })
}
