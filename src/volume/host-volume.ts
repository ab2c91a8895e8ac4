import type { VolumeIndex } from '../block/units.js'
import type { NativeJournal, NativeRegions, VolumeCounters } from '../intercept/addon.js'

export interface AttachOptions {
  /** The device refuses writes. An arriving volume is always attached so. */
  readonly readOnly?: boolean
}

/**
 * What hosts, streams and copies see of a volume, whatever its bytes lie on: a file, a raw device, or a pool.
 *
 * A journal that was set stays set across detach and attach: no write ever passes a volume of a running stream
 * unrecorded.
 */
export interface HostVolume {
  /** Of its device link: NAME, or VOLUME@SNAPSHOT. */
  readonly name: string
  readonly kind: 'file' | 'raw' | 'thin'
  readonly sizeBytes: number
  /** What `path` gives is not the host's to write: a snapshot as it was taken, or what arrives from a source. */
  readonly readOnly: boolean
  readonly device: string | null
  readonly link: string | null
  /** While attached: the device refuses writes. */
  readonly attachedReadOnly: boolean
  /** Why hosts get errors, or undefined. */
  readonly lost: string | undefined
  /** 0 while neither attached nor held. */
  readonly logicalBlockBytes: number
  counters(): VolumeCounters

  /** @throws StorageError IMAGE_INCOMPLETE: no host or stream may have it before it is whole */
  checkUsable(): void
  /**
   * Resolves to the device; to the one it has when it is attached already in the same way.
   * @throws StorageError DEVICE_BUSY, LINK_TAKEN, SIZE_CHANGED, ATTACHED_OTHERWISE, IMAGE_INCOMPLETE, and those of the pool
   */
  attach(options?: AttachOptions): Promise<string>
  /**
   * The backing holds, durably, every acknowledged write when this resolves.
   * @throws StorageError DEVICE_BUSY, and IO_FAILED: detached, but the backing may lack acknowledged writes
   */
  detach(): Promise<void>

  /**
   * Record every write from here on: in the region record first, then in the journal, as far as they are given. With
   * neither, no longer.
   */
  setJournal(journal: NativeJournal | null, index?: VolumeIndex, regions?: NativeRegions | null): Promise<void>
  /** Everything acknowledged so far is durable on the backing. @throws StorageError, for good once a sync has failed */
  syncBacking(): Promise<void>

  /**
   * What workers open to read and write the volume: the backing, or the file that the front end serves. To be opened
   * only while held(), and never by the main thread, which answers the faults of whoever reads it.
   */
  readonly path: string
  /** Somebody needs `path`: a running stream, a copy, the destager. Counted; each is followed by one release(). */
  hold(): Promise<void>
  /** The last one closes what no host needs. @throws as detach() */
  release(): Promise<void>
  /**
   * Where data begin at or after the offset; undefined when only zeros follow. While held. Not there where only the disk
   * knows: a worker asks that, of `path`.
   */
  nextData?(offset: number): number | undefined
}
