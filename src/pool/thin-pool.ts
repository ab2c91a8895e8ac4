import type { NativeVolume } from '../intercept/addon.js'

/** Bytes of a volume: aligned to the pool's blocks, except at the volume's end. */
export interface ByteExtent {
  readonly offset: number
  readonly lengthBytes: number
}

export interface PoolDeviceFacts {
  readonly path: string
  readonly sizeBytes: number
}

export interface PoolFacts {
  readonly name: string
  /** 16 bytes, hexadecimal: of the pool, for ever. */
  readonly id: string
  readonly devices: readonly PoolDeviceFacts[]
  readonly unitBytes: number
  readonly blockBytes: number
  /** What volumes can use: all units. */
  readonly sizeBytes: number
  /** Units that belong to a layer. */
  readonly allocatedBytes: number
  /** Blocks that hold data. */
  readonly mappedBytes: number
  /** The sizes of all volumes, as hosts see them. */
  readonly virtualBytes: number
  /** Percentages, ascending, that raise an event; at the last one snapshots and clones are refused. */
  readonly marks: readonly number[]
  readonly state: 'online' | 'nearly-full' | 'full' | 'damaged' | 'failed'
  readonly reason: string
  /** What goes on in the background (a merge, a release), or null. */
  readonly background: string | null
}

export interface ThinSnapshotFacts {
  readonly name: string
  readonly createdAt: string
  readonly sizeBytes: number
  /** Units of its own layer: what would come back at the least if it were removed. */
  readonly allocatedBytes: number
  /** What was written to it takes this beyond allocatedBytes; null: it is as it was taken. */
  readonly writtenBytes: number | null
  /** Kept for the refresh of a complete image; not shown in lists. */
  readonly hidden: boolean
}

export interface ThinVolumeFacts {
  readonly name: string
  readonly sizeBytes: number
  readonly createdAt: string
  /** `inbound` arrives from a source: it is attached read-only. */
  readonly role: 'volume' | 'inbound'
  /** Units of its own layer, of its snapshots, and of what was written to those. */
  readonly allocatedBytes: number
  /** What it was cloned from, as VOLUME@SNAPSHOT; null for a volume made empty. */
  readonly origin: string | null
  /** A complete image: the source it follows. */
  readonly image: ImageOrigin | null
  /** As setStream() has it; null again since another holds the pool. */
  readonly stream: string | null
  /** Oldest first. */
  readonly snapshots: readonly ThinSnapshotFacts[]
}

/** What a complete image was copied from last. */
export interface ImageOrigin {
  readonly volume: string
  /** The hidden snapshot of the source it equals, or the one it is being copied from while `complete` is false. */
  readonly base: string
  /** The hidden snapshot of the image itself taken when the copy ended: what was written to the image since. */
  readonly own: string | null
  readonly complete: boolean
}

/** A volume or snapshot that can be read and written: its front end is native, its faults are answered by the pool. */
export interface OpenThinVolume {
  readonly native: NativeVolume
  /** Where mapped blocks begin at or after the offset; undefined when only zeros follow. */
  nextMapped(offset: number): number | undefined
  /** After native.detach() and unserve(). Closes native too. */
  close(): Promise<void>
}

/**
 * One pool, open in this agent. Every change is durable when its promise resolves, unless said otherwise.
 * Names are checked by the caller. Errors: NO_SUCH_VOLUME, NO_SUCH_SNAPSHOT, ALREADY_EXISTS, VOLUME_OPEN, HAS_SNAPSHOTS,
 * BAD_SIZE, CATALOG_FULL, POOL_NEARLY_FULL, POOL_FAILED, POOL_DAMAGED.
 */
export interface ThinPool {
  readonly name: string
  readonly id: string
  /** As hold() has it; null: nobody has called that yet. */
  readonly holder: string | null
  /** It had not been closed when it was opened. */
  readonly afterCrash: boolean
  facts(): PoolFacts
  volumes(): ThinVolumeFacts[]
  volume(name: string): ThinVolumeFacts

  createVolume(name: string, sizeBytes: number, role?: 'volume' | 'inbound'): Promise<void>
  /** Not while it is open or has snapshots. Its space comes back in the background. */
  removeVolume(name: string): Promise<void>
  /** `replace`: a volume that has the new name takes its snapshots over and goes. In one step. */
  renameVolume(name: string, newName: string, replace?: boolean): Promise<void>
  resizeVolume(name: string, sizeBytes: number): Promise<void>

  /** @param durable false: it exists when this resolves, a power cut within the next seconds may undo it */
  createSnapshot(volume: string, name: string, options?: { hidden?: boolean; durable?: boolean }): Promise<void>
  /** With what was written to it. Not while it is open. */
  removeSnapshot(volume: string, name: string): Promise<void>
  /** It is as it was taken again; not while it is open to be written. Nothing happens when nobody wrote to it. */
  discardWrites(volume: string, snapshot: string): Promise<void>
  /** The volume is as the snapshot was; not while it is open. Newer snapshots stay. */
  rollback(volume: string, snapshot: string): Promise<void>
  createClone(name: string, volume: string, snapshot: string): Promise<void>
  /** Notes what an image follows; null: nothing any more. */
  setImage(name: string, image: ImageOrigin | null): Promise<void>
  /** Notes the stream whose journal answers the flushes of the volume: without that the pool may lack some; null: none. */
  setStream(name: string, stream: string | null): Promise<void>

  /** What may differ between two snapshots of one volume; `to` null: and the volume now. From metadata alone. */
  diff(volume: string, from: string, to: string | null): Promise<ByteExtent[]>
  /** What is mapped in a snapshot, or null: in the volume now. */
  mapped(volume: string, snapshot: string | null): Promise<ByteExtent[]>

  /**
   * A snapshot that is only read shows what was taken. One that is written shows, and keeps, what was written to it so far,
   * in a layer of its own above: everything else goes on seeing what was taken. Both can be open at once.
   */
  open(
    volume: string,
    snapshot: string | null,
    options: { readOnly: boolean; threads: number; onLost: (message: string) => void },
  ): Promise<OpenThinVolume>

  extend(device: string, sizeBytes?: number): Promise<void>
  /** Whoever had it before sees, when it opens the pool again, that somebody else had it since. */
  hold(holder: string): Promise<void>
  /** A sync and a checkpoint; then it may be imported elsewhere. Not while volumes are open. */
  close(): Promise<void>
}

export interface CreatePoolOptions {
  readonly name: string
  readonly devices: readonly { readonly path: string; readonly kind: 'file' | 'raw'; readonly sizeBytes?: number }[]
  readonly unitBytes: number
  readonly blockBytes: number
}
