import type { EpochNumber, Lsn } from '../block/units.js'
import type { VolumeRange } from '../replication-file/volume-range.js'

/** A piece of a volume to copy into the stream as it is now: initialisation, catch-up. */
export interface CopyPiece {
  readonly volume: number
  readonly path: string
  readonly offset: number
  readonly lengthBytes: number
}

/** A piece of a volume whose content at the end of an epoch is told. */
export interface DigestPiece extends VolumeRange {
  readonly path: string
  readonly isHole: boolean
}

/** Digests to be made, before the epoch is. */
export interface DigestJob {
  readonly salt: Uint8Array
  readonly pieces: readonly DigestPiece[]
}

/** One epoch to be made: everything the worker needs, as plain data. */
export interface PackJob {
  readonly journal: { readonly directory: string; readonly id: Uint8Array; readonly segmentBytes: number }
  /** Durable and published; the epoch ends at `to` or, when that is too much, at the last record that fits. */
  readonly from: Lsn
  readonly to: Lsn
  readonly place: {
    readonly pairingId: Uint8Array
    readonly streamId: Uint8Array
    readonly generation: number
    readonly epoch: EpochNumber
    readonly previousTag: Uint8Array
  }
  readonly secret: Uint8Array
  /** Of all volumes: how much it is worth to remember. */
  readonly volumeBytes: number
  /** null while an initialisation or a catch-up copies; an epoch that ends at or after it is consistent. */
  readonly consistentFrom: Lsn | null
  /** Declared in the first epoch of a generation. */
  readonly declare: readonly {
    readonly volume: number
    readonly stream: string
    readonly name: string
    readonly sizeBytes: number
  }[]
  /** Read now; journal records of the epoch lie over them. */
  readonly copies: readonly CopyPiece[]
  /** The far side is zeros where it was never written: zeros that were copied need not cross. */
  readonly ontoZeros: boolean
  /** What is copied is sent whatever the far side is believed to hold. */
  readonly afresh: boolean
  /** What the volumes held when they were read, after `to` had reached them; null: nothing is compared. */
  readonly digests:
    | (DigestJob & {
        readonly run: number
        /** Of each piece; empty for a hole. */
        readonly made: readonly Uint8Array[]
        /** The journal's durable end after the last read. */
        readonly after: Lsn
      })
    | null
  /** The source buffer. */
  readonly directory: string
}

/** Of an epoch that is sealed; its files are durable when the worker's `written` has answered for its tag. */
export interface PackResult {
  readonly endLsn: Lsn
  readonly initializing: boolean
  readonly parts: readonly { readonly name: string; readonly lengthBytes: number }[]
  /** Of the last part. */
  readonly tag: Uint8Array
  readonly rawBytes: number
  readonly foldedBytes: number
  readonly identicalBytes: number
  readonly compressedBytes: number
  readonly oldestMs: number
  /** In digest records; and what of `digests` hosts wrote to meanwhile, which is not in them. */
  readonly digestedBytes: number
  readonly busy: readonly VolumeRange[]
}

/** Journal read for one epoch at the most; what is more becomes the next epoch. */
export const EPOCH_JOURNAL_LIMIT = 32 * 1024 * 1024
/** Volume read for one epoch of an initialisation at the most. */
export const EPOCH_COPY_LIMIT = 32 * 1024 * 1024
