import type { Changes } from '../block/changes.js'
import type { StreamHealth } from './stream-health.js'
import { heldElsewhere, isHeldStill, mappedFrom, type PoolHolders, type StreamState } from './stream-state.js'

export interface PhaseChangesOptions {
  readonly state: StreamState
  readonly health: StreamHealth
  readonly changes: Changes
  /** Of the pools the volumes are in now. */
  readonly holders: () => PoolHolders
}

/** What becomes of a stream that has no journal any more: recorded first, then said. */
export class PhaseChanges {
  readonly #options: PhaseChangesOptions

  constructor(options: PhaseChangesOptions) {
    this.#options = options
  }

  /** Only the region record tells from here on; nobody can, where that is lost. */
  async map(reason: string, end: bigint): Promise<void> {
    const { state, health } = this.#options
    await state.move(mappedFrom(reason, end))
    const { phase } = state.position
    if (phase === 'diverged') this.sayDiverged()
    if (phase === 'mapping') health.say('warning', 'STREAM_MAPPING', `${reason} Hosts go on; it is caught up later.`)
  }

  /** Before anything is replayed: what was written elsewhere since is newer, and in no record of this stream. */
  async compareHolders(): Promise<void> {
    const { state, holders } = this.#options
    if (!isHeldStill(state.position, holders())) await this.diverge(heldElsewhere)
  }

  async diverge(reason: string): Promise<void> {
    await this.#options.state.move({ phase: 'diverged', divergedReason: reason })
    this.sayDiverged()
  }

  sayDiverged(): void {
    const { state, health, changes } = this.#options
    const { divergedReason } = state.position
    health.say('error', 'STREAM_DIVERGED', `${divergedReason} Hosts go on; initialize the stream again.`)
    changes.announce()
  }
}
