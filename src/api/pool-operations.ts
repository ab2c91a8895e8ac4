/** Thin pools, snapshots and clones: what the agent does with them, in the shapes of the API. Sizes are bytes. */
import type { VolumeView } from './agent-operations.js'

export interface PoolView {
  readonly name: string
  /** 32 hexadecimal digits; the pool keeps them wherever it goes. */
  readonly id: string
  /** In their order. Sizes are 0 while the pool is not open. */
  readonly devices: readonly { readonly path: string; readonly sizeBytes: number }[]
  readonly unitBytes: number
  readonly blockBytes: number
  /** What volumes can use. */
  readonly sizeBytes: number
  /** Of that: units that belong to a volume or snapshot. */
  readonly allocatedBytes: number
  /** Of that: blocks that hold data. */
  readonly mappedBytes: number
  /** The sizes of all volumes, as their hosts see them. */
  readonly virtualBytes: number
  /** Percentages of sizeBytes that raise an event; at the last one snapshots and clones are refused. */
  readonly marks: readonly number[]
  readonly state: 'online' | 'nearly-full' | 'full' | 'damaged' | 'failed'
  /** Why it is in this state; never empty. */
  readonly reason: string
  /** Space that is being given back, or null. */
  readonly background: string | null
  /** While it is being checked, else null. */
  readonly check: CheckProgressView | null
  readonly volumes: readonly string[]
}

/** Pages of a pool's metadata that a check has read, of those it reads. */
export interface CheckProgressView {
  readonly donePages: number
  readonly totalPages: number
}

export interface SnapshotView {
  readonly volume: string
  readonly name: string
  readonly pool: string
  readonly createdAt: string
  readonly sizeBytes: number
  /** What would come back at the least if it were removed. */
  readonly allocatedBytes: number
  /** What hosts wrote to it takes this beyond allocatedBytes; null: it is as it was taken. */
  readonly writtenBytes: number | null
  /** /dev/loopN, or null while detached. */
  readonly device: string | null
  /** /dev/tidemark/VOLUME@SNAPSHOT while attached, else null. */
  readonly link: string | null
  /** While attached: its device refuses writes, and shows what was taken. */
  readonly readOnly: boolean
  readonly state: 'attached' | 'detached' | 'failed'
  readonly reason: string
}

/** A complete image and the volume it follows. */
export interface ImageView {
  readonly volume: string
  /** False: it is being copied, or the copy was interrupted. */
  readonly complete: boolean
  /** While it is being copied, else null. */
  readonly progress: { readonly doneBytes: number; readonly totalBytes: number } | null
  /** In words; never empty. */
  readonly reason: string
}

/** What a check of a pool's metadata found. */
export interface PoolCheckView {
  readonly pool: string
  readonly id: string
  readonly devices: readonly string[]
  /** Nothing is wrong, or nothing any more. */
  readonly clean: boolean
  /** The pool can be opened, although something was found. */
  readonly usable: boolean
  readonly findings: readonly {
    /** `warning`: nothing a volume shows is wrong because of it. */
    readonly severity: 'warning' | 'error'
    readonly object: string
    readonly text: string
    /** Volumes and snapshots that may show less than they did. */
    readonly volumes: readonly string[]
    readonly repaired: boolean
  }[]
  readonly volumes: number
  readonly snapshots: number
  readonly sizeBytes: number
  readonly allocatedBytes: number
  readonly mappedBytes: number
}

export interface DiffView {
  readonly volume: string
  readonly from: string
  /** null: the volume as it is now. */
  readonly to: string | null
  /** Of all extents, also those of the next pages. */
  readonly changedBytes: number
  /** Ascending. They may differ, nothing else does. */
  readonly extents: readonly { readonly offset: number; readonly lengthBytes: number }[]
  /** More begin at this offset: ask for them with `after`. */
  readonly next: number | null
}

export interface PoolDevice {
  readonly path: string
  readonly kind: 'file' | 'raw'
  /** Of a file that is to be made; of a block device, as much of it as shall be used. */
  readonly sizeBytes?: number
}

export interface CreatePool {
  readonly name: string
  readonly devices: readonly PoolDevice[]
  readonly unitBytes?: number
  readonly blockBytes?: number
  readonly force?: boolean
}

export interface PoolOperations {
  poolCreate(request: CreatePool): Promise<PoolView>
  poolList(): Promise<PoolView[]>
  poolShow(name: string): Promise<PoolView>
  poolExtend(name: string, device: PoolDevice & { readonly force?: boolean }): Promise<PoolView>
  /** Closes it, with a mark that any agent may import it. Resolves to where it lies. */
  poolExport(name: string): Promise<{ name: string; paths: readonly string[] }>
  poolImport(paths: readonly string[]): Promise<PoolView>
  /** Destroys the pool and everything in it. @param yes although it has volumes */
  poolRemove(name: string, yes: boolean): Promise<void>
  /** Closes the pool meanwhile. @throws StorageError POOL_IN_USE */
  poolCheck(name: string, repair: boolean): Promise<PoolCheckView>

  volumeCreateThin(request: { name: string; pool: string; sizeBytes: number }): Promise<VolumeView>
  volumeResize(name: string, sizeBytes: number, force: boolean): Promise<VolumeView>

  snapshotCreate(volume: string, name: string): Promise<SnapshotView>
  /** Oldest first. */
  snapshotList(volume: string): Promise<SnapshotView[]>
  /** With what was written to it. */
  snapshotRemove(volume: string, name: string): Promise<void>
  /** It is as it was taken again. @param yes what was written to it may be lost */
  snapshotDiscard(volume: string, name: string, yes: boolean): Promise<SnapshotView>
  /** The volume becomes as the snapshot is. @param yes what was written since may be lost */
  snapshotRollback(volume: string, name: string, yes: boolean): Promise<VolumeView>
  snapshotAttach(volume: string, name: string, readOnly: boolean): Promise<SnapshotView>
  snapshotDetach(volume: string, name: string): Promise<SnapshotView>

  /** @param request without `snapshot` one is made; `full`: a complete image, whose copying goes on in the background */
  cloneCreate(request: { volume: string; snapshot?: string; name: string; full?: boolean }): Promise<VolumeView>
  /** Starts copying what changed; progress is in the volume's view. @param from a snapshot; null: as the source is now */
  cloneRefresh(name: string, from: string | null): Promise<VolumeView>
  /** @param to null: the volume now */
  volumeDiff(volume: string, from: string, to: string | null, afterOffset: number): Promise<DiffView>
}
