import { type FSWatcher, watch } from 'node:fs'
import { lstat, opendir, rm } from 'node:fs/promises'
import path from 'node:path'
import { errnoOf } from '../block/storage-error.js'
import { ACKNOWLEDGEMENT_NAME } from '../replication-file/acknowledgement.js'
import { PART_FILE_LIMIT } from '../replication-file/limits.js'
import { parsePartFileName } from '../replication-file/part-file-name.js'
import { TEST_FOLDER } from '../transport/remote-name.js'
import { TEMPORARY_SUFFIX } from '../transport/transport.js'

/** Names kept of one folder in one turn, at the most: a flooded folder costs time, not memory. */
const scanLimit = 100_000
/** A fault of a file that is not there any more. */
export const VANISHED = 'it vanished'
const streamFolder = /^[0-9a-f]{32}$/

export interface InboxNames {
  /** Names that a part can have, in their order, which is the order they are applied in; the first of many. */
  readonly parts: readonly string[]
  /** Other names, as they come. */
  readonly others: readonly string[]
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

  /**
   * What lies there, temporary files and the acknowledgement aside. However many foreign files there are, those that come
   * next in the stream are among the parts.
   */
  async names(streamId: string): Promise<InboxNames> {
    const folder = await this.folder(streamId)
    const parts: string[] = []
    const others: string[] = []
    if (folder === undefined) return { parts, others }
    this.#watch(folder, streamId)
    for await (const { name } of await this.#entries(folder)) {
      if (name === ACKNOWLEDGEMENT_NAME || name.endsWith(TEMPORARY_SUFFIX)) continue
      if (parsePartFileName(name)) parts.push(name)
      else if (others.length < scanLimit) others.push(name)
      if (parts.length >= 2 * scanLimit) keepFirst(parts)
    }
    keepFirst(parts)
    return { parts, others }
  }

  /** Why a file can be no part, whatever its name, or undefined. */
  async fault(streamId: string, name: string): Promise<string | undefined> {
    const facts = await lstat(this.file(streamId, name)).catch(() => undefined)
    if (!facts) return VANISHED
    if (!facts.isFile()) return 'it is not a regular file'
    if (facts.nlink !== 1) return 'it has several names'
    return facts.size > PART_FILE_LIMIT ? `${facts.size} bytes are more than a part has` : undefined
  }

  file(streamId: string, name: string): string {
    return path.join(this.directory, streamId, name)
  }

  async remove(streamId: string, name: string): Promise<void> {
    await rm(this.file(streamId, name), { force: true })
  }

  close(): void {
    for (const watcher of this.#watchers.values()) watcher.close()
    this.#watchers.clear()
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

/** The first in name order, up to the limit. */
function keepFirst(names: string[]): void {
  names.sort()
  if (names.length > scanLimit) names.length = scanLimit
}
