import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { open, type RootDatabase } from 'lmdb'
import type { StateStore } from '../block/state-store.js'
import { StorageError } from '../block/storage-error.js'
import { MiB } from '../block/units.js'

/** Given up when the disk is full: a stream that lost its journal must be recorded before hosts may go on. */
const reserveBytes = 4 * MiB

/**
 * The agent's own state: an LMDB database whose commits are synced, with room for the facts that a full disk makes.
 *
 * What put() and remove() throw is a StorageError STATE_UNAVAILABLE, to be tried again later; nothing has changed then.
 */
export class LmdbStore implements StateStore {
  readonly #directory: string
  readonly #reserve: string
  readonly #database: RootDatabase<unknown, string>

  constructor(directory: string) {
    surviveFullDisk()
    this.#directory = directory
    this.#reserve = `${directory}.reserve`
    keepReserve(this.#reserve)
    this.#database = open<unknown, string>({
      path: directory,
      encoding: 'json',
      // A put that has resolved is on the disk, not on its way there.
      overlappingSync: false,
    })
  }

  get<T>(key: string): T | undefined {
    return this.#database.get(key) as T | undefined
  }

  async put(entries: Record<string, unknown>): Promise<void> {
    const change = (): void => {
      for (const [key, value] of Object.entries(entries)) this.#database.putSync(key, value)
    }
    try {
      await this.#database.transaction(change)
    } catch (error) {
      noteFailedCommit(error)
      if (!existsSync(this.#reserve)) throw this.#unavailable(error)
      rmSync(this.#reserve)
      await this.#transaction(change)
    }
  }

  async remove(keys: readonly string[]): Promise<void> {
    await this.#transaction(() => {
      for (const key of keys) this.#database.removeSync(key)
    })
  }

  list<T>(prefix: string): { key: string; value: T }[] {
    const range = this.#database.getRange({ start: prefix, end: `${prefix}\uffff` })
    return [...range].map(({ key, value }) => ({ key, value: value as T }))
  }

  close(): Promise<void> {
    return this.#database.close()
  }

  async #transaction(change: () => void): Promise<void> {
    try {
      await this.#database.transaction(change)
    } catch (error) {
      noteFailedCommit(error)
      throw this.#unavailable(error)
    }
  }

  #unavailable(cause: unknown): StorageError {
    return new StorageError('STATE_UNAVAILABLE', {
      op: 'record',
      object: this.#directory,
      cause,
      retry: 'later',
      hint: 'Free space on the file system of the state directory, and check it; this is tried again.',
    })
  }
}

/** ENOSPC and EDQUOT, as the library numbers them. */
const fullCodes: readonly unknown[] = [28, 122]
/** Promises of the library that tell why a commit failed. */
const commitErrors = new WeakSet<object>()
let surviving = false

/**
 * When a commit fails the library rejects promises that it has given to nobody, besides the one that its caller waits
 * for. A full disk must not end the agent for that. Any other failure does: the library may answer nothing more then,
 * and a new agent goes on from what is on the disk.
 */
function surviveFullDisk(): void {
  if (surviving) return
  surviving = true
  process.on('unhandledRejection', (reason, promise) => {
    if (!noteFailedCommit(reason) && !commitErrors.has(promise)) throw reason
  })
}

/** @returns whether that is what it is */
function noteFailedCommit(error: unknown): boolean {
  if (typeof error !== 'object' || error === null || !('commitError' in error)) return false
  const { commitError } = error
  if (!(commitError instanceof Promise) || commitErrors.has(commitError)) return true
  commitErrors.add(commitError)
  commitError.catch((cause: { code?: unknown }) => {
    if (fullCodes.includes(cause?.code)) return
    setImmediate(() => {
      throw new StorageError('STATE_FAILED', {
        op: 'record',
        object: 'the state of the agent',
        cause,
        hint: 'Nothing that was to be recorded counts. Mend the file system of the state directory (see dmesg); the next agent goes on from what is there.',
      })
    })
  })
  return true
}

/** Real blocks, not a hole. Without room for it there is none; the next start tries again. */
function keepReserve(file: string): void {
  if (existsSync(file)) return
  try {
    writeFileSync(file, Buffer.alloc(reserveBytes, 1), { mode: 0o600 })
  } catch {
    rmSync(file, { force: true })
  }
}
