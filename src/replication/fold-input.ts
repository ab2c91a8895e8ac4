/** Record types of the journal. Others (markers, padding) cover no bytes and are ignored. */
export const foldKind = { write: 1, zero: 2, trim: 3 } as const

/** The records of one epoch as columns, oldest first: a record's index is its age. */
export interface FoldInput {
  readonly count: number
  readonly kind: Uint8Array
  readonly volume: Uint16Array
  /** Bytes on the volume, multiples of 512. */
  readonly offset: Float64Array
  readonly lengthBytes: Float64Array
}
