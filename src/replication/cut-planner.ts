import { EPOCH_JOURNAL_LIMIT } from './pack-job.js'

export interface CutFacts {
  readonly nowMs: number
  /** When the first write after the last cut was seen, or null. */
  readonly openSinceMs: number | null
  /** Journaled since the last cut. */
  readonly openBytes: number
  readonly epochMs: number
  /** Somebody waits for the cut, or an initialisation has more to copy. */
  readonly wanted: boolean
  readonly bufferBytes: number
  readonly bufferLimitBytes: number
}

export type CutDecision = 'cut' | 'wait' | 'buffer-full'

/** Whether the open epoch ends now. A full buffer waits: the journal holds what comes meanwhile. */
export function planCut(facts: CutFacts): CutDecision {
  const due =
    facts.wanted ||
    facts.openBytes >= EPOCH_JOURNAL_LIMIT ||
    (facts.openSinceMs !== null && facts.nowMs - facts.openSinceMs >= facts.epochMs)
  if (!due) return 'wait'
  return facts.bufferBytes >= facts.bufferLimitBytes ? 'buffer-full' : 'cut'
}
