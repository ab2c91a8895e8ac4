import { type FSWatcher, watch } from 'node:fs'
import { lstat, rm } from 'node:fs/promises'
import path from 'node:path'
import { PART_FILE_LIMIT } from '../replication-file/limits.js'
import { TEST_FOLDER } from '../transport/remote-name.js'
import { entriesOf, type InboxNames, listInbox } from './inbox-listing.js'

/** Folders that may be streams, in one look at the most. */
const folderLimit = 100_000
/** A folder with more entries is listed by a worker: the main thread answers the faults of hosts. */
const smallFolder = 256
/** A fault of a file that is not there any more. */
export const VANISHED = 'it vanished'
const streamFolder = /^[0-9a-f]{32}$/

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
    for await (const entry of await entriesOf(this.directory)) {
      if (entry.isDirectory() && streamFolder.test(entry.name) && entry.name !== TEST_FOLDER) names.push(entry.name)
      if (names.length >= folderLimit) break
    }
    return names.sort()
  }

  /** A stream's folder when it is a folder, not a link to one. */
  async folder(streamId: string): Promise<string | undefined> {
    const folder = path.join(this.directory, streamId)
    const facts = await lstat(folder).catch(() => undefined)
    return facts?.isDirectory() ? folder : undefined
  }

  /** What lies there. @param listLarge listInbox() in a worker */
  async names(streamId: string, listLarge: (folder: string) => Promise<InboxNames>): Promise<InboxNames> {
    const folder = await this.folder(streamId)
    if (folder === undefined) return { parts: [], others: [] }
    this.#watch(folder, streamId)
    return (await listInbox(folder, smallFolder)) ?? listLarge(folder)
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
