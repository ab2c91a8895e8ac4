import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { open, type RootDatabase } from 'lmdb'
import type { StateStore } from '../block/state-store.js'
import { MiB } from '../block/units.js'

/** Given up when the disk is full: a stream that lost its journal must be recorded before hosts may go on. */
const reserveBytes = 4 * MiB

/** The agent's own state: an LMDB database whose commits are synced, with room for the facts that a full disk makes. */
export class LmdbStore implements StateStore {
  readonly #reserve: string
  readonly #database: RootDatabase<unknown, string>

  constructor(directory: string) {
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
      if (!existsSync(this.#reserve)) throw error
      rmSync(this.#reserve)
      await this.#database.transaction(change)
    }
  }

  async remove(keys: readonly string[]): Promise<void> {
    await this.#database.transaction(() => {
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
