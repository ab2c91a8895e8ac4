/**
 * What native code offers: the whole surface of the addon, typed. Nothing else in the project touches the addon.
 *
 * Promise: in steady state (no fault, no full journal, no failure) no host request enters JavaScript.
 * Errors arrive as StorageError (made from native's { code, errno, message } in this folder).
 */
import type { Lsn, VolumeIndex } from '../block/units.js'

export interface JournalOptions {
  /** Folder of the segments; it exists and is private. */
  readonly directory: string
  /** 16 bytes, in every segment header: a segment of another journal is never read. */
  readonly journalId: Buffer
  /** Multiple of 1 MiB. Fixed for the life of the journal. */
  readonly segmentBytes: number
  /** Segments kept ready beyond the open one, at least 1. */
  readonly spareSegments: number
  /** All segments together never take more than this; at the limit `full` is raised. */
  readonly limitBytes: number
  /** Where the next record goes: the end that recovery found (0n for a new journal). */
  readonly startLsn: Lsn
  /** Greater than any before; written in each record, so that a stale record after a torn tail is never believed. */
  readonly incarnation: number
  /** Called on the JavaScript thread, batched, never per write. */
  readonly onEvent: (event: JournalEvent) => void
}

export type JournalEvent =
  /** No segment is left within the limit. Writers wait until trim() or abandon(). */
  | { readonly kind: 'full' }
  /** A segment could not be made, written or synced. Writers and flushes wait until abandon(). Never retried. */
  | { readonly kind: 'failed'; readonly code: string; readonly errno: number; readonly message: string }

export interface JournalCounters {
  /** End of the contiguous prefix of completely written records: what a reader may read. */
  readonly publishedLsn: Lsn
  /** What survives a power cut. */
  readonly durableLsn: Lsn
  /** End of the prefix whose backing writes are done too (not synced). */
  readonly appliedLsn: Lsn
  readonly records: number
  /** Payload bytes of WRITE records since open. */
  readonly payloadBytes: number
  readonly segments: number
  readonly syncs: number
}

export interface NativeJournal {
  counters(): JournalCounters
  /** Everything published when called is durable when it resolves; resolves to that LSN (the cut). */
  sync(): Promise<Lsn>
  /** Segments wholly below may be recycled. */
  trim(below: Lsn): void
  /** A MARKER record of up to 64 KiB payload; resolves to its LSN, not yet durable. */
  appendMarker(payload: Buffer): Promise<Lsn>
  /** Stop journaling for good: waiting and later writes go to the backing alone. Say so durably before calling. */
  abandon(): void
  /** All volumes are gone from it. Syncs, unmaps, closes. */
  close(): Promise<void>
}

export interface VolumeOptions {
  /** For thread names and messages. */
  readonly name: string
  /** Flat file or block device, opened O_RDWR, block devices O_EXCL too. */
  readonly path: string
  /** 0: the size of the backing (rounded down to 512). */
  readonly sizeBytes: number
  /** Open the backing with O_DIRECT instead of through the page cache. */
  readonly direct: boolean
  readonly readOnly: boolean
  /** Also sync the backing on every flush although there is a journal (an adopted raw device). */
  readonly syncBacking: boolean
  /** Front-end threads, 1 to 16. */
  readonly threads: number
  /** Absent: a linear table, every block mapped and writable, no fault ever. */
  readonly table?: { readonly blockBytes: number }
  readonly onFaults?: (faults: readonly Fault[]) => void
  /** The kernel ended the connection (unmounted from outside, aborted). Hosts get EIO. */
  readonly onLost?: (message: string) => void
}

/** Requests wait for this block until grant() or refuse() names it. Each (block, kind) is raised once until answered. */
export interface Fault {
  readonly block: number
  readonly kind: 'read-unknown' | 'write'
  /** The waiting write covers the whole block: nothing needs to be copied. */
  readonly wholeBlock: boolean
}

export interface Grant {
  readonly block: number
  /** Block index on the backing where the block now lies; ignored when `mapped` is false. */
  readonly location: number
  readonly mapped: boolean
  readonly writable: boolean
  /** Copy the old content from this block of the backing first; -1: zeros where the waiting write does not cover. */
  readonly copyFrom?: number
}

export interface VolumeCounters {
  readonly reads: number
  readonly writes: number
  readonly flushes: number
  readonly trims: number
  readonly readBytes: number
  readonly writtenBytes: number
  readonly faults: number
  readonly inFlight: number
  /** Requests answered with an error. */
  readonly errors: number
}

export interface NativeVolume {
  readonly sizeBytes: number
  readonly logicalBlockBytes: number
  readonly isBlockDevice: boolean
  /**
   * Mount the front end on `mountPoint` (an empty regular file), give it a loop device, start the threads.
   * Resolves when the device can be used. Nothing is left behind when it fails.
   */
  attach(mountPoint: string): Promise<{ readonly device: string }>
  /**
   * Drain what is in flight, detach the loop device, unmount, end the threads. The backing stays open.
   * @throws StorageError DEVICE_BUSY naming the pid and program that hold it, or the mount point
   */
  detach(): Promise<void>
  /**
   * Journal all writes from here on (or no longer: null). In-flight requests drain first, so every write is wholly
   * before or after. Hosts only wait for the drain.
   */
  setJournal(journal: NativeJournal | null, index: VolumeIndex): Promise<void>
  /** Wait for the backing to hold, durably, everything acknowledged so far. */
  syncBacking(): Promise<void>
  grant(grants: readonly Grant[]): void
  /** Fail the requests that wait for these blocks with this errno (ENOSPC...). */
  refuse(blocks: readonly number[], errno: number): void
  counters(): VolumeCounters
  /** After detach(): close the backing. */
  close(): Promise<void>
}

export interface Intercept {
  openJournal(options: JournalOptions): NativeJournal
  openVolume(options: VolumeOptions): NativeVolume
  /** How often native code has entered JavaScript since the process began (events, faults, settled promises). */
  javascriptCalls(): number
  /** Release whatever an earlier agent left behind on this mount point: loop device and dead FUSE mount. */
  releaseStale(mountPoint: string): Promise<void>
}
