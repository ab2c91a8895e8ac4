/** A comparison of both sides, as it moves from epoch to epoch. Pure: what it says is recorded with the position. */
import type { Comparison } from '../replication-file/acknowledgement.js'
import { bytesOf, fewRanges, type VolumeRange } from '../replication-file/volume-range.js'
import type { CopyCursor, StreamPosition } from './stream-state.js'

/** A block that hosts write while it is read is read again this often before it is left for the end, where it has this many again. */
export const TRY_LIMIT = 8
/** What is sent again and differs once more is not sent for ever. */
export const REPAIR_LIMIT = 3
/** Ranges kept in the position, of each kind. */
const rangeLimit = 256
/** Epochs with digests that are cut and not applied, at the most. */
const aheadLimit = 4

export type VerifyOutcome = 'equal' | 'repaired' | 'differs' | 'aborted' | 'failed'

export interface VerifyPosition {
  /** comparing: digests are made. confirming: all are sent. repairing: what differs is sent again. */
  readonly phase: 'comparing' | 'confirming' | 'repairing' | 'over'
  /** Once it is over, and why where that needs words. */
  readonly outcome: VerifyOutcome | null
  readonly reason: string
  readonly repair: boolean
  /** Of the digests; each pass has its own. */
  readonly run: number
  /** Of this run, hexadecimal. */
  readonly salt: string
  /** What this pass compares; null: everything. */
  readonly ranges: readonly VolumeRange[] | null
  /** Where it stands in them, or in the volumes; null: at the end. */
  readonly cursor: CopyCursor | null
  /** What hosts wrote while it was read: taken again before anything else. */
  readonly retry: readonly VolumeRange[]
  readonly tries: number
  /** Written all the time: taken again at the end, and then given up. */
  readonly skipped: readonly VolumeRange[]
  readonly isLastRound: boolean
  /** In digests of this run so far, and the last epoch that has some. */
  readonly digestedBytes: number
  readonly endEpoch: number
  /** What the destination has said of this run. */
  readonly found: Comparison | null
  /** Of the first pass. */
  readonly first: Comparison | null
  readonly repairs: number
  readonly busyBytes: number
  readonly totalBytes: number
}

export type VerifyStep = 'repair' | 'compare-again' | { readonly outcome: VerifyOutcome; readonly reason: string }

/** @param before the one before, of the same generation: numbers of runs only grow */
export function beginVerify(
  before: VerifyPosition | null,
  repair: boolean,
  salt: Buffer,
  totalBytes: number,
): VerifyPosition {
  return {
    ...{ phase: 'comparing', outcome: null, reason: '', repair },
    ...{ run: (before?.run ?? 0) + 1, salt: salt.toString('hex'), ...freshPass, ranges: null },
    ...{ first: null, repairs: 0, busyBytes: 0, totalBytes },
  }
}

const freshPass = {
  cursor: { slot: 0, offset: 0 },
  retry: [],
  tries: 0,
  skipped: [],
  isLastRound: false,
  digestedBytes: 0,
  endEpoch: 0,
  found: null,
} as const

/** What was sent again is compared again. */
export function compareAgain(verify: VerifyPosition, salt: Buffer): VerifyPosition {
  const { run, found, repairs } = verify
  const next = { run: run + 1, salt: salt.toString('hex'), ranges: found?.differing ?? [], repairs: repairs + 1 }
  return { ...verify, ...freshPass, ...next, phase: 'comparing', first: verify.first ?? found }
}

export function endVerify(verify: VerifyPosition, outcome: VerifyOutcome, reason = ''): VerifyPosition {
  const first = verify.first ?? verify.found
  return { ...verify, phase: 'over', outcome, reason, first, found: null, retry: [], skipped: [], ranges: [] }
}

export function isVerifying(verify: VerifyPosition | null): verify is VerifyPosition {
  return verify !== null && verify.phase !== 'over'
}

/** What an epoch was to compare, and what came of it. */
export interface DigestedEpoch {
  readonly run: number
  readonly isRetry: boolean
  readonly next: CopyCursor | null
  readonly digestedBytes: number
  /** Hosts wrote to it before the last read had ended: not in this epoch. */
  readonly busy: readonly VolumeRange[]
}

/** After the epoch; it goes into the position with it. */
export function advanceVerify(
  verify: VerifyPosition | null,
  epoch: number,
  made: DigestedEpoch | null,
): VerifyPosition | null {
  if (!made || verify?.phase !== 'comparing' || verify.run !== made.run) return verify
  const tries = made.isRetry ? verify.tries + 1 : 0
  const again = tries < TRY_LIMIT ? made.busy : []
  const moved: VerifyPosition = {
    ...verify,
    cursor: made.isRetry ? verify.cursor : made.next,
    retry: fewRanges(again, rangeLimit),
    tries: again.length > 0 ? tries : 0,
    skipped: tries < TRY_LIMIT ? verify.skipped : fewRanges([...verify.skipped, ...made.busy], rangeLimit),
    digestedBytes: verify.digestedBytes + made.digestedBytes,
    endEpoch: made.digestedBytes > 0 ? epoch : verify.endEpoch,
  }
  if (moved.cursor !== null || moved.retry.length > 0) return moved
  if (moved.skipped.length > 0 && !moved.isLastRound) {
    return { ...moved, ranges: moved.skipped, skipped: [], cursor: { slot: 0, offset: 0 }, isLastRound: true }
  }
  return { ...moved, phase: 'confirming', busyBytes: moved.busyBytes + bytesOf(moved.skipped), skipped: [] }
}

/** The destination has said what it found. It says all there is each time. */
export function hearComparison(verify: VerifyPosition | null, said: Comparison | null): VerifyPosition | null {
  if (!said || !isVerifying(verify) || said.run !== verify.run) return verify
  return { ...verify, found: said }
}

type VerifyFacts = Pick<
  StreamPosition,
  'verify' | 'copy' | 'held' | 'catchUp' | 'consistentEpoch' | 'stateEpoch' | 'cutEpoch' | 'appliedEpoch'
>

/** Nothing is being copied, or shown at once: the end of the next epoch is a state, and so is all that was applied. */
function isCalm({ copy, held, catchUp, consistentEpoch, stateEpoch, cutEpoch, appliedEpoch }: VerifyFacts): boolean {
  const isCaughtUp = catchUp === null || (catchUp.untilEpoch > 0 && appliedEpoch >= catchUp.untilEpoch)
  const isStateThere = consistentEpoch > 0 && appliedEpoch >= consistentEpoch && stateEpoch === cutEpoch
  return copy === null && !held && isCaughtUp && isStateThere
}

/** The next epoch shall carry digests, and be cut for it. */
export function wantsDigests(position: VerifyFacts): boolean {
  const { verify, cutEpoch, appliedEpoch } = position
  return verify?.phase === 'comparing' && cutEpoch - appliedEpoch < aheadLimit && isCalm(position)
}

/** What is to be done once no epoch is under way, or null. */
export function verifyStep(position: VerifyFacts): VerifyStep | null {
  const { verify, appliedEpoch } = position
  if (!verify || !isCalm(position)) return null
  if (verify.phase === 'repairing') return 'compare-again'
  if (verify.phase !== 'confirming' || appliedEpoch < verify.endEpoch) return null
  const { found, digestedBytes, repair, repairs } = verify
  if ((found?.comparedBytes ?? 0) !== digestedBytes) {
    const reason = `the destination has compared ${found?.comparedBytes ?? 0} of ${digestedBytes} bytes`
    return { outcome: 'failed', reason }
  }
  if (!found || found.differing.length === 0) return { outcome: repairs > 0 ? 'repaired' : 'equal', reason: '' }
  if (!repair) return { outcome: 'differs', reason: '' }
  if (repairs < REPAIR_LIMIT) return 'repair'
  const reason = `${found.differingBytes} bytes differ again each time they were sent: check the disk of the destination`
  return { outcome: 'failed', reason }
}
