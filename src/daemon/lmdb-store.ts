import { open, type RootDatabase } from 'lmdb'
import type { StateStore } from '../block/state-store.js'

/** The agent's own state: an LMDB database whose commits are synced. */
export class LmdbStore implements StateStore {
  readonly #database: RootDatabase<unknown, string>

  constructor(directory: string) {
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
    await this.#database.transaction(() => {
      for (const [key, value] of Object.entries(entries)) this.#database.putSync(key, value)
    })
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
