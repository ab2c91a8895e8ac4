import { open, readdir, rm } from 'node:fs/promises'
import path from 'node:path'
import { makeFolder, syncDirectory } from '../block/durable-file.js'
import { errnoOf } from '../block/storage-error.js'
import { parsePartFileName } from '../replication-file/part-file-name.js'

/** Files set aside that are kept for a look, the newest. */
const setAsideLimit = 20

/**
 * One stream's private folder: what arrived and is not applied yet, and what was refused. A file that is here survives
 * a power cut once settle() has returned.
 */
export class ArrivalBuffer {
  readonly #held: string
  readonly #refused: string
  #unsettled: string[] = []

  constructor(directory: string) {
    this.#held = path.join(directory, 'arrival')
    this.#refused = path.join(directory, 'refused')
  }

  /** Names left by an earlier run. What a crash left half copied is removed. */
  async open(): Promise<string[]> {
    await makeFolder(this.#refused)
    const all = await readdir(await makeFolder(this.#held))
    for (const name of all) if (name.endsWith('.tmp')) await this.remove(name)
    const names = all.filter((name) => parsePartFileName(name)).sort()
    this.#unsettled = names.map((name) => this.file(name))
    return names
  }

  file(name: string): string {
    return path.join(this.#held, name)
  }

  /**
   * A file comes here under this name.
   * @param move is given its place here. What it returns but null is why nothing came, and is passed on
   */
  async take<T>(name: string, move: (to: string) => Promise<T | null>): Promise<T | null> {
    const to = this.file(name)
    const fault = await move(to)
    if (fault === null) this.#unsettled.push(to)
    return fault
  }

  /** Everything taken so far is durable, names included. */
  async settle(): Promise<void> {
    const files = this.#unsettled
    if (files.length === 0) return
    this.#unsettled = []
    try {
      for (const file of files) {
        const handle = await open(file, 'r').catch(unlessGone)
        try {
          await handle?.sync()
        } finally {
          await handle?.close()
        }
      }
      await syncDirectory(this.#held)
    } catch (error) {
      this.#unsettled.push(...files)
      throw error
    }
  }

  async remove(name: string): Promise<void> {
    await rm(this.file(name), { force: true, recursive: true })
  }

  /** Nothing is left of what arrived, refused files included. */
  async clear(): Promise<void> {
    this.#unsettled = []
    for (const folder of [this.#held, this.#refused]) {
      for (const name of await readdir(folder).catch(() => [])) {
        await rm(path.join(folder, name), { force: true, recursive: true })
      }
    }
  }

  /**
   * Out of the way, kept for the administrator; the oldest of many are dropped.
   * @param move is given its place here. @returns where it lies, or undefined when it was not moved
   */
  async setAside(name: string, move: (to: string) => Promise<boolean>): Promise<string | undefined> {
    const kept = (await readdir(this.#refused)).sort((one, other) => numberOf(one) - numberOf(other))
    // Behind all others, also when the clock was set back.
    const number = Math.max(Date.now(), numberOf(kept.at(-1) ?? '') + 1)
    const place = path.join(this.#refused, `${number}-${name}`)
    if (!(await move(place))) return undefined
    for (const old of kept.slice(0, -(setAsideLimit - 1))) {
      await rm(path.join(this.#refused, old), { force: true, recursive: true })
    }
    return place
  }
}

/** When it was set aside, in ms, or later; 0: somebody else put it there. */
function numberOf(name: string): number {
  return Number(/^(\d+)-/.exec(name)?.[1] ?? 0)
}

/** It was dropped meanwhile; anything else keeps it from being made durable. */
function unlessGone(error: unknown): undefined {
  if (errnoOf(error) !== 'ENOENT') throw error
}
