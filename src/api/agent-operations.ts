/**
 * What the agent does, as the API needs it: the daemon implements it, the API serves it over HTTP, the CLI speaks the
 * same shapes. Sizes are bytes, ages seconds, LSNs decimal strings (they do not fit a JSON number).
 * Every call may throw a StorageError.
 */
import type { AgentEvent } from '../block/event-log.js'
import type { ImageView, PoolOperations } from './pool-operations.js'

export type {
  CheckProgressView,
  CreatePool,
  DiffView,
  ImageView,
  PoolCheckView,
  PoolDevice,
  PoolOperations,
  PoolView,
  SnapshotView,
} from './pool-operations.js'
export type { AgentEvent }

export interface VolumeView {
  readonly name: string
  /** The file or device that backs it; null for a thin volume. */
  readonly path: string | null
  readonly kind: 'file' | 'raw' | 'thin'
  /** The pool of a thin volume, else null. */
  readonly pool: string | null
  readonly sizeBytes: number
  /** /dev/loopN, or null while detached. */
  readonly device: string | null
  /** /dev/tidemark/NAME while attached, else null. */
  readonly link: string | null
  readonly state: 'attached' | 'detached' | 'failed'
  /** Why it is in this state; never empty. */
  readonly reason: string
  /** As it is attached, or would be. */
  readonly readOnly: boolean
  readonly stream: string | null
  /** Units of the pool that it and its snapshots have to themselves; null for a volume without a pool. */
  readonly allocatedBytes: number | null
  readonly snapshots: number
  /** What it was cloned from, VOLUME@SNAPSHOT, or null. */
  readonly origin: string | null
  /** `inbound` arrives from a source, and is attached read-only. */
  readonly role: 'volume' | 'inbound'
  /** Of a complete image, else null. */
  readonly image: ImageView | null
  readonly logicalBlockBytes: number
  readonly counters: {
    readonly reads: number
    readonly writes: number
    readonly flushes: number
    readonly trims: number
    readonly readBytes: number
    readonly writtenBytes: number
    readonly errors: number
  }
}

export interface DestinationView {
  readonly name: string
  readonly kind: 'folder' | 'https' | 'ftp'
  /** Without secrets. */
  readonly endpoint: string
  readonly state: 'up' | 'down' | 'unknown'
  readonly reason: string
  readonly streams: readonly string[]
}

export interface DestinationTestView {
  readonly name: string
  readonly endpoint: string
  readonly roundTripMs: number
}

export type StreamState =
  | 'new'
  | 'initializing'
  | 'replicating'
  | 'catching-up'
  | 'mapping'
  | 'blocked'
  | 'paused'
  | 'waiting'
  | 'diverged'
  | 'failed'

/** What is not given stays as it is. */
export interface StreamPolicyChange {
  readonly kind?: 'degrade' | 'strict'
  readonly waitMs?: number
}

export interface StreamView {
  readonly name: string
  readonly id: string
  readonly destination: string
  readonly volumes: readonly string[]
  readonly epochMs: number
  /** What hosts see when the journal can take no more: they go on and the stream maps, or they wait, then get errors. */
  readonly policy: 'degrade' | 'strict'
  /** How long a write waits under `strict`. */
  readonly waitMs: number
  readonly state: StreamState
  readonly reason: string
  /** Journaled and not yet applied at the destination, raw bytes. */
  readonly waitingBytes: number
  /** Age of the oldest write that has not been sent; 0 when there is none. */
  readonly oldestUnsentSeconds: number
  /** Over the last ten seconds. */
  readonly bytesPerSecond: number
  readonly lsn: { readonly journal: string; readonly sent: string; readonly applied: string }
  readonly epoch: { readonly cut: number; readonly sent: number; readonly applied: number }
  readonly generation: number
  readonly initialize: { readonly doneBytes: number; readonly totalBytes: number } | null
  /** When nothing waits any more if it goes on as in the last minute; null: it does not become less. */
  readonly caughtUpInSeconds: number | null
  readonly buffer: SourceBufferView
  /** Regions that are sent again as one step; while the stream is `mapping`, those that will be. */
  readonly catchUp: { readonly reason: string; readonly doneBytes: number; readonly totalBytes: number } | null
  /** The last comparison of both sides since the stream was initialized, or null. */
  readonly verify: VerifyView | null
  readonly counters: {
    /** Journaled by hosts. */
    readonly rawBytes: number
    /** Dropped because a later write of the same epoch replaced them. */
    readonly foldedBytes: number
    /** Dropped because the destination already holds the same content. */
    readonly identicalBytes: number
    /** Payload after compression. */
    readonly compressedBytes: number
    /** Whole replication files that were transferred, retries included. */
    readonly sentBytes: number
  }
}

/** Both sides of a stream compared, as they are at the end of an epoch. */
export interface VerifyView {
  /** `equal`, `repaired`, `differs` (nothing was sent again), `aborted` and `failed` are how it ended. */
  readonly state: 'comparing' | 'repairing' | 'equal' | 'repaired' | 'differs' | 'aborted' | 'failed'
  /** Why it waits, or how it ended; may be empty. */
  readonly reason: string
  /** What differs is sent again. */
  readonly repair: boolean
  readonly doneBytes: number
  readonly totalBytes: number
  /** Found at first, and where: at most 256 ranges; where there are more, with what lies between. */
  readonly mismatchedBytes: number
  readonly mismatches: readonly { readonly volume: string; readonly offset: number; readonly lengthBytes: number }[]
  /** Written by hosts whenever they were read: not compared. */
  readonly busyBytes: number
}

/** Replication files of a stream that wait for the destination. */
export interface SourceBufferView {
  /** Where new files go: while it is moved, the new one. */
  readonly directory: string
  readonly usedBytes: number
  readonly limitBytes: number
  /** When it is full if it goes on as in the last minute; null: it does not become fuller. */
  readonly fullInSeconds: number | null
  /** A disk that carries both a volume of the stream and this folder, which slow each other and fail together. */
  readonly sharedDisk: string | null
  /** While it is moved, or goes back because a move was called off, else null. */
  readonly move: {
    readonly from: string
    readonly doneBytes: number
    readonly totalBytes: number
    readonly returning: boolean
    /** Why it does not go on now, or null. */
    readonly trouble: string | null
  } | null
}

/** A device that outlives its agent. */
export interface KeptDeviceView {
  /** NAME, or VOLUME@SNAPSHOT. */
  readonly name: string
  readonly device: string
  readonly sizeBytes: number
  readonly readOnly: boolean
  /** `waits`: no agent serves it, and who uses it waits for the next. */
  readonly state: 'served' | 'waits'
}

export interface InboundVolumeView {
  readonly name: string
  /** The image file, or the file that shows the thin volume. Between two epochs it is a state the source passed through. */
  readonly path: string
  readonly sizeBytes: number
  /** The thin volume it arrives in, or null: a file. */
  readonly volume: string | null
}

export interface InboundView {
  readonly stream: string
  readonly id: string
  readonly pairing: string
  readonly state: 'initializing' | 'consistent' | 'applying' | 'stalled' | 'failed'
  readonly reason: string
  readonly generation: number
  readonly appliedEpoch: number
  readonly appliedLsn: string
  /** When the source wrote what was applied last, ISO 8601, or null. */
  readonly appliedTime: string | null
  readonly waitingFiles: number
  readonly volumes: readonly InboundVolumeView[]
}

export type CreatePairing =
  | { readonly kind: 'https'; readonly listen?: string }
  | { readonly kind: 'ftp'; readonly url: string; readonly inbox: string }
  | { readonly kind: 'folder'; readonly directory: string }

export interface AgentView {
  readonly version: string
  readonly pid: number
  readonly state: string
  readonly listen: string | null
  readonly javascriptCalls: number
}

export interface AgentOperations extends PoolOperations {
  agent(): Promise<AgentView>

  volumeAdopt(request: { name: string; path: string }): Promise<VolumeView>
  volumeCreate(request: { name: string; path: string; sizeBytes: number; force?: boolean }): Promise<VolumeView>
  volumeAttach(name: string, readOnly: boolean): Promise<VolumeView>
  volumeDetach(name: string): Promise<VolumeView>
  volumeList(): Promise<VolumeView[]>
  volumeShow(name: string): Promise<VolumeView>
  /** Forgets a volume with a path, whose data stay. A thin volume's data are destroyed. @param yes to do that */
  volumeRemove(name: string, yes: boolean): Promise<void>

  pairingCreate(request: CreatePairing): Promise<{ pairing: string }>

  destinationAdd(request: { name: string; pairing: string }): Promise<DestinationView>
  destinationList(): Promise<DestinationView[]>
  destinationTest(name: string): Promise<DestinationTestView>
  destinationRemove(name: string): Promise<void>

  streamCreate(request: {
    name: string
    volumes: readonly string[]
    destination: string
    epochMs?: number
  }): Promise<StreamView>
  /** Starts it; progress is in the status. @param discardJournal one that cannot be replayed is given up, with what is in it alone */
  streamInitialize(name: string, discardJournal: boolean): Promise<StreamView>
  streamStatus(name: string): Promise<StreamView>
  streamList(): Promise<StreamView[]>
  /** Closes the open epoch now; resolves to its number. `streamWait` waits for it. */
  streamFlush(name: string): Promise<{ epoch: number; lsn: string }>
  /**
   * Resolves when the destination has applied the epoch, or after `timeoutMs` with done false (call again).
   * @throws StorageError when the stream cannot get there (removed, diverged)
   */
  streamWait(name: string, epoch: number, timeoutMs: number): Promise<{ done: boolean; stream: StreamView }>
  streamSet(name: string, policy: StreamPolicyChange): Promise<StreamView>
  /** Starts it; progress is in the status. @param directory absolute; null: what was moved goes back */
  bufferMove(stream: string, directory: string | null): Promise<StreamView>
  /** @param repair what differs is sent again; null: end the comparison that goes on */
  streamVerify(name: string, repair: boolean | null): Promise<StreamView>
  streamPause(name: string): Promise<StreamView>
  streamResume(name: string): Promise<StreamView>
  /** @param discardJournal as of streamInitialize() */
  streamRemove(name: string, discardJournal: boolean): Promise<void>

  inboundList(): Promise<InboundView[]>
  inboundShow(stream: string): Promise<InboundView>
  /** Forget a stream that arrives, with its copy. @param yes the copy may be lost */
  inboundRemove(stream: string, yes: boolean): Promise<void>

  /** Past events after this number, oldest first, 1,000 at most. */
  events(afterNumber: number): Promise<AgentEvent[]>
  /** Called for each new event until the returned function is. */
  onEvent(listener: (event: AgentEvent) => void): () => void
}
