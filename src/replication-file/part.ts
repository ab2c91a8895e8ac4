/**
 * The contract of the two sites: an epoch is 1 to n parts, each one sealed file. Format in FORMAT.md.
 */
import type { EpochNumber, Lsn, VolumeIndex } from '../block/units.js'
import type { RangeDigest } from './range-digest.js'

/** A part's place in the world. All of it is authenticated with the part. */
export interface PartPlace {
  /** 16 bytes. */
  readonly pairingId: Buffer
  /** 16 bytes. */
  readonly streamId: Buffer
  /** A stream's life: a new initialisation of the whole stream begins a new one. From 1. */
  readonly generation: number
  readonly epoch: EpochNumber
  /** 0-based. */
  readonly part: number
  readonly partCount: number
  /** 16 bytes: the tag of the part before (of the last part of the epoch before; zeros for the very first). */
  readonly previousTag: Buffer
}

export interface PartHeader extends PartPlace {
  /** The epoch's LSN range [firstLsn, endLsn). */
  readonly firstLsn: Lsn
  readonly endLsn: Lsn
  readonly firstTimeNs: bigint
  readonly lastTimeNs: bigint
  /** The volumes are not a consistent image until an epoch without this flag has been applied. */
  readonly initializing: boolean
}

export type PartRecord =
  /** Declares a volume; comes before the first record that names its index. `stream` is the stream's name. */
  | {
      readonly kind: 'volume'
      readonly volume: VolumeIndex
      readonly stream: string
      readonly name: string
      readonly sizeBytes: number
    }
  | (Placed & { readonly kind: 'write'; readonly payload: Buffer })
  /** Reads as zeros afterwards; `trim` frees the space too. */
  | (Placed & { readonly kind: 'zero' | 'trim' })
  | { readonly kind: 'marker'; readonly lsn: Lsn; readonly timeNs: bigint; readonly payload: Buffer }
  /** What the image holds there when its epoch was applied; behind all that changes it. */
  | (RangeDigest & { readonly kind: 'digest'; readonly volume: VolumeIndex; readonly offset: number })

interface Placed {
  readonly volume: VolumeIndex
  readonly offset: number
  readonly lengthBytes: number
  readonly lsn: Lsn
  readonly timeNs: bigint
}
