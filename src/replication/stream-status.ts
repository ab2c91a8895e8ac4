import { formatBytes } from '../block/size.js'
import { copyProgress } from './copy-planner.js'
import type { StreamHealth } from './stream-health.js'
import type { StreamDefinition, StreamPosition } from './stream-state.js'
import { isVerifying, type VerifyOutcome, type VerifyPosition } from './verify-state.js'

export type SourceStreamState =
  | 'new'
  | 'initializing'
  | 'replicating'
  | 'catching-up'
  | 'mapping'
  | 'blocked'
  | 'paused'
  | 'waiting'
  | 'diverged'
  | 'failed'

export interface StreamFacts {
  readonly definition: StreamDefinition
  readonly position: StreamPosition
  readonly health: Pick<
    StreamHealth,
    'failure' | 'retryInSeconds' | 'link' | 'trouble' | 'unsynced' | 'bufferFull' | 'blocked' | 'farSide'
  >
  readonly waitingBytes: number
  /** Regions that are sent again, or will be. */
  readonly catchUp: { readonly reason: string; readonly doneBytes: number; readonly totalBytes: number } | null
}

/** A comparison of both sides, as an operator sees it. */
export interface VerifyStatus {
  readonly state: 'comparing' | 'repairing' | VerifyOutcome
  /** Why it waits, or how it ended; may be empty. */
  readonly reason: string
  readonly repair: boolean
  /** What the destination has compared, and what there is. */
  readonly doneBytes: number
  readonly totalBytes: number
  /** Found the first time it was compared, and where: at most 256 ranges, with what lies between where there are more. */
  readonly mismatchedBytes: number
  readonly mismatches: readonly { readonly volume: string; readonly offset: number; readonly lengthBytes: number }[]
  /** Written by hosts whenever it was read: not compared. */
  readonly busyBytes: number
}

/** @param now the state of the stream */
export function describeVerify(
  verify: VerifyPosition | null,
  { volumes }: StreamDefinition,
  now: SourceStreamState,
): VerifyStatus | null {
  if (!verify) return null
  const { phase, outcome, repair, totalBytes, busyBytes } = verify
  const known = verify.first ?? verify.found
  const waits =
    isVerifying(verify) && now !== 'replicating' && now !== 'catching-up' ? `waits: the stream is ${now}` : ''
  return {
    state: outcome ?? (phase === 'repairing' || verify.repairs > 0 ? 'repairing' : 'comparing'),
    reason: verify.reason || waits,
    repair,
    doneBytes: Math.min(known?.comparedBytes ?? 0, totalBytes),
    totalBytes,
    mismatchedBytes: known?.differingBytes ?? 0,
    mismatches: (known?.differing ?? []).map(({ volume, offset, lengthBytes }) => ({
      volume: volumes.find(({ index }) => index === volume)?.name ?? String(volume),
      offset,
      lengthBytes,
    })),
    busyBytes,
  }
}

/** The state an operator sees, and why: the gravest thing first. */
export function describeStream(facts: StreamFacts): { state: SourceStreamState; reason: string } {
  const { definition, position } = facts
  const { failure, retryInSeconds, link, trouble, unsynced, bufferFull, blocked, farSide } = facts.health
  if (failure !== undefined) {
    const next =
      retryInSeconds === null ? `Run: tidemark stream resume ${definition.name}` : `Tried again in ${retryInSeconds} s.`
    return { state: 'failed', reason: `${failure} ${next}` }
  }
  if (position.phase === 'new') return { state: 'new', reason: `run: tidemark stream initialize ${definition.name}` }
  if (position.phase === 'diverged') {
    return {
      state: 'diverged',
      reason: `${position.divergedReason} Run: tidemark stream initialize ${definition.name}`,
    }
  }
  if (position.phase === 'mapping' && facts.catchUp) {
    const { reason, totalBytes } = facts.catchUp
    const next = definition.paused
      ? 'It is paused.'
      : link
        ? `${link.code}: ${link.hint}`
        : 'It begins when there is room.'
    return { state: 'mapping', reason: `${reason} ${formatBytes(totalBytes)} to catch up. ${next}` }
  }
  if (blocked !== undefined) {
    const why = definition.paused ? ' Transfer is paused.' : link ? ` ${link.code}: ${link.hint}` : ''
    return { state: 'blocked', reason: blocked + why }
  }
  if (unsynced) return { state: 'waiting', reason: `${unsynced.code}: ${unsynced.hint}` }
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
  if (facts.catchUp) {
    const { reason, doneBytes, totalBytes } = facts.catchUp
    const read = doneBytes < totalBytes ? `${Math.floor((100 * doneBytes) / totalBytes)} % read` : 'all read'
    return { state: 'catching-up', reason: `${reason} ${read} of ${formatBytes(totalBytes)}` }
  }
  return { state: 'replicating', reason: facts.waitingBytes === 0 ? 'up to date' : 'catching up' }
}
