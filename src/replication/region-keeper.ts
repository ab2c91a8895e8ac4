import { rm } from 'node:fs/promises'
import { StorageError } from '../block/storage-error.js'
import { type Lsn, lsn } from '../block/units.js'
import type { Intercept, NativeRegions } from '../intercept/addon.js'
import { readRegionFile, writeRegionFile } from '../journal/region-file.js'
import { type RegionLayout, RegionMap } from '../journal/region-map.js'
import type { StreamJournal } from '../journal/stream-journal.js'

/** The map is rotated this often while it holds anything: what was not touched meanwhile leaves it in the end. */
const rotateMs = 30_000

export interface RegionOptions {
  /** The record, and the map of a catch-up that is under way. */
  readonly path: string
  readonly catchUpPath: string
  readonly regionBytes: number
  /** What both maps hold together is about so much at the most, as long as epochs are cut. */
  readonly limitBytes: number
}

export interface RegionKeeperOptions extends RegionOptions {
  readonly streamId: Buffer
  /** By volume index. */
  readonly volumeBytes: readonly number[]
  readonly intercept: Intercept
  /** The map has grown to its limit: tend() helps. */
  readonly onLimit: () => void
  /** The file cannot be written: hosts wait until giveUp(). */
  readonly onFailed: (message: string) => void
  readonly onDamage: (path: string) => void
}

/**
 * A stream's record of the regions that journal, backing and far side may differ in.
 *
 * Invariant: a region leaves the record only when every journal record of it is in a durable epoch and durable on the
 * backing. So with the journal lost, after a power cut, too, it names all that the far side may lack.
 */
export class RegionKeeper {
  readonly #options: RegionKeeperOptions
  #native: NativeRegions | null = null
  #regionBytes: number
  /** The previous map may be dropped when all before it is cut and on the backing; undefined: it is empty. */
  #until: Lsn | 'never' | undefined
  #rotatedAtMs = 0
  #atLimit = false

  constructor(options: RegionKeeperOptions) {
    this.#options = options
    this.#regionBytes = options.regionBytes
  }

  /** null while it is closed, or lost. */
  get native(): NativeRegions | null {
    return this.#native
  }

  get layout(): RegionLayout {
    return { regionBytes: this.#regionBytes, volumeBytes: this.#options.volumeBytes }
  }

  /** Regions in the record, as bytes. */
  get activeBytes(): number {
    return (this.#native?.counters().active ?? 0) * this.#regionBytes
  }

  /** The regions in the record that is open. */
  active(): RegionMap {
    return new RegionMap(this.layout, this.#native?.active())
  }

  /** What the file says, while it is closed; undefined: it is not there, or cannot be believed. */
  load(): Promise<RegionMap | undefined> {
    return this.#read(this.#options.path)
  }

  /**
   * Record from here on, beginning with these regions.
   * @param until the journal's end as it is now: what they are about lies before it
   */
  async open(map: RegionMap, until: Lsn): Promise<void> {
    const { path, streamId, volumeBytes, intercept, limitBytes, onLimit, onFailed } = this.#options
    this.close()
    await writeRegionFile(path, streamId, map)
    this.#regionBytes = map.layout.regionBytes
    this.#until = until
    this.#rotatedAtMs = performance.now()
    this.#native = intercept.openRegions({
      path,
      recordId: streamId,
      regionBytes: this.#regionBytes,
      volumeBytes,
      limitRegions: Math.max(1, Math.floor(limitBytes / 2 / this.#regionBytes)),
      onEvent: (event) => {
        if (event.kind === 'failed') return onFailed(event.message)
        this.#atLimit = true
        onLimit()
      },
    })
  }

  /** An empty map of regions of the configured size. */
  fresh(): RegionMap {
    return new RegionMap({ regionBytes: this.#options.regionBytes, volumeBytes: this.#options.volumeBytes })
  }

  /** Every region there is. */
  everything(): RegionMap {
    return RegionMap.whole(this.fresh().layout)
  }

  /**
   * Drop what is cut and on the backing, and rotate when it is time.
   * @param cutLsn everything before it is in a durable epoch
   */
  async tend(journal: StreamJournal, cutLsn: Lsn): Promise<void> {
    const native = this.#native
    if (!native) return
    const until = this.#until
    if (until !== undefined && until !== 'never' && cutLsn >= until && journal.checkpointLsn >= until) {
      await native.drop()
      this.#until = undefined
    }
    if (this.#until !== undefined || native.counters().current === 0) return
    if (this.#atLimit || performance.now() - this.#rotatedAtMs >= rotateMs) await this.rotate(journal, !this.#atLimit)
  }

  /** Everything in the record leaves it when what was written so far is cut and on the backing; see tend(). */
  async rotate(journal: StreamJournal, carry: boolean): Promise<void> {
    this.#until = 'never'
    this.#atLimit = false
    this.#rotatedAtMs = performance.now()
    await this.#native?.rotate(carry)
    // Only now: a write that saw its region in the map before the rotation has its place in the journal.
    this.#until = lsn(await journal.sync())
  }

  /** That the record is lost was recorded: hosts go on without it. */
  giveUp(): void {
    this.#native?.giveUp()
    this.close()
  }

  /** Volumes have let go of it, or do so later. */
  close(): void {
    this.#native?.close()
    this.#native = null
  }

  async forget(): Promise<void> {
    this.close()
    await rm(this.#options.path, { force: true })
    await rm(this.#options.catchUpPath, { force: true })
  }

  /** Durable when it resolves. @throws StorageError REGIONS_UNWRITABLE */
  saveCatchUp(map: RegionMap): Promise<void> {
    return writeRegionFile(this.#options.catchUpPath, this.#options.streamId, map)
  }

  loadCatchUp(): Promise<RegionMap | undefined> {
    return this.#read(this.#options.catchUpPath)
  }

  async #read(path: string): Promise<RegionMap | undefined> {
    const { streamId, volumeBytes, onDamage } = this.#options
    try {
      const read = await readRegionFile(path, streamId, volumeBytes)
      if (read && read.damagedPages > 0) onDamage(path)
      return read?.map
    } catch (error) {
      if (!(error instanceof StorageError) || error.code !== 'REGIONS_DAMAGED') throw error
      onDamage(path)
      return undefined
    }
  }
}
