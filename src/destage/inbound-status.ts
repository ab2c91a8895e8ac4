import type { StorageError } from '../block/storage-error.js'
import type { InboundPosition } from './inbound-state.js'
import { tornReason } from './shown-images.js'

export interface InboundStatus {
  readonly state: 'initializing' | 'consistent' | 'applying' | 'stalled' | 'failed'
  readonly reason: string
}

export interface InboundFacts {
  readonly position: Pick<InboundPosition, 'generation' | 'appliedEpoch' | 'consistent' | 'intent' | 'removed' | 'torn'>
  /** What keeps the next epoch from being applied; null: nothing. */
  readonly obstacle: Pick<StorageError, 'code' | 'hint' | 'retry'> | null
  /** The next part is here, and only a newer agent can read it. */
  readonly tooNew: { readonly epoch: number } | undefined
  /** The first part that is asked for again. */
  readonly wanted: { readonly epoch: number; readonly part: number } | undefined
  readonly applying: boolean
  /** The generation of the newest whole part that is here. */
  readonly newest: number
}

/** To the source. */
const removedReason =
  'STREAM_REMOVED: it was removed at the destination. Remove it at the source too, or initialize it again there'

/** The state an operator sees, and why: the gravest thing first. The table is in DESIGN.md. */
export function describeInbound(facts: InboundFacts): InboundStatus {
  const { generation, removed, torn } = facts.position
  // Whatever keeps its images from going: nothing more of it is taken in.
  if (removed && facts.newest === generation) return { state: 'failed', reason: removedReason }
  const { state, reason } = describeProgress(facts)
  return { state, reason: torn ? `${reason}; ${tornReason}` : reason }
}

function describeProgress(facts: InboundFacts): InboundStatus {
  const { obstacle, tooNew, wanted, applying, newest } = facts
  const { appliedEpoch, consistent, intent } = facts.position
  if (obstacle) {
    const state = obstacle.retry === 'never' ? 'failed' : 'stalled'
    return { state, reason: `${obstacle.code}: ${obstacle.hint}` }
  }
  if (tooNew) {
    const reason = `FORMAT_TOO_NEW: epoch ${tooNew.epoch} was written by a newer agent; upgrade this one`
    return { state: 'stalled', reason }
  }
  if (wanted) {
    const reason = `epoch ${wanted.epoch} part ${wanted.part + 1} has not arrived whole; asked for again`
    return { state: 'stalled', reason }
  }
  if (applying || intent > 0) return { state: 'applying', reason: `epoch ${appliedEpoch + 1} is being applied` }
  if (!consistent) return { state: 'initializing', reason: `generation ${newest} is not complete yet` }
  return { state: 'consistent', reason: `as the source was at the end of epoch ${appliedEpoch}` }
}
