import { planSequence } from '../../src/destage/sequencer.js'
import { planCopy } from '../../src/replication/copy-planner.js'
import { planCut } from '../../src/replication/cut-planner.js'
import type { FarPosition } from './far-side.js'

/** What both sides go by: the program's planners, and what the models do between them. A mutant has one of its own. */
export interface Rules {
  readonly planCut: typeof planCut
  readonly planCopy: typeof planCopy
  readonly planSequence: typeof planSequence
  /** A copy has ended and may have read all up to here: from where on the far side is a state. */
  readonly copyEnd: (recordedLsn: number, readLsn: number) => number
  /** The epoch up to which the source may forget. */
  readonly acknowledged: (position: FarPosition) => number
  /** What a new generation is applied to while the image of the one before is shown. */
  readonly nextImage: (shown: Int32Array) => Int32Array
}

export const rules: Rules = {
  ...{ planCut, planCopy, planSequence },
  copyEnd: Math.max,
  acknowledged: ({ appliedEpoch }) => appliedEpoch,
  nextImage: ({ length }) => new Int32Array(length),
}
