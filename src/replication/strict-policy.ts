import type { Changes } from '../block/changes.js'
import type { JournalEvent } from '../intercept/addon.js'
import type { RunningStream } from './running-stream.js'
import type { StreamHealth } from './stream-health.js'
import type { StreamPolicy } from './stream-state.js'

const pollMs = 100
/** A wait that is over sooner is no event. */
const eventMs = 1000

export interface StrictOptions {
  /** As it is now: an operator may change it at any time. */
  readonly policy: () => StreamPolicy
  readonly health: StreamHealth
  readonly changes: Changes
}

/** A journal that takes no more writes. */
interface StoppedJournal {
  readonly reason: string
  /** Try to make room; undefined: it never will have any. */
  readonly makeRoom: (() => Promise<boolean>) | undefined
  /** Whether hosts that wait get an error at once. */
  refuse(refused: boolean): void
  /** It is not the stream's journal any more, or the stream ends, or somebody else has taken this over. */
  readonly isOver: () => boolean
}

/** What is done when the journal of a stream is full or has failed and hosts wait. */
export class JournalAnswers {
  readonly #options: StrictOptions
  #failed: RunningStream | undefined
  /** Hosts are held for want of room in this one's journal: what it raises meanwhile comes again when that ends. */
  #holding: RunningStream | undefined
  /** Hosts go on without this one's journal: that is said once. */
  #givenUp: RunningStream | undefined

  constructor(options: StrictOptions) {
    this.#options = options
  }

  /**
   * @param isOver it is not the stream's journal any more
   * @returns why hosts shall go on without it; undefined: they go on with it, or somebody else has seen to it
   */
  async answer(event: JournalEvent, running: RunningStream, isOver: () => boolean): Promise<string | undefined> {
    if (this.#givenUp === running) return undefined
    const reason = await this.#decide(event, running, isOver)
    if (reason === undefined || this.#givenUp === running) return undefined
    this.#givenUp = running
    return reason
  }

  async #decide(event: JournalEvent, running: RunningStream, isOver: () => boolean): Promise<string | undefined> {
    const { checkpoints, stop, journal } = running
    const { policy, health } = this.#options
    const isStrict = (): boolean => policy().kind === 'strict'
    const refuse = (refused: boolean): void => journal.native.refuse(refused)
    const ended = (): boolean => isOver() || stop.signal.aborted
    if (event.kind === 'failed') {
      this.#failed = running
      const reason = `The journal failed: ${event.message}.`
      const stopped = { reason, makeRoom: undefined, refuse, isOver: ended }
      return isStrict() && (await holdHosts(stopped, this.#options)) ? undefined : reason
    }
    if (this.#holding === running) return undefined
    const since = journal.trimmedSegments
    const makeRoom = (mayHelp: () => boolean): Promise<boolean> =>
      checkpoints.makeRoom(mayHelp, since).catch(() => false)
    const cutting = (): boolean => !ended() && !health.bufferFull && !health.trouble && !isStrict()
    if (await makeRoom(cutting)) return undefined
    const reason = 'The journal was at its limit, and epochs not cut fast enough.'
    if (!isStrict()) return reason
    const gone = (): boolean => ended() || this.#failed === running
    const stopped = { reason, makeRoom: () => makeRoom(() => false), refuse, isOver: gone }
    this.#holding = running
    try {
      return (await holdHosts(stopped, this.#options)) ? undefined : reason
    } finally {
      this.#holding = undefined
    }
  }

  /**
   * The journal is about to be given up. Only when what it has promised is on the backings: else hosts get errors until the next
   * start of the agent has replayed it.
   * @param onBackings rejects when a backing cannot be synced
   */
  async mayGiveUp({ journal, stop }: RunningStream, onBackings: Promise<void>): Promise<boolean> {
    const { health, changes } = this.#options
    const error = await onBackings.then(
      () => undefined,
      (cause: unknown) => cause,
    )
    if (error === undefined) return true
    // A stream that ends closes its journal, and keeps what is in it.
    if (stop.signal.aborted) return false
    journal.native.refuse(true)
    health.noteRefused(error)
    changes.announce()
    return false
  }
}

/**
 * Under the policy `strict` no write is acknowledged that the journal does not hold. Hosts wait while there may be room
 * soon; after a set time they get an error, until there is. Whoever writes then finds it taken.
 *
 * Ends with true when the journal takes writes again (or is none of ours any more), with false as soon as the policy is
 * `degrade`: then hosts go on without it.
 */
async function holdHosts(journal: StoppedJournal, { policy, health, changes }: StrictOptions): Promise<boolean> {
  const sinceMs = performance.now()
  let refused = false
  let waitSaid = false
  const say = (what: string): void => {
    health.blocked = `${journal.reason} ${what}`
    changes.announce()
  }
  const end = (outcome: boolean): boolean => {
    health.blocked = undefined
    if (!journal.isOver()) journal.refuse(false)
    changes.announce()
    return outcome
  }
  for (;;) {
    const { kind, waitMs } = policy()
    if (journal.isOver()) return end(true)
    if (kind !== 'strict') return end(false)
    if (await journal.makeRoom?.()) {
      if (waitSaid || refused) health.say('info', 'HOSTS_GO_ON', 'the journal takes writes again')
      return end(true)
    }
    const passedMs = performance.now() - sinceMs
    const over = journal.makeRoom === undefined || passedMs >= waitMs
    if (over && !refused && !journal.isOver()) {
      refused = true
      journal.refuse(true)
      say('Host writes fail (policy strict).')
      health.say('error', 'HOSTS_REFUSED', `${health.blocked} To let them go on: tidemark stream set --policy degrade`)
    } else if (!refused) {
      if (health.blocked === undefined) say('Host writes wait (policy strict).')
    }
    if (!refused && !waitSaid && passedMs >= eventMs) {
      waitSaid = true
      health.say('warning', 'HOSTS_WAIT', `${health.blocked} After ${waitMs / 1000} s they fail.`)
    }
    await new Promise((resolve) => setTimeout(resolve, pollMs))
  }
}
