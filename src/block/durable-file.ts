import { constants } from 'node:fs'
import { type FileHandle, mkdir, open, rename, rm, statfs } from 'node:fs/promises'
import path from 'node:path'
import { errnoOf } from './storage-error.js'

/** Of statfs(); ext2 and ext3 have it, too. */
const ext4Magic = 0xef53

/** Make a folder's entries (created, renamed, removed names) survive a power cut. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await handle.sync()
    await assertCommitted(handle, directory)
  } finally {
    await handle.close()
  }
}

/**
 * After a good sync of a file or folder that has grown: its file system has not given up. native/sys/data_sync.h says why a
 * sync alone does not tell. Node cannot ask as it does there; of two changes of a time the first notices, the second is refused.
 *
 * @param place a path on the same file system
 * @throws what the file system says: EROFS
 */
export async function assertCommitted(handle: FileHandle, place: string): Promise<void> {
  if ((await statfs(place)).type !== ext4Magic) return
  const { atime } = await handle.stat()
  try {
    for (let time = 1; time <= 2; time++) await handle.utimes(atime, new Date())
  } catch (error) {
    // Somebody else's folder, to an agent that is not root.
    if (errnoOf(error) !== 'EPERM') throw error
  }
}

/**
 * Write a whole file so that its name holds either the old content or the new, also after a power cut.
 *
 * Steps: temporary file, sync, rename, sync of the folder. Without the first sync a cut can leave an empty file
 * under the final name; without the second the old name may come back.
 */
export async function writeDurably(
  file: string,
  content: Uint8Array | readonly Uint8Array[],
  mode = 0o600,
): Promise<void> {
  const temporary = `${file}.${process.pid}.tmp`
  try {
    const handle = await open(temporary, 'w', mode)
    try {
      for (const piece of content instanceof Uint8Array ? [content] : content) await handle.writeFile(piece)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, file)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
  await syncDirectory(path.dirname(file))
}

/** Make a private folder, and its parents, if it is not there. */
export async function makeFolder(directory: string): Promise<string> {
  await mkdir(directory, { recursive: true, mode: 0o700 })
  return directory
}
