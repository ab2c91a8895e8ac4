import { StorageError } from '../block/storage-error.js'
import { MESSAGE_FILE_LIMIT, openMessage, sealMessage } from './message.js'
import type { VolumeRange } from './volume-range.js'

/** The file name at the destination, one in each stream's folder, replaced as a whole. */
export const ACKNOWLEDGEMENT_NAME = 'acknowledgement'
export const ACKNOWLEDGEMENT_LIMIT = MESSAGE_FILE_LIMIT
/** Parts asked for again in one acknowledgement, at the most. */
export const WANTED_LIMIT = 256

/** Ranges that differ, named in one acknowledgement, at the most. */
export const DIFFERING_LIMIT = 256

/** What the destination found when it compared the digests of one run with its images, in all epochs applied so far. */
export interface Comparison {
  readonly run: number
  readonly comparedBytes: number
  readonly differingBytes: number
  /** All that differs lies in these, at most DIFFERING_LIMIT; with more places to name, what lies between two is in one too. */
  readonly differing: readonly VolumeRange[]
}

/** What the destination tells the source. Applied means: durable in the volumes. */
export interface Acknowledgement {
  /** Grows with each one written; an older one is ignored, so that a share cannot turn the clock back. */
  readonly sequence: number
  readonly generation: number
  readonly appliedEpoch: number
  readonly appliedLsn: string
  /** Of the last part applied, hexadecimal: which epoch of this number it was. Absent: an older agent wrote it. */
  readonly appliedTag?: string
  /**
   * Every epoch up to here is here, whole and durable, though not applied: they wait for one whose end is a state. Absent
   * or below appliedEpoch: nothing waits so.
   */
  readonly receivedEpoch?: number
  readonly state: string
  readonly reason: string
  /** Parts that arrived damaged or not at all and are asked for again. */
  readonly wanted: readonly { readonly epoch: number; readonly part: number }[]
  /** The newest format of replication files that is understood there. Absent: 1. */
  readonly reads?: number
  /** Of the last digests that came; absent or null: none. */
  readonly comparison?: Comparison | null
}

/** Sealed with the stream's secret: only the other site can have written it, and only for this stream. */
export function sealAcknowledgement(value: Acknowledgement, secret: Buffer, streamId: Buffer): Buffer {
  return sealMessage('acknowledgement', secret, streamId, value)
}

/** @throws StorageError SEAL_BROKEN, WRONG_KEY, BAD_ACKNOWLEDGEMENT */
export function openAcknowledgement(bytes: Buffer, secret: Buffer, streamId: Buffer): Acknowledgement {
  const value = openMessage('acknowledgement', secret, streamId, bytes)
  if (isAcknowledgement(value)) return value
  throw new StorageError('BAD_ACKNOWLEDGEMENT', {
    op: 'read acknowledgement',
    object: streamId.toString('hex'),
    hint: 'The destination runs another version. Upgrade the older side.',
  })
}

function isAcknowledgement(value: unknown): value is Acknowledgement {
  if (typeof value !== 'object' || value === null) return false
  const fields = value as Record<string, unknown>
  const counts = [fields.sequence, fields.generation, fields.appliedEpoch, fields.receivedEpoch ?? 0]
  return (
    counts.every((count) => Number.isSafeInteger(count) && (count as number) >= 0) &&
    typeof fields.appliedLsn === 'string' &&
    /^\d{1,20}$/.test(fields.appliedLsn) &&
    isTag(fields.appliedTag ?? noTag) &&
    typeof fields.state === 'string' &&
    typeof fields.reason === 'string' &&
    Array.isArray(fields.wanted) &&
    fields.wanted.length <= WANTED_LIMIT &&
    fields.wanted.every((place) => Number.isSafeInteger(place?.epoch) && Number.isSafeInteger(place?.part)) &&
    isCount(fields.reads ?? 0) &&
    isComparison(fields.comparison ?? null)
  )
}

const noTag = '00'.repeat(16)

function isTag(value: unknown): boolean {
  return typeof value === 'string' && /^[0-9a-f]{32}$/.test(value)
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function isComparison(value: unknown): boolean {
  if (value === null) return true
  if (typeof value !== 'object') return false
  const { run, comparedBytes, differingBytes, differing } = value as Record<string, unknown>
  return (
    [run, comparedBytes, differingBytes].every(isCount) &&
    Array.isArray(differing) &&
    differing.length <= DIFFERING_LIMIT &&
    differing.every((range) => [range?.volume, range?.offset, range?.lengthBytes].every(isCount))
  )
}
