import { type Comparison, DIFFERING_LIMIT } from '../replication-file/acknowledgement.js'
import { fewRanges } from '../replication-file/volume-range.js'

/** Each epoch that differs has an event, until so many ranges of a run are known. */
const saidLimit = 64

/** What is known of a run after more of it was compared; of a new run, that alone. */
export function addComparison(before: Comparison | null | undefined, more: Comparison): Comparison {
  const known = before?.run === more.run ? before : { comparedBytes: 0, differingBytes: 0, differing: [] }
  return {
    run: more.run,
    comparedBytes: known.comparedBytes + more.comparedBytes,
    differingBytes: known.differingBytes + more.differingBytes,
    differing: fewRanges([...known.differing, ...more.differing], DIFFERING_LIMIT),
  }
}

/** Something differs, and of this run not too much was said already. */
export function isWorthSaying(before: Comparison | null | undefined, more: Comparison): boolean {
  const known = before?.run === more.run ? before.differing.length : 0
  return more.differing.length > 0 && known < saidLimit
}
