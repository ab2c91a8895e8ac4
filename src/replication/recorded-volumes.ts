import { volumeIndex } from '../block/units.js'
import type { NativeRegions } from '../intercept/addon.js'
import type { StreamJournal } from '../journal/stream-journal.js'
import type { HostVolume } from '../volume/host-volume.js'
import type { StreamVolume } from './stream-state.js'
import type { SparseVolume, VolumeFile } from './volume-file.js'

/** The volumes of one stream, as what its journal records. */
export class RecordedVolumes {
  readonly #definition: readonly StreamVolume[]
  readonly #find: (name: string) => HostVolume
  /** Looked up again by each hold() while none is held: a pool may be away, and come back. */
  #members: readonly { readonly index: number; readonly volume: HostVolume }[] = []
  #held: HostVolume[] = []

  /** @param find throws StorageError for a volume that is not there now */
  constructor(definition: readonly StreamVolume[], find: (name: string) => HostVolume) {
    this.#definition = definition
    this.#find = find
  }

  get someAttached(): boolean {
    return this.#members.some(({ volume }) => volume.device !== null)
  }

  /**
   * Workers can read and write them from here on, until letGo(). Nothing to do when they can already.
   * @throws StorageError as of `find`
   */
  async hold(): Promise<void> {
    if (this.#held.length === 0) {
      this.#members = this.#definition.map(({ index, name }) => ({ index, volume: this.#find(name) }))
    }
    for (const { volume } of this.#members) {
      if (this.#held.includes(volume)) continue
      await volume.hold()
      this.#held.push(volume)
    }
  }

  /**
   * As hold(), of those that are there, until letGo(): nobody may record them like this.
   * @returns of the others, why not, by name
   */
  async holdPresent(): Promise<Map<string, unknown>> {
    await this.letGo()
    this.#members = []
    const away = new Map<string, unknown>()
    for (const { index, name } of this.#definition) {
      try {
        const volume = this.#find(name)
        await volume.hold()
        this.#members = [...this.#members, { index, volume }]
        this.#held.push(volume)
      } catch (error) {
        away.set(name, error)
      }
    }
    return away
  }

  async letGo(): Promise<void> {
    const held = this.#held
    this.#held = []
    let failure: unknown
    for (const volume of held) {
      await volume.release().catch((error) => {
        failure ??= error
      })
    }
    if (failure !== undefined) throw failure
  }

  /** What workers read and write. While held. */
  files(): VolumeFile[] {
    return this.#members.map(({ index, volume }) => ({ index, path: volume.path, sizeBytes: volume.sizeBytes }))
  }

  /** As files(), where no disk has to be asked for their holes; null: a worker has to. */
  sparse(): SparseVolume[] | null {
    const volumes: SparseVolume[] = []
    for (const { index, volume } of this.#members) {
      if (!volume.nextData) return null
      const { path, sizeBytes } = volume
      volumes.push({ index, path, sizeBytes, nextData: (offset) => volume.nextData?.(offset) })
    }
    return volumes
  }

  /** Every write from here on is named in the region record and goes into the journal, if there is one. */
  async record(journal: StreamJournal | null, regions: NativeRegions | null): Promise<void> {
    for (const { index, volume } of this.#members) {
      await volume.setJournal(journal?.native ?? null, volumeIndex(index), regions)
    }
  }

  /**
   * As record(), with a new journal that hosts have written without until now. It stays in doubt: the caller ends that when
   * it is recorded that this journal is replayed.
   *
   * Order: (1) flushes sync the backing, too, (2) writes go into the journal, (3) those before are on the backing. With the
   * doubt ended before 3 a flush would be answered by a journal that lacks what was written just before it: a power cut
   * takes that.
   */
  async takeOver(journal: StreamJournal, regions: NativeRegions | null): Promise<void> {
    journal.native.doubt(true)
    await this.record(journal, regions)
    await this.sync()
  }

  /** Nothing is recorded any more, and the backings hold everything. */
  async unrecord(): Promise<void> {
    for (const { volume } of this.#members) await volume.setJournal(null)
    await this.sync()
  }

  /**
   * No write goes into the journal any more, and it is closed.
   * @param complete the journal is kept, and the backings hold everything in it
   */
  async release(journal: StreamJournal, complete: boolean): Promise<void> {
    await this.unrecord()
    await journal.close(complete)
  }

  /** Everything acknowledged so far is durable on the backings. */
  async sync(): Promise<void> {
    for (const { volume } of this.#members) await volume.syncBacking()
  }
}
