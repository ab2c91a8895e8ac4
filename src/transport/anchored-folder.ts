/**
 * A folder held by descriptor. Every entry is reached through it, one component at a time, and a symbolic link is never
 * followed: whoever may write into the shared folder cannot lead the agent out of it, nor swap a folder under it
 * between two calls. (Node has no openat; /proc/self/fd/N/name is the same thing on Linux.)
 */
import { constants, type Dirent } from 'node:fs'
import { type FileHandle, lstat, mkdir, open, readdir, rename, rmdir, unlink } from 'node:fs/promises'
import { errnoOf } from '../block/storage-error.js'
import { isRemoteName } from './remote-name.js'
import { LIST_LIMIT, type RemoteFile } from './transport.js'

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = constants
/** Stats under way at once in one listing. */
const STAT_BATCH = 64

export class AnchoredFolder {
  readonly #handle: FileHandle

  private constructor(handle: FileHandle) {
    this.#handle = handle
  }

  /** The operator's own folder; it may be reached by a link. @throws ENOENT, ENOTDIR, EACCES */
  static async open(directory: string): Promise<AnchoredFolder> {
    return new AnchoredFolder(await open(directory, O_RDONLY | O_DIRECTORY))
  }

  /** A folder in this one. Made, and made durable, when it is missing and `create` says so. @throws ENOTDIR for a link */
  async child(name: string, create: boolean): Promise<AnchoredFolder> {
    const place = this.#place(name)
    if (create) {
      try {
        await mkdir(place, 0o700)
        await this.sync()
      } catch (error) {
        if (errnoOf(error) !== 'EEXIST') throw error
      }
    }
    return new AnchoredFolder(await open(place, O_RDONLY | O_DIRECTORY | O_NOFOLLOW))
  }

  /** A new file; what stood there, link or file, is removed, never written through. */
  async createFile(name: string): Promise<FileHandle> {
    await this.remove(name)
    return open(this.#place(name), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
  }

  /** An existing regular file with one name, or undefined when there is none. @throws ELOOP for a link */
  async openFile(
    name: string,
    access: 'read' | 'write',
  ): Promise<{ handle: FileHandle; lengthBytes: number } | undefined> {
    let handle: FileHandle
    try {
      // O_NONBLOCK: opening a FIFO somebody left here must not wait for its other end.
      handle = await open(this.#place(name), (access === 'read' ? O_RDONLY : O_WRONLY) | O_NOFOLLOW | O_NONBLOCK)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw error
    }
    try {
      const facts = await handle.stat()
      // No name at all: it was replaced since it was opened, and what is held is the whole old content.
      if (facts.isFile() && facts.nlink <= 1) return { handle, lengthBytes: facts.size }
      throw Object.assign(new Error('not a regular file with one name'), { code: 'ELOOP' })
    } catch (error) {
      await handle.close()
      throw error
    }
  }

  async rename(from: string, to: string): Promise<void> {
    await rename(this.#place(from), this.#place(to))
  }

  /** Removing what is not there is no error. */
  async remove(name: string): Promise<void> {
    try {
      await unlink(this.#place(name))
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error
    }
  }

  /** Remove an empty folder; one that is not empty stays. */
  async removeFolder(name: string): Promise<void> {
    try {
      await rmdir(this.#place(name))
    } catch (error) {
      if (!['ENOENT', 'ENOTEMPTY', 'EEXIST'].includes(errnoOf(error) ?? '')) throw error
    }
  }

  /** Complete regular files in name order, LIST_LIMIT at the most; whatever else lies here is not mentioned. */
  async list(signal?: AbortSignal): Promise<RemoteFile[]> {
    const entries = await readdir(`/proc/self/fd/${this.#handle.fd}`, { withFileTypes: true })
    const names = entries
      .filter(isCompleteFile)
      .map((entry) => entry.name)
      .sort()
      .slice(0, LIST_LIMIT)
    const files: RemoteFile[] = []
    for (let start = 0; start < names.length; start += STAT_BATCH) {
      signal?.throwIfAborted()
      const batch = names.slice(start, start + STAT_BATCH)
      for (const file of await Promise.all(batch.map((name) => this.#describe(name)))) if (file) files.push(file)
    }
    return files
  }

  async #describe(name: string): Promise<RemoteFile | undefined> {
    try {
      const facts = await lstat(this.#place(name))
      return facts.isFile() ? { name, lengthBytes: facts.size } : undefined
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw error
    }
  }

  /** Names made, renamed and removed here survive a power cut when this resolves. */
  async sync(): Promise<void> {
    await this.#handle.sync()
  }

  async close(): Promise<void> {
    await this.#handle.close()
  }

  #place(name: string): string {
    return `/proc/self/fd/${this.#handle.fd}/${name}`
  }
}

function isCompleteFile(entry: Dirent): boolean {
  return entry.isFile() && isRemoteName(entry.name)
}

/** Work in `<base>/<pairing>/<folder>`; undefined without calling `work` when it is absent and not to be created. */
export async function inFolder<T>(
  base: string,
  pairing: string,
  folder: string,
  create: boolean,
  work: (folder: AnchoredFolder, pair: AnchoredFolder) => Promise<T>,
): Promise<T | undefined> {
  const anchors: AnchoredFolder[] = [await AnchoredFolder.open(base)]
  try {
    for (const name of [pairing, folder]) {
      try {
        anchors.push(await anchors.at(-1)!.child(name, create))
      } catch (error) {
        if (!create && errnoOf(error) === 'ENOENT') return undefined
        throw error
      }
    }
    return await work(anchors[2]!, anchors[1]!)
  } finally {
    for (const anchor of anchors) await anchor.close()
  }
}
