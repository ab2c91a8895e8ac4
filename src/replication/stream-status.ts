import { copyProgress } from './copy-planner.js'
import type { StreamHealth } from './stream-health.js'
import type { StreamDefinition, StreamPosition } from './stream-state.js'

export type SourceStreamState = 'new' | 'initializing' | 'replicating' | 'paused' | 'waiting' | 'diverged' | 'failed'

export interface StreamFacts {
  readonly definition: StreamDefinition
  readonly position: StreamPosition
  readonly health: Pick<StreamHealth, 'failure' | 'link' | 'trouble' | 'bufferFull' | 'farSide'>
  readonly waitingBytes: number
}

/** The state an operator sees, and why: the gravest thing first. */
export function describeStream(facts: StreamFacts): { state: SourceStreamState; reason: string } {
  const { definition, position } = facts
  const { failure, link, trouble, bufferFull, farSide } = facts.health
  if (failure !== undefined) return { state: 'failed', reason: failure }
  if (position.phase === 'new') return { state: 'new', reason: `run: tidemark stream initialize ${definition.name}` }
  if (position.phase === 'diverged') {
    return {
      state: 'diverged',
      reason: `${position.divergedReason} Run: tidemark stream initialize ${definition.name}`,
    }
  }
  if (trouble) return { state: 'waiting', reason: `${trouble.code}: ${trouble.hint}` }
  if (definition.paused) return { state: 'paused', reason: 'transfer paused by an operator; writes are recorded' }
  if (link) return { state: 'waiting', reason: `${link.code}: ${link.hint}` }
  if (farSide.state === 'failed' || farSide.state === 'stalled') {
    return { state: 'waiting', reason: `destination: ${farSide.reason}` }
  }
  if (bufferFull) return { state: 'waiting', reason: 'the source buffer is full; the journal collects' }
  if (position.consistentEpoch === 0 || position.appliedEpoch < position.consistentEpoch) {
    const { doneBytes, totalBytes } = copyProgress(definition.volumes, position.copy)
    const percent = totalBytes > 0 ? Math.floor((100 * doneBytes) / totalBytes) : 100
    return { state: 'initializing', reason: percent < 100 ? `${percent} % read` : 'all read; being applied' }
  }
  return { state: 'replicating', reason: facts.waitingBytes === 0 ? 'up to date' : 'catching up' }
}
