import { readdir, rm } from 'node:fs/promises'
import path from 'node:path'
import { makeFolder } from '../block/durable-file.js'
import type { StreamState } from './stream-state.js'

/**
 * The folder of sealed replication files that wait to be applied at the destination: one folder a stream.
 *
 * What counts is the stream's state: a file no committed epoch names was never sent, and is removed at start.
 */
export class SourceBuffer {
  readonly directory: string
  readonly #state: StreamState

  constructor(directory: string, state: StreamState) {
    this.directory = directory
    this.#state = state
  }

  async open(): Promise<void> {
    await makeFolder(this.directory)
    const known = new Set([...this.#state.epochs.values()].flatMap(({ parts }) => parts.map(({ name }) => name)))
    for (const name of await readdir(this.directory)) if (!known.has(name)) await rm(this.file(name), { force: true })
  }

  file(name: string): string {
    return path.join(this.directory, name)
  }

  get bytes(): number {
    let bytes = 0
    for (const { parts } of this.#state.epochs.values()) for (const part of parts) bytes += part.lengthBytes
    return bytes
  }

  /**
   * Give back the space of all epochs up to this one: they are forgotten, then their files go. With the files first a
   * crash would leave an epoch that is to be sent again and cannot be.
   *
   * @returns whether there were any
   */
  async release(upTo: number): Promise<boolean> {
    const gone = [...this.#state.epochs.values()].filter(({ epoch }) => epoch <= upTo)
    if (gone.length === 0) return false
    await this.#state.forgetEpochs(gone.map(({ epoch }) => epoch))
    for (const { parts } of gone) for (const { name } of parts) await rm(this.file(name), { force: true })
    return true
  }

  async clear(): Promise<void> {
    await this.#state.forgetEpochs([...this.#state.epochs.keys()])
    await rm(this.directory, { recursive: true, force: true })
  }
}
