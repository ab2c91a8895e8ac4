import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { open, rename, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { errnoOf } from '../block/storage-error.js'
import { ACKNOWLEDGEMENT_NAME } from '../replication-file/acknowledgement.js'
import { TEMPORARY_SUFFIX } from '../transport/transport.js'

/**
 * Put the acknowledgement into the stream's folder, as a whole, readable for whoever owns the folder (an FTP server's
 * user). Not synced: what it says is durable elsewhere, and a lost one is written again.
 *
 * @param folder held open: a name that others can exchange for a link would let them have a file of theirs anywhere
 */
export async function writeAcknowledgement(folder: string, sealed: Buffer): Promise<void> {
  const owner = await stat(folder)
  const temporary = path.join(folder, `${ACKNOWLEDGEMENT_NAME}-${randomBytes(6).toString('hex')}${TEMPORARY_SUFFIX}`)
  try {
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW
    const handle = await open(temporary, flags, 0o600)
    try {
      await handle.writeFile(sealed)
      await handle.chown(owner.uid, owner.gid)
    } finally {
      await handle.close()
    }
    await putInPlace(temporary, path.join(folder, ACKNOWLEDGEMENT_NAME))
  } finally {
    await rm(temporary, { force: true })
  }
}

/** A folder that somebody made under this name is moved out of the way, to be named like any other foreign file. */
async function putInPlace(temporary: string, place: string): Promise<void> {
  try {
    await rename(temporary, place)
  } catch (error) {
    if (errnoOf(error) !== 'EISDIR') throw error
    await rename(place, `${place}-foreign-${randomBytes(6).toString('hex')}`)
    await rename(temporary, place)
  }
}
