import assert from 'node:assert/strict'

/** A position in a stream's journal: the byte address of a record in the journal's endless address space. */
export type Lsn = bigint & { readonly kind: 'lsn' }
/** The number of an epoch in one generation of a stream; the first is 1. */
export type EpochNumber = number & { readonly kind: 'epoch' }
/** The index of a volume in its stream, 0-based, never used again for another volume. */
export type VolumeIndex = number & { readonly kind: 'volume-index' }

export const sectorBytes = 512
export const KiB = 1024
export const MiB = 1024 * KiB
export const GiB = 1024 * MiB

export const lsn = (value: bigint): Lsn => value as Lsn
export const epochNumber = (value: number): EpochNumber => value as EpochNumber
export const volumeIndex = (value: number): VolumeIndex => value as VolumeIndex

/** A 64-bit value as a number; what does not fit was checked by nobody, so it is a broken invariant here. */
export function safeNumber(value: bigint): number {
  const number = Number(value)
  assert(Number.isSafeInteger(number), `${value} does not fit a number`)
  return number
}
