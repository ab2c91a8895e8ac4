import { constants } from 'node:fs'
import { copyFile, link, mkdir, open, readdir, rename, rm, rmdir } from 'node:fs/promises'
import path from 'node:path'
import { syncDirectory } from '../block/durable-file.js'
import { errnoOf, StorageError } from '../block/storage-error.js'

/** What a source buffer does to its files: one call is one step that a crash can come before or after. */
export interface BufferFiles {
  /** undefined: there is no such folder. */
  list(directory: string): Promise<string[] | undefined>
  link(from: string, to: string): Promise<void>
  copy(from: string, to: string): Promise<void>
  syncFile(file: string): Promise<void>
  rename(from: string, to: string): Promise<void>
  syncDirectory(directory: string): Promise<void>
  /** Nothing, when it is not there. */
  remove(file: string): Promise<void>
  removeFolder(directory: string): Promise<void>
}

export const bufferFiles: BufferFiles = {
  async list(directory) {
    try {
      return await readdir(directory)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw error
    }
  },
  link,
  copy: (from, to) => copyFile(from, to),
  async syncFile(file) {
    const handle = await open(file, constants.O_RDONLY)
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  },
  rename,
  syncDirectory,
  remove: (file) => rm(file, { recursive: true, force: true }),
  removeFolder: (directory) => rmdir(directory),
}

/**
 * Bring one file, which never changes, to another folder. When it resolves the file is whole and durable under its new
 * name, and still there under the old one.
 *
 * Steps: (1) a second name for it, or, on another file system, a copy under a temporary name, (2) its sync, (3) its
 * rename, (4) the sync of the new folder. With 3 before 2 a power cut could leave a name without content, which would be
 * taken for the file; an old name removed before 4 could leave none.
 */
export async function bringFile(files: BufferFiles, from: string, directory: string, name: string): Promise<void> {
  const to = path.join(directory, name)
  try {
    await files.link(from, to)
  } catch (error) {
    const code = errnoOf(error)
    if (code === 'ENOENT') throw error
    // There already: the step after it was interrupted.
    if (code !== 'EEXIST') await copyDurably(files, from, to)
  }
  await files.syncDirectory(directory)
}

async function copyDurably(files: BufferFiles, from: string, to: string): Promise<void> {
  const temporary = `${to}.tmp`
  try {
    await files.copy(from, temporary)
    await files.syncFile(temporary)
    await files.rename(temporary, to)
  } catch (error) {
    await files.remove(temporary).catch(() => undefined)
    throw error
  }
}

/** Of files that nobody needs any more, and that cannot be removed. */
export function leftText(where: string, cause: unknown): string {
  return `Files that are not needed any more could not be removed; remove them when the disk is mended: ${where} (${cause})`
}

/** Make a folder so that a power cut does not take it back. */
export async function makeDurably(directory: string): Promise<void> {
  const first = await mkdir(directory, { recursive: true, mode: 0o700 })
  if (first === undefined) return
  const above = path.dirname(first)
  for (let folder = directory; ; folder = path.dirname(folder)) {
    await syncDirectory(folder)
    if (folder === above) return
  }
}

/** What a file system refuses is an operator's to mend. @throws StorageError BUFFER_UNAVAILABLE */
export async function asBufferFault(directory: string, use: () => Promise<void>): Promise<void> {
  try {
    await use()
  } catch (cause) {
    if (cause instanceof StorageError || errnoOf(cause) === undefined) throw cause
    throw new StorageError('BUFFER_UNAVAILABLE', {
      op: 'source buffer',
      object: directory,
      cause,
      retry: 'later',
      hint: 'Check the file system of the source buffer (see dmesg), then try again.',
    })
  }
}
