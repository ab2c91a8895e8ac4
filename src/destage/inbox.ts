import { constants, type FSWatcher, watch } from 'node:fs'
import { lstat, open, rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { errnoOf } from '../block/storage-error.js'
import { TEST_FOLDER } from '../transport/remote-name.js'
import { writeAcknowledgement } from './acknowledgement-writer.js'
import { faultOf, moveArrival } from './arrival-file.js'
import { entriesOf, type InboxNames, listInbox } from './inbox-listing.js'

/** Folders that may be streams, in one look at the most. */
const folderLimit = 100_000
/** A folder with more entries is listed by a worker: the main thread answers the faults of hosts. */
const smallFolder = 256
/** A fault of a file that is not there any more. */
export const VANISHED = 'it vanished'
/** O_NOFOLLOW with O_DIRECTORY calls a link no directory. */
const noFolder: readonly unknown[] = ['ENOENT', 'ENOTDIR', 'ELOOP']
const streamFolder = /^[0-9a-f]{32}$/

/**
 * The folder a pairing's files arrive in, one folder a stream inside. Others may write to it (an FTP server, a share):
 * nothing in it is believed, no link is followed. What it takes to touch it is here: whoever does may hang in the kernel.
 */
export interface InboxCalls {
  readonly directory: string
  /** Folders that may be streams. */
  streams(): Promise<string[]>
  /** What lies in a stream's folder. @param listLarge listInbox() in a worker */
  names(streamId: string, listLarge: (folder: string) => Promise<InboxNames>): Promise<InboxNames>
  /** Move a file to a place of the agent's own, durably when that is on another disk. @returns why it is no part, or null */
  take(streamId: string, name: string, to: string): Promise<string | null>
  /** @returns why it is no part, and stays, or null */
  remove(streamId: string, name: string): Promise<string | null>
  /** Move whatever has this name. @returns whether that can be done */
  putAside(streamId: string, name: string, to: string): Promise<boolean>
  /** @returns false when the stream has no folder */
  acknowledge(streamId: string, sealed: Buffer): Promise<boolean>
  /** Nothing is watched any more. */
  close(): void
}

/** An inbox on a disk of the agent's own: touched by this process. */
export class Inbox implements InboxCalls {
  readonly directory: string
  readonly #watchers = new Map<string, FSWatcher>()
  readonly #onChange: (streamId: string | null) => void

  /** @param onChange a hint that something happened in a stream's folder, or (null) that a folder came or went */
  constructor(directory: string, onChange: (streamId: string | null) => void) {
    this.directory = directory
    this.#onChange = onChange
  }

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

  async names(streamId: string, listLarge: (folder: string) => Promise<InboxNames>): Promise<InboxNames> {
    const folder = await this.folder(streamId)
    if (folder === undefined) return { parts: [], others: [] }
    this.#watch(folder, streamId)
    return (await listInbox(folder, smallFolder)) ?? listLarge(folder)
  }

  /**
   * What moves, removes or writes files there: the folder is held by descriptor meanwhile, and what takes its place is not
   * followed. A link might lead to files of the agent's own that are called like these.
   *
   * @param work is given a path that leads there while it runs, in this process alone
   * @returns undefined, with nothing done, when there is no such folder
   */
  async inFolder<T>(streamId: string, work: (folder: string) => Promise<T>): Promise<T | undefined> {
    const flags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW
    const handle = await open(path.join(this.directory, streamId), flags).catch((error) => {
      if (noFolder.includes(errnoOf(error))) return undefined
      throw error
    })
    try {
      return handle && (await work(`/proc/self/fd/${handle.fd}`))
    } finally {
      await handle?.close()
    }
  }

  /** @param onProgress the file is on another disk, and some of it has been read */
  async take(streamId: string, name: string, to: string, onProgress?: (bytes: number) => void): Promise<string | null> {
    const fault = await this.inFolder(streamId, async (folder) => {
      const file = path.join(folder, name)
      return (await whyNoPart(file)) ?? ((await moveArrival(file, to, onProgress)) ? null : VANISHED)
    })
    return fault === undefined ? VANISHED : fault
  }

  async remove(streamId: string, name: string): Promise<string | null> {
    const fault = await this.inFolder(streamId, async (folder) => {
      const file = path.join(folder, name)
      const found = await whyNoPart(file)
      if (found === null) await rm(file, { force: true })
      return found
    })
    return fault === undefined ? VANISHED : fault
  }

  async putAside(streamId: string, name: string, to: string): Promise<boolean> {
    const isMoved = await this.inFolder(streamId, (folder) =>
      rename(path.join(folder, name), to).then(
        () => true,
        () => false,
      ),
    )
    return isMoved ?? false
  }

  async acknowledge(streamId: string, sealed: Buffer): Promise<boolean> {
    const isWritten = await this.inFolder(streamId, async (folder) => {
      await writeAcknowledgement(folder, sealed)
      return true
    })
    return isWritten ?? false
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

/** Why what lies there can be no part, whatever its name, or null. */
async function whyNoPart(file: string): Promise<string | null> {
  const facts = await lstat(file).catch(() => undefined)
  return facts ? faultOf(facts) : VANISHED
}
