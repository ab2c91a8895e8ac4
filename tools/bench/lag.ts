/** One look at a stream: how much was journaled, and how much of that the destination has applied. */
export interface LagSample {
  readonly atMs: number
  readonly journaled: bigint
  readonly applied: bigint
}

/**
 * How old the oldest write was that the destination did not have, at each look, in milliseconds; 0 when it had all.
 * Longer than the truth by up to the time between two looks, never shorter.
 *
 * @param samples in order of time; both positions only grow
 */
export function lags(samples: readonly LagSample[]): number[] {
  let reached = 0
  return samples.map(({ atMs, journaled, applied }, at) => {
    if (applied >= journaled) return 0
    while (reached < at && samples[reached + 1]!.journaled <= applied) reached += 1
    // The first look has no look before it: what it found may be older.
    return atMs - samples[reached]!.atMs
  })
}
