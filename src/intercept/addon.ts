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
  /** While set, a flush syncs the backing too: first of all where it may be decided that this journal is not replayed. */
  doubt(doubted: boolean): void
  /**
   * While set no host waits for this journal: a write that finds it full gets ENOSPC, one that finds it failed EIO, and so
   * do flushes. Nothing is acknowledged without it.
   */
  refuse(refused: boolean): void
  /** Stop journaling for good: waiting and later writes go to the backing alone. Say so durably before calling. */
  abandon(): void
  /** All volumes are gone from it. Syncs, unmaps, closes. */
  close(): Promise<void>
}

export interface RegionOptions {
  /** A whole region record: see src/journal/FORMAT.md. */
  readonly path: string
  /** 16 bytes, as in the file. */
  readonly recordId: Buffer
  /** A power of two, 4 KiB to 1 GiB. */
  readonly regionBytes: number
  /** By volume index. */
  readonly volumeBytes: readonly number[]
  /** That many regions in the current map raise `limit`, once until rotate(). Hosts do not wait. 0: never. */
  readonly limitRegions: number
  readonly onEvent: (event: RegionEvent) => void
}

export type RegionEvent =
  | { readonly kind: 'limit' }
  /** The file could not be written or synced. Writes into regions that are not in it wait until giveUp(). */
  | { readonly kind: 'failed'; readonly message: string }

export interface RegionCounters {
  readonly current: number
  readonly previous: number
  /** In either map. */
  readonly active: number
  readonly syncs: number
}

/**
 * The regions whose writes may not be everywhere yet, on disk before a write reaches the backing. Two maps: writes set
 * the current one.
 */
export interface NativeRegions {
  /**
   * The current map is added to the previous one, durably, then emptied; but for regions touched since the last rotation
   * when `carry` is set. A journal.sync() begun after it resolves covers every write that saw a region in the map before.
   */
  rotate(carry: boolean): Promise<void>
  /** Nothing in the previous map is needed any more. */
  drop(): Promise<void>
  /** The record is lost, and that is recorded: whoever waits for it goes on without. */
  giveUp(): void
  /** The regions in either map: a bit each, in 64-bit words; each volume's begin at a multiple of 64. */
  active(): Buffer
  counters(): RegionCounters
  /** Volumes that have it keep it until setJournal(). */
  close(): void
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
  /**
   * A thin volume: `path` and `direct` do not count, `sizeBytes` does, `table` must be there with the pool's block size.
   * What is granted is published in the pool's log under this layer.
   */
  readonly pool?: { readonly pool: NativePool; readonly layer: number }
  readonly onFaults?: (faults: readonly Fault[]) => void
  /** The kernel ended the connection (unmounted from outside, aborted). Hosts get EIO. */
  readonly onLost?: (message: string) => void
}

/** Blocks in a leaf of the extent table: what one `read-unknown` fault asks for and one loadLeaf() answers. */
export const leafBlocks = 4096

/**
 * Requests wait for this block until it is answered. A fault is raised once until then, and again when the answer did not
 * help: a grant that a freeze() made void, for one.
 */
export interface Fault {
  /** For `read-unknown` the first block of a leaf: answered by loadLeaf(). */
  readonly block: number
  readonly kind: 'read-unknown' | 'write'
  /** The waiting write covers the whole block: nothing needs to be copied. */
  readonly wholeBlock: boolean
}

/**
 * A thin volume takes one grant for a fault it raised: take the pool's records after the faults were delivered, then
 * answer. A grant that comes unasked, or whose block was trimmed or written since the fault was raised, is void, and the
 * fault raised again if it still stands. A place is used when its MAP is in the log; one that was granted and is not may
 * have been written to, so it is not known to read as zeros any more.
 */
export interface Grant {
  readonly block: number
  /** Block index on the backing where the block now lies; ignored when `mapped` is false. */
  readonly location: number
  readonly mapped: boolean
  readonly writable: boolean
  /** Copy the old content from this block of the backing first; -1: fill it with zeros; absent: nothing to do. */
  readonly copyFrom?: number
  /**
   * A thin volume: `wholeBlock` faults are answered so. The place is kept for a write that covers the whole block, which
   * publishes it after its data are there. For a waiting write that covers less the fault is raised again, and answered
   * by a grant without `reserve`, which ends the reservation: for the same place, best.
   */
  readonly reserve?: boolean
  /** A thin volume: the layer has the block there already; nothing is published. */
  readonly known?: boolean
}

export interface PoolDevice {
  readonly path: string
  /** Where the device's blocks begin to be used is the caller's business; this is the size in bytes. */
  readonly sizeBytes: number
}

export interface PoolOptions {
  readonly name: string
  /** Device n of a location (`n << 34 | block`) is devices[n]. Opened O_EXCL where it is a block device, locked where a file. */
  readonly devices: readonly PoolDevice[]
  readonly blockBytes: number
  /** O_DIRECT for the data; the log always goes through the page cache. */
  readonly direct: boolean
  /** The mapping log, on device 0. See src/pool/FORMAT.md. */
  readonly log: {
    readonly offset: number
    /** Ring of so many 32-byte records. */
    readonly capacityRecords: number
    /** Goes into each record's checksum, so that the log of another pool is never believed. */
    readonly seed: number
    /** Sequence number of the next record, and of the oldest that must be kept. */
    readonly head: bigint
    readonly tail: bigint
  }
  /** On the JavaScript thread, batched: records may wait in take(), the log fills up, the pool failed. */
  readonly onEvent: (event: PoolEvent) => void
}

export type PoolEvent =
  /** A third of the log's capacity was appended since trim(): take a checkpoint. Raised once until trim(). */
  | { readonly kind: 'log-filling' }
  /** Writes wait for room in the log: trim() it. Raised once until trim(). */
  | { readonly kind: 'log-full' }
  /** The log could not be written, or a device not be synced: for good. Requests that need either get EIO. */
  | { readonly kind: 'failed'; readonly message: string }
  /** A COMMIT became durable, or it is time to take(): enough records wait there. Raised once until take(). */
  | { readonly kind: 'appended' }

export interface NativePool {
  /** Records appended by anybody since the last call, whole, in log order (32 bytes each, operations with their text). */
  take(): Buffer
  /**
   * Append records made by the caller: `bytes` is a multiple of 32; native fills in sequence and checksum of record
   * headers (see FORMAT.md). Returns the sequence of the first. For TypeScript a reserve of the ring is kept.
   * @throws LOG_FULL (take a checkpoint first), POOL_FAILED
   */
  append(bytes: Buffer): bigint
  /** Everything acknowledged and appended when called is durable when it resolves, to the sequence that is covered. */
  sync(): Promise<bigint>
  /** Records before this sequence are needed no more. They were taken. */
  trim(tail: bigint): void
  head(): bigint
  /**
   * Records below are durable, with a COMMIT that covers them; at least what sync() resolved to. take() may hand a COMMIT
   * over before it is durable: what was freed must not be given out again on its word, but only when this has passed the
   * record that freed it.
   */
  committed(): bigint
  /** Trim ranges of blocks on their devices. Resolves to whether they now read as zeros for certain. */
  discard(ranges: readonly { readonly location: number; readonly count: number }[]): Promise<boolean>
  /** Add a device: the next number. */
  addDevice(device: PoolDevice): void
  /** All volumes are closed. Syncs nothing. */
  close(): Promise<void>
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
  /** Bytes that grants copied, or filled with zeros. */
  readonly copiedBytes: number
}

export interface Attachment {
  readonly device: string
  /** It is that of an earlier agent. */
  readonly takenOver: boolean
  /** The next agent can go on with it; false: it ends with this one, for the kernel can do no better. */
  readonly kept: boolean
}

export interface KeeperOptions {
  /** The state directory: the keeper listens there. */
  readonly directory: string
  readonly onEvent: (event: KeeperEvent) => void
}

export type KeeperEvent =
  /** It had ended, and another holds the devices now. */
  | { readonly kind: 'replaced'; readonly message: string }
  /** None can be started; it is tried again. Raised once until one is there. */
  | { readonly kind: 'failed'; readonly message: string }

export interface NativeVolume {
  readonly sizeBytes: number
  readonly logicalBlockBytes: number
  readonly isBlockDevice: boolean
  /**
   * Mount the front end on `mountPoint` (an empty regular file), give it a loop device, start the threads. Where an
   * earlier agent had the same volume attached there and the keeper has held it, that device is served on: set the
   * journal first, what hosts wait for is answered at once.
   * Resolves when the device can be used. Nothing is left behind when it fails.
   *
   * @param options.readOnly the loop device alone refuses writes, while the served file takes them (an arriving volume)
   */
  attach(mountPoint: string, options?: { readonly readOnly?: boolean }): Promise<Attachment>
  /**
   * Mount the front end without a loop device on a mount point of its own: the file there is the volume, for programs of
   * this agent. It comes and goes independently of attach() and detach(), and ends with this process.
   * @throws StorageError unserve: DEVICE_BUSY naming who has the file open
   * Never touch the file from the JavaScript thread synchronously: faults are answered there.
   */
  serve(mountPoint: string): Promise<void>
  unserve(): Promise<void>
  /**
   * Drain what is in flight, detach the loop device, unmount, end the threads. The backing stays open, a served file too.
   * @throws StorageError DEVICE_BUSY naming the pid and program that hold it, or the mount point
   */
  detach(): Promise<void>
  /**
   * Journal all writes from here on (or no longer: null). In-flight requests drain first, so every write is wholly
   * before or after. Hosts only wait for the drain. With `regions` each write is named there first, journaled or not.
   */
  setJournal(journal: NativeJournal | null, index: VolumeIndex, regions?: NativeRegions | null): Promise<void>
  /** Wait for the backing to hold, durably, everything acknowledged so far. */
  syncBacking(): Promise<void>
  grant(grants: readonly Grant[]): void
  /**
   * What the blocks of a leaf are. Entry n, of the leaf's nth block: -1 when it reads as zeros, else
   * `location * 2 + (writable ? 1 : 0)`. null: the whole leaf reads as zeros. A leaf that is loaded already stays as it is.
   */
  loadLeaf(leaf: number, entries: Float64Array | null): void
  /**
   * A thin volume's content as of now belongs to its old layer: requests in flight end (flushes are not waited for), new
   * ones wait, `operation` (records as for append()) is appended to the pool's log, no entry is writable any more, what is
   * written from here on is published under `layer`.
   *
   * Grants given before the call are carried out first, under the old layer: the log must not need a freeze to find room.
   * Grants given between the call and its settling are void, and their faults raised again; nothing of a leaf loaded then
   * is writable. Once it has resolved, grants and leaves are of the new layer: switch before awaiting anything else.
   * Resolves to the reservations and grants that native still had and never published.
   * @throws FREEZE_RUNS, and as append(): then nothing has changed, and what was given meanwhile is carried out
   */
  freeze(
    layer: number,
    operation: Buffer,
  ): Promise<{ readonly dropped: readonly { block: number; location: number }[] }>
  /**
   * A volume with a table. Also while attached: hosts see the new size. A smaller one only while nothing is attached or
   * served: what is cut off is discarded first (a thin volume: HOLEs in the log; the last block may raise a fault).
   */
  resize(sizeBytes: number): Promise<void>
  /** Fail the requests that wait for these blocks with this errno (ENOSPC...). */
  refuse(blocks: readonly number[], errno: number): void
  /**
   * A thin volume: whether the pool has room for more holes. From `false` on zeros are written like anything else and
   * discards are refused with EOPNOTSUPP, which hosts take for a device that does not know them.
   */
  setHoles(allowed: boolean): void
  counters(): VolumeCounters
  /** After detach(): close the backing. */
  close(): Promise<void>
}

/** What protectProcess() could do. */
export interface ProcessMemory {
  /** No thread waits for pages of its own hosts to be written out. */
  readonly flusher: boolean
  /** What was touched stays in memory. */
  readonly locked: boolean
  /** Killed last when memory is short. */
  readonly score: boolean
}

export interface Intercept {
  openJournal(options: JournalOptions): NativeJournal
  openVolume(options: VolumeOptions): NativeVolume
  openPool(options: PoolOptions): NativePool
  /** @throws StorageError REGIONS_UNREADABLE, REGIONS_DAMAGED */
  openRegions(options: RegionOptions): NativeRegions
  /** How often native code has entered JavaScript since the process began (events, faults, settled promises). */
  javascriptCalls(): number
  /** Release whatever an earlier agent left behind on this mount point: loop device and dead FUSE mount. Not what is kept. */
  releaseStale(mountPoint: string): Promise<void>
  /**
   * Have a keeper hold this agent's devices, and take back those that it held for an earlier agent: attach() goes on with
   * them. Once, before anything is attached. Without it devices end with this process.
   * @returns the mount points of devices whose hosts wait
   * @throws StorageError KEEPER_FAILED; KEEPER_OTHER_VERSION, KEEPER_SILENT: it lives, and hosts wait at what it holds
   */
  openKeeper(options: KeeperOptions): Promise<readonly string[]>
  /** Nobody will attach what was taken back on this mount point: its host gets errors. */
  giveUpKept(mountPoint: string): Promise<void>
  /**
   * A process that serves devices must not wait for itself. First of all: it may execute this program with these words
   * again (the same process, without anything it had), for threads that exist already cannot be protected.
   */
  protectProcess(program: string, words: readonly string[]): ProcessMemory
}
