import { EPOCH_JOURNAL_LIMIT } from './pack-job.js'
import { isCatchingUp, type StreamPosition } from './stream-state.js'
import { wantsDigests } from './verify-state.js'

/** Epochs that appear at the far side at once, at the most: what it takes in before it applies the first. */
export const GROUP_EPOCH_LIMIT = 2048

export interface CutFacts {
  readonly nowMs: number
  /** When the first write after the last cut was seen, or null. */
  readonly openSinceMs: number | null
  /** Journaled since the last cut. */
  readonly openBytes: number
  readonly epochMs: number
  /** Somebody waits for what is open to be cut. */
  readonly flushing: boolean
  readonly bufferBytes: number
  readonly bufferLimitBytes: number
  readonly journalLimitBytes: number
  readonly position: Pick<
    StreamPosition,
    | 'copy'
    | 'catchUp'
    | 'held'
    | 'consistentEpoch'
    | 'stateEpoch'
    | 'cutEpoch'
    | 'cutLsn'
    | 'copyEndLsn'
    | 'appliedEpoch'
    | 'verify'
  >
}

/**
 * `let-go`: epochs that were to appear at once are more than the buffers hold, and nothing before them is left to make
 * room; what comes next must be a state.
 */
export type CutDecision = 'cut' | 'wait' | 'buffer-full' | 'let-go'

/**
 * Whether the open epoch ends now. From half the buffer on it is no longer time that ends one: what would have been
 * neighbouring epochs folds into one, and the rest of the buffer lasts longer. A full buffer waits: the journal holds what
 * comes meanwhile.
 */
export function planCut(facts: CutFacts): CutDecision {
  const { copy, held, consistentEpoch, stateEpoch, cutEpoch, cutLsn, copyEndLsn, appliedEpoch } = facts.position
  const groupOpen = consistentEpoch > 0 && cutEpoch > stateEpoch
  // Whatever the buffer holds: before this one is there nothing of the group is applied, and nothing released.
  if (groupOpen && !copy && !held && BigInt(copyEndLsn) <= BigInt(cutLsn)) return 'cut'
  const due = facts.flushing || consistentEpoch === 0 || groupOpen || wantsDigests(facts.position)
  const wanted = copy !== null || (!held && due)
  const full = facts.bufferBytes >= facts.bufferLimitBytes
  const stretched = held || (!full && facts.bufferBytes >= facts.bufferLimitBytes / 2)
  const over = !stretched && facts.openSinceMs !== null && facts.nowMs - facts.openSinceMs >= facts.epochMs
  // Well before the journal is full: it is not to be given up for an epoch that could have been cut.
  const largest = Math.min(EPOCH_JOURNAL_LIMIT, facts.journalLimitBytes / 4)
  if (!wanted && !over && facts.openBytes < largest) return 'wait'
  const tooLong = cutEpoch - stateEpoch >= GROUP_EPOCH_LIMIT
  // A catch-up is never shown in two steps: what has arrived is released before it is applied, and makes room.
  const mayLetGo = groupOpen && !isCatchingUp(facts.position)
  if (mayLetGo && (tooLong || (full && appliedEpoch >= stateEpoch))) return 'let-go'
  return full ? 'buffer-full' : 'cut'
}
