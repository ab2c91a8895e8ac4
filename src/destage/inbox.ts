import { type FSWatcher, watch } from 'node:fs'
import { lstat, opendir, rm } from 'node:fs/promises'
import path from 'node:path'
import { errnoOf } from '../block/storage-error.js'
import { ACKNOWLEDGEMENT_NAME } from '../replication-file/acknowledgement.js'
import { PART_FILE_LIMIT } from '../replication-file/limits.js'
import { TEST_FOLDER } from '../transport/remote-name.js'
import { TEMPORARY_SUFFIX } from '../transport/transport.js'

/** Names looked at in one folder in one turn, at the most: a flooded folder costs time, not memory. */
const scanLimit = 100_000
const streamFolder = /^[0-9a-f]{32}$/

export interface InboxFile {
  readonly name: string
  readonly path: string
  /** Why it can be no replication file, or undefined. */
  readonly fault: string | undefined
}

/**
 * The folder a pairing's files arrive in, one folder a stream inside. Others may write to it (an FTP server, a share):
 * nothing in it is believed, no link is followed.
 */
export class Inbox {
  readonly directory: string
  readonly #watchers = new Map<string, FSWatcher>()
  readonly #onChange: (streamId: string | null) => void

  /** @param onChange a hint that something happened in a stream's folder, or (null) that a folder came or went */
  constructor(directory: string, onChange: (streamId: string | null) => void) {
    this.directory = directory
    this.#onChange = onChange
  }

  /** Folders that may be streams. */
  async streams(): Promise<string[]> {
    this.#watch(this.directory, null)
    const names: string[] = []
    for await (const entry of await this.#entries(this.directory)) {
      if (entry.isDirectory() && streamFolder.test(entry.name) && entry.name !== TEST_FOLDER) names.push(entry.name)
      if (names.length >= scanLimit) break
    }
    return names.sort()
  }

  /** A stream's folder when it is a folder, not a link to one. */
  async folder(streamId: string): Promise<string | undefined> {
    const folder = path.join(this.directory, streamId)
    const facts = await lstat(folder).catch(() => undefined)
    return facts?.isDirectory() ? folder : undefined
  }

  /** Complete files in name order, which is the order they are applied in. */
  async files(streamId: string): Promise<InboxFile[]> {
    const folder = await this.folder(streamId)
    if (folder === undefined) return []
    this.#watch(folder, streamId)
    const names: string[] = []
    for await (const entry of await this.#entries(folder)) {
      if (entry.name === ACKNOWLEDGEMENT_NAME || entry.name.endsWith(TEMPORARY_SUFFIX)) continue
      names.push(entry.name)
      if (names.length >= scanLimit) break
    }
    return Promise.all(names.sort().map((name) => this.#inspect(folder, name)))
  }

  async remove(file: InboxFile): Promise<void> {
    await rm(file.path, { force: true })
  }

  close(): void {
    for (const watcher of this.#watchers.values()) watcher.close()
    this.#watchers.clear()
  }

  async #inspect(folder: string, name: string): Promise<InboxFile> {
    const file = path.join(folder, name)
    const facts = await lstat(file).catch(() => undefined)
    const fault = !facts
      ? 'it vanished'
      : !facts.isFile()
        ? 'it is not a regular file'
        : facts.nlink !== 1
          ? 'it has several names'
          : facts.size > PART_FILE_LIMIT
            ? `${facts.size} bytes are more than a part has`
            : undefined
    return { name, path: file, fault }
  }

  async #entries(folder: string): Promise<AsyncIterable<{ name: string; isDirectory(): boolean }>> {
    try {
      return await opendir(folder)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return (async function* () {})()
      throw error
    }
  }

  #watch(folder: string, streamId: string | null): void {
    if (this.#watchers.has(folder)) return
    try {
      const watcher = watch(folder, () => this.#onChange(streamId))
      watcher.on('error', () => this.#unwatch(folder))
      watcher.unref()
      this.#watchers.set(folder, watcher)
    } catch {
      // Without a watch the regular look finds what came; a folder that is not there yet is tried again then.
    }
  }

  #unwatch(folder: string): void {
    this.#watchers.get(folder)?.close()
    this.#watchers.delete(folder)
  }
}
