import type { StateStore } from '../block/state-store.js'
import type { Comparison } from '../replication-file/acknowledgement.js'

export interface InboundVolume {
  readonly index: number
  readonly name: string
  readonly sizeBytes: number
  /** The thin volume it arrives in; absent: an image file. */
  readonly thin?: ThinImage
}

/** Recorded with the generation: what the pool has under this name is this stream's from then on. */
export interface ThinImage {
  readonly poolId: string
  readonly volume: string
}

/** What the destination knows of one arriving stream; durable before anything is told to the source. */
export interface InboundPosition {
  readonly pairing: string
  readonly streamId: string
  /** The name its source gave it. */
  readonly stream: string
  readonly generation: number
  readonly appliedEpoch: number
  readonly appliedLsn: string
  /** Of the last part applied, hexadecimal. */
  readonly lastTag: string
  /** The images of this generation are in place of the ones before. */
  readonly consistent: boolean
  /** Milliseconds since 1970 at the source, of the last write applied; 0: none. */
  readonly appliedTimeMs: number
  /** Epochs up to this one may have been applied in part: they are applied again before anything else. */
  readonly intent: number
  /**
   * Until this generation is in place readers find no state of the source: what is shown was being changed when its
   * generation was given up. Absent: they do.
   */
  readonly torn?: boolean
  /**
   * Its empty images may not all be there, and those below are still the ones of the generation before: they are begun
   * before anything is applied. Absent: they are there.
   */
  readonly beginning?: boolean
  readonly volumes: readonly InboundVolume[]
  /**
   * An operator of this side removed the stream: nothing of this generation is taken in any more, only a newer one begins
   * it again. Kept, so that what arrived once is not applied anew, and the source believes what it is told.
   */
  readonly removed?: boolean
  /** What the digests that came with the epochs applied so far have shown; absent or null: none came. */
  readonly comparison?: Comparison | null
  /** Of the next acknowledgement. */
  readonly sequence: number
}

/** Of a generation that begins. */
export const nothingApplied = { appliedEpoch: 0, appliedLsn: '0', lastTag: '00'.repeat(16) } as const

export class InboundState {
  readonly #store: StateStore
  readonly #key: string
  #position: InboundPosition

  constructor(store: StateStore, pairing: string, streamId: string) {
    this.#store = store
    this.#key = inboundKey(pairing, streamId)
    this.#position = store.get<InboundPosition>(this.#key) ?? {
      pairing,
      streamId,
      stream: streamId,
      generation: 0,
      ...nothingApplied,
      consistent: false,
      appliedTimeMs: 0,
      intent: 0,
      volumes: [],
      sequence: 1,
    }
  }

  get position(): InboundPosition {
    return this.#position
  }

  /** Seen only when it is durable: files are removed on the strength of it. */
  async move(change: Partial<InboundPosition>): Promise<void> {
    const next = { ...this.#position, ...change }
    await this.#store.put({ [this.#key]: next })
    this.#position = next
  }
}

export function inboundKey(pairing: string, streamId: string): string {
  return `inbound/${pairing}/${streamId}`
}

/** Every stream that ever began to arrive. */
export function listInbound(store: StateStore): InboundPosition[] {
  return store.list<InboundPosition>('inbound/').map(({ value }) => value)
}
