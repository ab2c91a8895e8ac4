import type { EpochNumber, Lsn } from '../block/units.js'

/** A piece of a volume to copy into the stream as it is now: initialisation, catch-up. */
export interface CopyPiece {
  readonly volume: number
  readonly path: string
  readonly offset: number
  readonly lengthBytes: number
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
}

/** Journal read for one epoch at the most; what is more becomes the next epoch. */
export const EPOCH_JOURNAL_LIMIT = 32 * 1024 * 1024
/** Volume read for one epoch of an initialisation at the most. */
export const EPOCH_COPY_LIMIT = 32 * 1024 * 1024
