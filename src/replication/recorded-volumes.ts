import assert from 'node:assert/strict'
import { volumeIndex } from '../block/units.js'
import type { StreamJournal } from '../journal/stream-journal.js'
import type { Volume } from '../volume/volume.js'
import type { StreamVolume } from './stream-state.js'

/** The volumes of one stream, as what its journal records. */
export class RecordedVolumes {
  readonly #members: readonly { readonly index: number; readonly volume: Volume }[]

  constructor(definition: readonly StreamVolume[], volumes: readonly Volume[]) {
    this.#members = definition.map(({ index, name }) => {
      const volume = volumes.find((candidate) => candidate.name === name)
      assert(volume, `the stream has no volume ${name}`)
      return { index, volume }
    })
  }

  get someAttached(): boolean {
    return this.#members.some(({ volume }) => volume.device !== null)
  }

  /** Every write from here on goes into the journal. */
  async record(journal: StreamJournal): Promise<void> {
    for (const { index, volume } of this.#members) await volume.setJournal(journal.native, volumeIndex(index))
  }

  /**
   * No write goes into the journal any more, and it is closed.
   * @param complete the journal is kept, and the backings hold everything in it
   */
  async release(journal: StreamJournal, complete: boolean): Promise<void> {
    for (const { volume } of this.#members) await volume.setJournal(null)
    await this.sync()
    await journal.close(complete)
  }

  /** Everything acknowledged so far is durable on the backings. */
  async sync(): Promise<void> {
    for (const { volume } of this.#members) await volume.syncBacking()
  }
}
