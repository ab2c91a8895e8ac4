import { randomBytes } from 'node:crypto'
import type { ReportEvent } from '../block/event-log.js'
import type { StateStore } from '../block/state-store.js'
import { StorageError } from '../block/storage-error.js'
import type { ThinPool, ThinVolumeFacts } from '../pool/thin-pool.js'

/** What an agent remembers of pools by their ids: also of one that it does not have now. */
export class KnownPools {
  readonly #store: StateStore
  readonly #report: ReportEvent

  constructor(store: StateStore, report: ReportEvent) {
    this.#store = store
    this.#report = report
  }

  hasFailed(id: string): boolean {
    return this.#store.get(failedKey(id)) !== undefined
  }

  noteFailed(id: string): void {
    const unrecorded = (error: unknown): void => {
      const text = error instanceof StorageError ? `${error.message}. ${error.hint}` : String(error)
      this.#report({ severity: 'error', code: 'STATE_UNAVAILABLE', object: id, text })
    }
    this.#store.put({ [failedKey(id)]: true }).catch(unrecorded)
  }

  /** All that counts is in a checkpoint. */
  opened(id: string): Promise<void> {
    return this.#store.remove([failedKey(id)])
  }

  /**
   * Whoever did not have the pool last makes it its own before anybody writes to it. Recorded here after that: an agent that
   * dies in between does not know the token, and makes another.
   * @param recorded it was this agent's before; one from before there were tokens has none
   * @returns what it may lack, in words; empty: nothing
   */
  async hold(pool: ThinPool, recorded: boolean): Promise<string> {
    const { id, name } = pool
    const known = this.#heldAs(id)
    const heldAs = known === undefined && recorded ? null : known
    if (pool.holder === heldAs) return ''
    const inStreams = pool.afterCrash ? pool.volumes().filter(({ stream }) => stream !== null) : []
    const holder = randomBytes(16).toString('hex')
    await pool.hold(holder)
    await this.#store.put({ [heldKey(id)]: holder })
    const warn = (code: string, text: string): void => this.#report({ severity: 'warning', code, object: name, text })
    if (heldAs !== undefined) {
      const text = 'Another agent has had it since: streams that recorded its volumes here before are diverged.'
      warn('POOL_WAS_ELSEWHERE', text)
    }
    if (inStreams.length === 0) return ''
    const lacking = lackingText(inStreams)
    warn('POOL_LACKS_WRITES', lacking)
    return lacking
  }

  /** This agent does not have it any more, but streams may wait for its volumes. */
  keepHolder(id: string): Promise<void> {
    return this.#store.put({ [heldKey(id)]: this.#heldAs(id) ?? null })
  }

  forget(id: string): Promise<void> {
    return this.#store.remove([heldKey(id)])
  }

  /** undefined: it was not this agent's, or nobody had made a token of it. */
  #heldAs(id: string): string | null | undefined {
    return this.#store.get<string | null>(heldKey(id))
  }
}

const namesShown = 5

function lackingText(volumes: readonly ThinVolumeFacts[]): string {
  const shown = volumes.slice(0, namesShown).map(({ name, stream }) => `${name} (stream ${stream})`)
  const more = volumes.length > namesShown ? ` and ${volumes.length - namesShown} more` : ''
  return `It was not closed, and a journal of the agent that had it answered flushes of ${shown.join(', ')}${more}: of these volumes flushed writes may be missing, and others of the same time be there. Check their file systems, or go on with the copies at the far side.`
}

function failedKey(id: string): string {
  return `failed-pool/${id}`
}

function heldKey(id: string): string {
  return `held-pool/${id}`
}
