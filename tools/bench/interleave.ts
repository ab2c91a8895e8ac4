export interface Turn<R, W> {
  readonly workload: W
  /** 0-based. */
  readonly round: number
  readonly row: R
}

/**
 * The order of all runs: workload by workload, and in each one row after the other, again and again. So the rows that
 * are compared run within seconds of each other. Every round begins with another row: none always runs first, or always
 * behind the same neighbour's leftovers.
 *
 * @param takes whether a row can run a workload
 */
export function* interleave<R, W>(
  rows: readonly R[],
  workloads: readonly W[],
  roundCount: number,
  takes: (row: R, workload: W) => boolean,
): Generator<Turn<R, W>> {
  for (const workload of workloads) {
    const able = rows.filter((row) => takes(row, workload))
    for (let round = 0; round < roundCount; round++) {
      for (let place = 0; place < able.length; place++) {
        yield { workload, round, row: able[(place + round) % able.length]! }
      }
    }
  }
}
