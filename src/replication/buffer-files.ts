import { constants } from 'node:fs'
import { copyFile, link, open, readdir, rename, rm, rmdir } from 'node:fs/promises'
import path from 'node:path'
import { syncDirectory } from '../block/durable-file.js'
import { errnoOf } from '../block/storage-error.js'

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
