import { Exclusive } from '../block/exclusive.js'
import type { StateStore } from '../block/state-store.js'
import { type Lsn, lsn } from '../block/units.js'
import type { VerifyPosition } from './verify-state.js'

/** Where its bytes lie is asked of the volume when it runs: that may be elsewhere after a restart. */
export interface StreamVolume {
  readonly index: number
  readonly name: string
  readonly sizeBytes: number
  /** The id of its pool; absent: it lies at a path. */
  readonly pool?: string
}

/** What hosts see when the journal can take no more: they go on and the stream maps, or they wait, then get errors. */
export interface StreamPolicy {
  readonly kind: 'degrade' | 'strict'
  /** How long a write waits under `strict`. */
  readonly waitMs: number
}

export const defaultPolicy: StreamPolicy = { kind: 'degrade', waitMs: 30_000 }

/** What an operator asked for. */
export interface StreamDefinition {
  readonly name: string
  /** 16 bytes, hexadecimal; the folder's name at the destination. */
  readonly id: string
  readonly destination: string
  readonly epochMs: number
  readonly volumes: readonly StreamVolume[]
  readonly paused: boolean
  /** Missing in what was recorded before there was a choice. */
  readonly policy?: StreamPolicy
}

export interface StreamCounters {
  readonly rawBytes: number
  readonly foldedBytes: number
  readonly identicalBytes: number
  readonly compressedBytes: number
  readonly sentBytes: number
}

/** Where the copy of an initialisation stands: the next byte to read of which volume. */
export interface CopyCursor {
  readonly slot: number
  readonly offset: number
}

/** What is optional is missing in what was recorded before there was a choice. */
export interface CatchUpPosition {
  readonly reason: string
  readonly totalBytes: number
  readonly untilEpoch: number
  /** The far side is not believed to hold what it was sent. */
  readonly afresh?: boolean
  /** The journal's end when it began: nothing is copied before all up to here is cut. */
  readonly afterLsn?: string
}

/** By the id of a pool what its catalog has of who opened it last, or null. */
export type PoolHolders = Readonly<Record<string, string | null>>

/** Where the stream stands: all of it changes in one transaction with the epoch it belongs to. */
export interface StreamPosition {
  /**
   * new: never initialized. mapping: there is no journal; the region record names what the far side lacks. diverged:
   * nobody knows what it lacks.
   */
  readonly phase: 'new' | 'running' | 'mapping' | 'diverged'
  readonly divergedReason: string
  readonly mappingReason: string
  /** No journal of this generation went further. */
  readonly mappingLsn: string
  /** The region record could not be written: it is worth nothing until the stream is opened again. */
  readonly regionsLost: boolean
  readonly generation: number
  /** The last epoch in the source buffer, and the LSN it ends at. */
  readonly cutEpoch: number
  readonly cutLsn: string
  /** Of the last part cut, hexadecimal: the next part carries it. */
  readonly lastTag: string
  readonly sentEpoch: number
  readonly appliedEpoch: number
  readonly appliedLsn: string
  readonly acknowledgement: number
  /** null: all was copied. */
  readonly copy: CopyCursor | null
  /** The last catch-up, also when it is over: then the far side has applied `untilEpoch`, which is 0 until it is cut. */
  readonly catchUp: CatchUpPosition | null
  /** The journal's durable end after the last read of the copy, or when a hold ended: no epoch before is a state. */
  readonly copyEndLsn: string
  /** The first epoch after which the far side is consistent; 0 while it is not cut. */
  readonly consistentEpoch: number
  /** The last epoch cut whose end is a state the far side may show; what was cut since goes with the next such one. */
  readonly stateEpoch: number
  /** What is written now shall appear at the far side at once: no epoch is a state until the hold ends. */
  readonly held: boolean
  /** The last comparison of both sides in this generation, also when it is over. */
  readonly verify: VerifyPosition | null
  /** Of the pools of its volumes, when this generation began; one that is not named had none. */
  readonly holders: PoolHolders
  /** The destination said that it has this generation, which this source has never begun; 0: it did not. */
  readonly farGeneration: number
  /** The newest format of replication files that the destination has said it reads. */
  readonly farReads: number
  readonly counters: StreamCounters
}

export const newPosition: StreamPosition = {
  phase: 'new',
  divergedReason: '',
  mappingReason: '',
  mappingLsn: '0',
  regionsLost: false,
  generation: 0,
  cutEpoch: 0,
  cutLsn: '0',
  lastTag: '00'.repeat(16),
  sentEpoch: 0,
  appliedEpoch: 0,
  appliedLsn: '0',
  acknowledgement: 0,
  copy: null,
  catchUp: null,
  copyEndLsn: '0',
  consistentEpoch: 0,
  stateEpoch: 0,
  held: false,
  verify: null,
  holders: {},
  farGeneration: 0,
  farReads: 1,
  counters: { rawBytes: 0, foldedBytes: 0, identicalBytes: 0, compressedBytes: 0, sentBytes: 0 },
}

/** One epoch in the source buffer, kept until the destination has applied it. */
export interface CutEpoch {
  readonly epoch: number
  readonly endLsn: string
  readonly parts: readonly { readonly name: string; readonly lengthBytes: number }[]
  readonly rawBytes: number
  /** The source's wall clock at the oldest write in it, milliseconds since 1970. */
  readonly oldestMs: number
}

/** Where the source buffer lies, when it was moved or is being moved. */
export interface BufferPlace {
  /** New files go here. */
  readonly directory: string
  /** Files may still lie here; null: no move is under way. */
  readonly leaving: string | null
  /** The move was called off: `leaving` is where it should have gone. */
  readonly returning: boolean
  /** What there was to move when it began. */
  readonly totalBytes: number
}

/** One that was recorded before holds existed lacks what they brought. */
function completePosition(stored: Partial<StreamPosition> = {}): StreamPosition {
  const { consistentEpoch = 0, cutEpoch = 0 } = stored
  return { ...newPosition, stateEpoch: consistentEpoch > 0 ? cutEpoch : 0, ...stored }
}

/** Where a new journal of this generation begins: no LSN is ever used twice. */
export function nextJournalLsn(position: StreamPosition, segmentBytes: number): Lsn {
  const { cutLsn, copyEndLsn, appliedLsn, mappingLsn } = position
  let last = 0n
  for (const known of [cutLsn, copyEndLsn, appliedLsn, mappingLsn]) if (BigInt(known) > last) last = BigInt(known)
  return lsn((last / BigInt(segmentBytes) + 2n) * BigInt(segmentBytes))
}

/** Regions are caught up, and the epoch that ends it is not cut. */
export function isCatchingUp({ catchUp }: Pick<StreamPosition, 'catchUp'>): boolean {
  return catchUp !== null && catchUp.untilEpoch === 0
}

/**
 * Where the copy goes on in the next epoch; null: it copies nothing. Records of an epoch lie over what is copied in it, so
 * those that are older than what the volumes hold are cut first. *What a power cut took from the journal is on the volumes
 * alone, and newer than any record the journal still has: copied in one epoch with these, the far side would keep the older.*
 */
export function copiesFrom({ copy, catchUp, cutLsn }: StreamPosition): CopyCursor | null {
  const isBehind = isCatchingUp({ catchUp }) && BigInt(cutLsn) < BigInt(catchUp?.afterLsn ?? 0)
  return isBehind ? null : copy
}

/** What is copied now is sent whatever the far side was sent before. */
export function isAfresh({ catchUp }: Pick<StreamPosition, 'catchUp'>): boolean {
  return isCatchingUp({ catchUp }) && catchUp?.afresh === true
}

/** The far side keeps the epochs of a catch-up until it has the one that ends it. */
export function isGathering({ catchUp, appliedEpoch }: Pick<StreamPosition, 'catchUp' | 'appliedEpoch'>): boolean {
  return catchUp !== null && (catchUp.untilEpoch === 0 || appliedEpoch < catchUp.untilEpoch)
}

/** A change of the position: what is given, or what is made of the position as it is when its turn comes. */
export type PositionChange = Partial<StreamPosition> | ((position: StreamPosition) => Partial<StreamPosition>)

/**
 * There is no journal any more that anybody will replay: from here on only the region record tells. With that lost nobody
 * knows what the far side lacks. Nothing changes when an initialisation or a removal came first.
 */
export function mappedFrom(reason: string, journalEnd: bigint): PositionChange {
  return ({ phase, regionsLost, mappingLsn }) => {
    if (phase !== 'running') return {}
    if (regionsLost) return { phase: 'diverged', divergedReason: reason }
    const end = journalEnd > BigInt(mappingLsn) ? journalEnd.toString() : mappingLsn
    return { phase: 'mapping', mappingReason: reason, mappingLsn: end }
  }
}

/**
 * The state of this source is older than what the destination has had of it. What both call an epoch of the same number are
 * two, and nobody knows how they differ.
 */
export function overtaken(generation: number): PositionChange {
  const divergedReason =
    'The destination has applied what this source has never sent: this one was put back to an older state, or another machine uses its state.'
  return { phase: 'diverged', divergedReason, farGeneration: generation }
}

export const heldElsewhere =
  'Another agent has had a pool of its volumes since: they are as they are there, and the journal was not written over that.'

/** Nobody else has opened the pools since this generation began. */
export function isHeldStill({ holders }: StreamPosition, now: PoolHolders): boolean {
  return Object.entries(now).every(([pool, holder]) => holder === (holders[pool] ?? null))
}

/** A crash before the new generation is recorded must not pair the old position with its journal and its regions. */
export const initializing: PositionChange = {
  phase: 'diverged',
  divergedReason: 'An initialisation was interrupted as it began.',
  regionsLost: false,
}

/** A generation begins: all is to be copied. A region record that could not be written meanwhile stays lost. */
export function initialPosition(position: StreamPosition, held: boolean, holders: PoolHolders): StreamPosition {
  const { counters, regionsLost } = position
  const copy = { slot: 0, offset: 0 }
  // What is of an older generation than it has is nothing to the destination.
  const generation = Math.max(position.generation, position.farGeneration) + 1
  return { ...newPosition, phase: 'running', generation, copy, counters, regionsLost, held, holders }
}

/** The region record cannot be written. */
export function regionsLost(reason: string): PositionChange {
  return ({ phase }) => (phase === 'mapping' ? { phase: 'diverged', divergedReason: reason } : { regionsLost: true })
}

/** The time of the site, which may jump, and one that never does but begins anew with the process; milliseconds. */
export interface Clocks {
  readonly wallMs: () => number
  readonly steadyMs: () => number
}

const systemClocks: Clocks = { wallMs: () => Date.now(), steadyMs: () => performance.now() }

/**
 * The durable state of one stream at its source. What it tells is on the disk: nothing is sent, trimmed or forgotten on
 * the strength of a change that a crash could take back.
 */
export class StreamState {
  readonly #store: StateStore
  readonly #turns = new Exclusive()
  readonly #name: string
  #position: StreamPosition
  readonly #epochs: Map<number, CutEpoch>
  readonly #clocks: Clocks
  /** When the oldest write of each epoch was made, by the steady clock. */
  readonly #sinceMs = new Map<number, number>()

  constructor(store: StateStore, name: string, clocks = systemClocks) {
    this.#store = store
    this.#name = name
    this.#clocks = clocks
    this.#position = completePosition(store.get<Partial<StreamPosition>>(`position/${name}`))
    this.#epochs = new Map(store.list<CutEpoch>(`epoch/${name}/`).map(({ value }) => [value.epoch, value]))
    for (const { epoch, oldestMs } of this.#epochs.values()) this.#sinceMs.set(epoch, this.#steadyMs(oldestMs))
  }

  get position(): StreamPosition {
    return this.#position
  }

  /** Epochs in the source buffer, oldest first. */
  get epochs(): ReadonlyMap<number, CutEpoch> {
    return this.#epochs
  }

  /** Journaled by hosts in epochs that are not applied yet. */
  get unappliedBytes(): number {
    let bytes = 0
    for (const { epoch, rawBytes } of this.#epochs.values()) if (epoch > this.#position.appliedEpoch) bytes += rawBytes
    return bytes
  }

  /** When the oldest write of an epoch that was not sent was made, by the steady clock; infinite when there is none. */
  get oldestUnsentMs(): number {
    let oldest = Number.POSITIVE_INFINITY
    for (const [epoch, sinceMs] of this.#sinceMs) {
      if (epoch > this.#position.sentEpoch) oldest = Math.min(oldest, sinceMs)
    }
    return oldest
  }

  /** Where a time that is known by the wall clock alone lies on the steady one, if the wall clock has not jumped since. */
  #steadyMs(wallMs: number): number {
    return this.#clocks.steadyMs() - Math.max(0, this.#clocks.wallMs() - wallMs)
  }

  get sentLsn(): string {
    const { sentEpoch, cutEpoch, cutLsn, appliedLsn } = this.#position
    return sentEpoch === cutEpoch ? cutLsn : (this.#epochs.get(sentEpoch)?.endLsn ?? appliedLsn)
  }

  /** undefined: it is where the agent's settings put it. */
  get bufferPlace(): BufferPlace | undefined {
    return this.#store.get<BufferPlace>(this.#placeKey)
  }

  placeBuffer(place: BufferPlace | null): Promise<void> {
    return place ? this.#store.put({ [this.#placeKey]: place }) : this.#store.remove([this.#placeKey])
  }

  get #placeKey(): string {
    return `buffer/${this.#name}`
  }

  move(change: PositionChange): Promise<void> {
    return this.#turns.run(() => this.#put(change, {}))
  }

  /**
   * The epoch's files are durable under their names; from here on it exists.
   * @param sinceMs when its oldest write was made, by the steady clock; without it the wall clock of that write is believed
   */
  commitEpoch(epoch: CutEpoch, change: PositionChange, sinceMs?: number): Promise<void> {
    return this.#turns.run(async () => {
      await this.#put(change, { [this.#epochKey(epoch.epoch)]: epoch }, () => {
        this.#epochs.set(epoch.epoch, epoch)
        this.#sinceMs.set(epoch.epoch, sinceMs ?? this.#steadyMs(epoch.oldestMs))
      })
    })
  }

  forgetEpochs(numbers: readonly number[]): Promise<void> {
    return this.#turns.run(async () => {
      await this.#store.remove(numbers.map((number) => this.#epochKey(number)))
      for (const number of numbers) {
        this.#epochs.delete(number)
        this.#sinceMs.delete(number)
      }
    })
  }

  async #put(change: PositionChange, more: Record<string, unknown>, done?: () => void): Promise<void> {
    const next = { ...this.#position, ...(typeof change === 'function' ? change(this.#position) : change) }
    await this.#store.put({ [`position/${this.#name}`]: next, ...more })
    this.#position = next
    done?.()
  }

  /** As if there had never been one. */
  remove(): Promise<void> {
    return this.#turns.run(async () => {
      await this.#store.remove([`position/${this.#name}`, ...[...this.#epochs.keys()].map((n) => this.#epochKey(n))])
      this.#position = newPosition
      this.#epochs.clear()
      this.#sinceMs.clear()
    })
  }

  #epochKey(epoch: number): string {
    return `epoch/${this.#name}/${epoch.toString().padStart(16, '0')}`
  }
}
