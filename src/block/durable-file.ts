import { constants } from 'node:fs'
import { mkdir, open, rename, rm } from 'node:fs/promises'
import path from 'node:path'

/** Make a folder's entries (created, renamed, removed names) survive a power cut. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await handle.sync()
  } finally {
    await handle.close()
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
