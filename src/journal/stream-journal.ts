import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { rm, statfs } from 'node:fs/promises'
import { makeFolder } from '../block/durable-file.js'
import type { LentWorker } from '../block/lent-worker.js'
import { formatBytes } from '../block/size.js'
import type { StateStore } from '../block/state-store.js'
import { errnoOf, StorageError } from '../block/storage-error.js'
import { type Lsn, lsn } from '../block/units.js'
import type { Intercept, JournalCounters, JournalEvent, NativeJournal } from '../intercept/addon.js'
import type { Recovered, RecoveryOptions } from './recovery.js'

/** What must be known to find the journal's end again. */
interface JournalState {
  readonly journalId: string
  readonly segmentBytes: number
  /** Everything before it is on the backing, durably. */
  readonly checkpointLsn: string
  readonly incarnation: number
  readonly bootId: string
  /** Closed in order: the backing holds everything. */
  readonly clean: boolean
}

export interface StreamJournalOptions {
  /** The stream's name: the key of its state. */
  readonly stream: string
  readonly directory: string
  readonly state: StateStore
  readonly intercept: Intercept
  readonly segmentBytes: number
  readonly limitBytes: number
  /** A checkpoint is taken this often while there are writes; default: 5 s. */
  readonly checkpointMs?: number
  readonly onEvent: (event: JournalEvent) => void
  /** Where it is replayed; undefined: in a worker of its own. */
  readonly recoverer?: LentWorker
}

/** What a recovery must know, as plain data: it runs in a worker. */
export type RecoveryJob = Omit<RecoveryOptions, 'apply'>

export interface RecoveryReport {
  readonly records: number
  readonly voids: number
  /** The machine was restarted while the journal was open: what was not flushed may be on the backing alone. */
  readonly afterPowerCut: boolean
}

const checkpointMs = 5_000

/** One stream's journal while an agent runs: recovery, the native writer, checkpoints, trimming. */
export class StreamJournal {
  readonly directory: string
  readonly native: NativeJournal
  #state: JournalState
  #trimmedSegments = 0n
  readonly #options: StreamJournalOptions

  private constructor(options: StreamJournalOptions, state: JournalState, startLsn: Lsn) {
    this.directory = options.directory
    this.#options = options
    this.#state = state
    this.native = options.intercept.openJournal({
      directory: options.directory,
      journalId: Buffer.from(state.journalId, 'hex'),
      segmentBytes: state.segmentBytes,
      spareSegments: 2,
      limitBytes: options.limitBytes,
      startLsn,
      incarnation: state.incarnation,
      onEvent: options.onEvent,
    })
  }

  /** It takes no more than this. */
  get limitBytes(): number {
    return this.#options.limitBytes
  }

  /**
   * A new, empty journal in place of whatever the folder held.
   * @param startLsn a multiple of the size of a segment: beyond every LSN of the one before, when the stream goes on
   * @throws StorageError JOURNAL_NO_SPACE, JOURNAL_UNAVAILABLE
   */
  static async create(options: StreamJournalOptions, startLsn: Lsn = lsn(0n)): Promise<StreamJournal> {
    await mustBeUsable(options, async () => {
      await removeJournal(options.directory)
      await makeFolder(options.directory)
      await mustHaveRoom(options)
    })
    const state: JournalState = {
      journalId: randomBytes(16).toString('hex'),
      segmentBytes: options.segmentBytes,
      checkpointLsn: startLsn.toString(),
      incarnation: 1,
      bootId: currentBootId(),
      clean: false,
    }
    await options.state.put({ [stateKey(options.stream)]: state })
    return new StreamJournal(options, state, startLsn)
  }

  /**
   * Open after a stop or a crash: replay onto the backing what was journaled since the checkpoint, then go on at the
   * end that was found.
   *
   * Order: (1) replay, (2) the backings are synced, (3) the new checkpoint and incarnation are recorded, (4) the writer
   * starts. Recording before syncing would skip the replay after a power cut between the two.
   *
   * @param recover recoverJournal() with what writes onto the backings, and a sync of these; both before it resolves
   */
  static async open(
    options: StreamJournalOptions,
    recover: (job: RecoveryJob) => Promise<Recovered>,
  ): Promise<{ journal: StreamJournal; report: RecoveryReport }> {
    const old = options.state.get<JournalState>(stateKey(options.stream))
    if (!old) return { journal: await StreamJournal.create(options), report: nothingRecovered }
    const job = recoveryOf(options.directory, old)
    const { incarnation, afterPowerCut } = job
    const found = await recover(job)
    const state: JournalState = {
      ...old,
      incarnation,
      checkpointLsn: found.endLsn.toString(),
      // Kept until the caller has drawn the consequence: a start that fails half-way must not make it forgotten.
      bootId: afterPowerCut ? old.bootId : currentBootId(),
      clean: false,
    }
    await options.state.put({ [stateKey(options.stream)]: state })
    const journal = new StreamJournal(options, state, found.endLsn)
    return { journal, report: { records: found.records, voids: found.voids, afterPowerCut } }
  }

  /** What open() would recover; undefined: nothing. It may be done any number of times: nothing is recorded. */
  static recoveryJob({
    directory,
    state,
    stream,
  }: Pick<StreamJournalOptions, 'directory' | 'state' | 'stream'>): RecoveryJob | undefined {
    const old = state.get<JournalState>(stateKey(stream))
    return old && recoveryOf(directory, old)
  }

  /** The consequence of a restart of the machine is drawn: from here on the journal is believed. */
  acceptBoot(): Promise<void> {
    return this.#record({ bootId: currentBootId() })
  }

  /** The backings hold everything that was ever flushed: it was closed in order, or there is none. */
  static isClean(state: StateStore, stream: string): boolean {
    return state.get<JournalState>(stateKey(stream))?.clean ?? true
  }

  /** What is in its folder counts for nothing any more. */
  static forget(state: StateStore, stream: string): Promise<void> {
    return state.remove([stateKey(stream)])
  }

  get id(): Buffer {
    return Buffer.from(this.#state.journalId, 'hex')
  }

  get checkpointMs(): number {
    return this.#options.checkpointMs ?? checkpointMs
  }

  get segmentBytes(): number {
    return this.#state.segmentBytes
  }

  get checkpointLsn(): Lsn {
    return lsn(BigInt(this.#state.checkpointLsn))
  }

  /** Given back so far, counted from LSN 0. */
  get trimmedSegments(): bigint {
    return this.#trimmedSegments
  }

  counters(): JournalCounters {
    return this.native.counters()
  }

  /** Everything written before the call is durable in the journal, up to the LSN it resolves to: an epoch may end there. */
  sync(): Promise<Lsn> {
    return this.native.sync()
  }

  /**
   * Move the checkpoint to what the backing holds, but not beyond what the journal holds durably. The LSN is sampled
   * before the backing is synced: the other order would count writes as safe that reached the page cache after the sync.
   * Beyond the journal's durable end a power cut could take records before the checkpoint, which no replay misses, and
   * the next epoch would.
   */
  async checkpoint(syncBackings: () => Promise<void>): Promise<void> {
    const { appliedLsn, durableLsn } = this.counters()
    let reached = appliedLsn
    if (durableLsn < reached) reached = durableLsn
    if (reached <= this.checkpointLsn) return
    await syncBackings()
    await this.#record({ checkpointLsn: reached.toString() })
  }

  /**
   * Recycle what neither a replay nor an epoch that is still to be cut needs.
   * @returns whether that is a segment more than before
   */
  trim(cutLsn: Lsn): boolean {
    const checkpoint = this.checkpointLsn
    const below = cutLsn < checkpoint ? cutLsn : checkpoint
    this.native.trim(below)
    const segments = below / BigInt(this.segmentBytes)
    const more = segments > this.#trimmedSegments
    this.#trimmedSegments = segments
    return more
  }

  /**
   * The volumes are gone from it and synced.
   * @param complete the backing holds everything: the next open has nothing to replay
   */
  async close(complete: boolean): Promise<void> {
    const reached = this.counters().publishedLsn
    await this.native.close()
    if (complete) await this.#record({ checkpointLsn: reached.toString(), clean: true })
  }

  /** Seen only when it is durable: segments are recycled on the strength of it. */
  async #record(change: Partial<JournalState>): Promise<void> {
    const next = { ...this.#state, ...change }
    await this.#options.state.put({ [stateKey(this.#options.stream)]: next })
    this.#state = next
  }
}

/** Its folder, with all that is in it. It was forgotten, or a new one takes its place. */
export function removeJournal(directory: string): Promise<void> {
  return rm(directory, { recursive: true, force: true })
}

const nothingRecovered: RecoveryReport = { records: 0, voids: 0, afterPowerCut: false }

function stateKey(stream: string): string {
  return `journal/${stream}`
}

/** Changes with every start of the machine. Source: Linux, random(4), /proc/sys/kernel/random/boot_id. */
function currentBootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
}

function recoveryOf(directory: string, old: JournalState): RecoveryJob {
  return {
    directory,
    journalId: Buffer.from(old.journalId, 'hex'),
    segmentBytes: old.segmentBytes,
    checkpointLsn: lsn(BigInt(old.checkpointLsn)),
    incarnation: old.incarnation + 1,
    leastIncarnation: old.incarnation,
    afterPowerCut: !old.clean && old.bootId !== currentBootId(),
  }
}

/** What a file system refuses is an operator's to mend. */
async function mustBeUsable({ directory }: StreamJournalOptions, use: () => Promise<void>): Promise<void> {
  try {
    await use()
  } catch (cause) {
    if (errnoOf(cause) === undefined || cause instanceof StorageError) throw cause
    throw new StorageError('JOURNAL_UNAVAILABLE', {
      op: 'journal create',
      object: directory,
      cause,
      retry: 'later',
      hint: 'Check the file system of the buffer directory (see dmesg), then try again.',
    })
  }
}

/** The first segment is made with the first record: by then it is too late to say no. @throws StorageError */
async function mustHaveRoom({ directory, segmentBytes }: StreamJournalOptions): Promise<void> {
  const { bavail, bsize } = await statfs(directory)
  if (bavail * bsize >= segmentBytes) return
  throw new StorageError('JOURNAL_NO_SPACE', {
    op: 'journal create',
    object: directory,
    retry: 'later',
    hint: `Its file system has ${formatBytes(bavail * bsize)} left, and a segment takes ${formatBytes(segmentBytes)}. Free space there.`,
  })
}
