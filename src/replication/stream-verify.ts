import { randomBytes } from 'node:crypto'
import { formatBytes } from '../block/size.js'
import { StorageError } from '../block/storage-error.js'
import { type Lsn, safeNumber } from '../block/units.js'
import type { StreamJournal } from '../journal/stream-journal.js'
import { RANGE_SALT_BYTES } from '../replication-file/range-digest.js'
import { rangesText } from '../replication-file/volume-range.js'
import type { CatchUp } from './catch-up.js'
import { type DigestJob, EPOCH_JOURNAL_LIMIT, type PackJob } from './pack-job.js'
import { isUnanswered, type Packer } from './pack-workers.js'
import type { RecordedVolumes } from './recorded-volumes.js'
import type { RegionKeeper } from './region-keeper.js'
import type { StreamHealth } from './stream-health.js'
import type { StreamDefinition, StreamPosition, StreamState } from './stream-state.js'
import { type DigestPlan, type DigestPlanJob, planDigests } from './verify-planner.js'
import {
  compareAgain,
  endVerify,
  type VerifyOutcome,
  type VerifyPosition,
  verifyStep,
  wantsDigests,
} from './verify-state.js'

const repairReason = 'The copy at the destination differed from the volumes.'

/** What goes into the job of an epoch, and what the position is moved by. */
export type MadeDigests = NonNullable<PackJob['digests']> & Pick<DigestPlan, 'isRetry' | 'next'>

export interface StreamVerifyOptions {
  readonly definition: StreamDefinition
  readonly state: StreamState
  readonly journal: StreamJournal
  readonly volumes: RecordedVolumes
  readonly packer: Packer
  readonly regions: RegionKeeper
  readonly catchUp: CatchUp
  readonly health: StreamHealth
  readonly onChange: () => void
}

export function verifySalt(): Buffer {
  return randomBytes(RANGE_SALT_BYTES)
}

/**
 * The part of a comparison that the source does: digests for the epochs that are cut, and what follows from what the
 * destination says of them. All calls come from the loop that cuts, one at a time; see DESIGN.md for the order.
 */
export class StreamVerify {
  readonly #options: StreamVerifyOptions

  constructor(options: StreamVerifyOptions) {
    this.#options = options
  }

  /** step() has something to do. */
  get isDue(): boolean {
    return verifyStep(this.#options.state.position) !== null
  }

  /** Never of an epoch that would have to end before `to`: what the volumes hold then nobody could read. */
  isWanted(position: StreamPosition, from: Lsn, to: Lsn): boolean {
    return wantsDigests(position) && safeNumber(to - from) <= EPOCH_JOURNAL_LIMIT
  }

  /**
   * What the volumes hold, and up to where the journal may name writes that were seen. All that the journal held when the
   * end of the epoch was chosen has reached them. A volume that cannot be read ends the comparison, not the stream.
   * @throws StorageError WORKER_ENDED, PACK_WORKERS_HANG
   */
  async digests(position: StreamPosition, signal: AbortSignal): Promise<MadeDigests | null> {
    const { state, packer, journal } = this.#options
    const { verify } = position
    if (!verify) return null
    let read: Omit<MadeDigests, 'after'>
    try {
      const plan = await this.#plan(verify, signal)
      const job: DigestJob = { salt: Buffer.from(verify.salt, 'hex'), pieces: plan.pieces }
      const made = await packer.call<Uint8Array[]>('digest', job, signal)
      read = { ...job, ...plan, made }
    } catch (error) {
      if (!(error instanceof StorageError) || isUnanswered(error)) throw error
      await this.#end(state.position, 'failed', `a volume cannot be read: ${error.message}`)
      return null
    }
    return { ...read, after: await journal.sync() }
  }

  async #plan(verify: VerifyPosition, signal: AbortSignal): Promise<DigestPlan> {
    const { volumes, packer } = this.#options
    const known = volumes.sparse()
    if (known) return planDigests(known, verify)
    const job: DigestPlanJob = { volumes: volumes.files(), verify }
    return packer.call<DigestPlan>('planDigests', job, signal)
  }

  /** While no epoch is under way. */
  async step(): Promise<void> {
    const { state, onChange } = this.#options
    const { position } = state
    const { verify } = position
    const step = verifyStep(position)
    if (!step || !verify) return
    if (step === 'repair') await this.#repairOrEnd(verify)
    else if (step === 'compare-again') {
      const salt = verifySalt()
      await state.move((now) => ({
        verify: now.verify?.phase === 'repairing' ? compareAgain(now.verify, salt) : now.verify,
      }))
    } else await this.#end(position, step.outcome, step.reason)
    onChange()
  }

  /** Epochs do not wait for a repair that cannot begin. */
  async #repairOrEnd(verify: VerifyPosition): Promise<void> {
    try {
      await this.#repair(verify)
    } catch (error) {
      if (!(error instanceof StorageError)) throw error
      await this.#end(this.#options.state.position, 'failed', `nothing was sent again: ${error.message}`)
    }
  }

  /** What differs is sent again as the volumes have it, as any region is that the far side may lack: in one step. */
  async #repair(verify: VerifyPosition): Promise<void> {
    const { state, journal, regions, catchUp, health, definition } = this.#options
    const map = regions.fresh()
    const differing = verify.found?.differing ?? []
    for (const { volume, offset, lengthBytes } of differing) {
      const sizeBytes = definition.volumes.find(({ index }) => index === volume)?.sizeBytes ?? 0
      map.add(volume, offset, Math.min(lengthBytes, sizeBytes - offset))
    }
    const where = rangesText(differing, definition.volumes)
    health.say('warning', 'FAR_SIDE_REPAIR', `sent again, and then compared again: ${where}`)
    const afterLsn = journal.counters().publishedLsn
    await catchUp.begin(state, { regions: map, reason: repairReason, afterLsn, afresh: true }, ({ verify: now }) => ({
      verify: now && { ...now, phase: 'repairing' },
    }))
  }

  async #end({ verify }: StreamPosition, outcome: VerifyOutcome, reason: string): Promise<void> {
    if (!verify) return
    const { state } = this.#options
    await state.move(({ verify: now }) => ({ verify: now?.run === verify.run ? endVerify(now, outcome, reason) : now }))
    this.#sayEnd(state.position.verify)
  }

  #sayEnd(verify: VerifyPosition | null): void {
    const { health, definition } = this.#options
    if (!verify?.outcome) return
    const { outcome, reason, first, busyBytes } = verify
    const compared = `${formatBytes(first?.comparedBytes ?? 0)} compared`
    const busy = busyBytes > 0 ? `; ${formatBytes(busyBytes)} were written all the time and not compared` : ''
    const where = first && first.differing.length > 0 ? `: ${rangesText(first.differing, definition.volumes)}` : ''
    const text = {
      equal: `${compared}, all equal${busy}`,
      repaired: `${compared}, ${first?.differingBytes} bytes differed, were sent again and are equal now${where}${busy}`,
      differs: `${compared}, ${first?.differingBytes} bytes differ and were left as they are${where}${busy}`,
      aborted: `${compared}, then an operator ended it`,
      failed: `${compared}, then it failed: ${reason}`,
    }[outcome]
    const severity =
      outcome === 'equal' ? 'info' : outcome === 'repaired' || outcome === 'aborted' ? 'warning' : 'error'
    health.say(severity, `VERIFY_${outcome.toUpperCase()}`, text)
  }
}
