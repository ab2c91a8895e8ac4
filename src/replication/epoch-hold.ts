import { StorageError } from '../block/storage-error.js'
import type { Lsn } from '../block/units.js'
import { latest } from './epoch-cutter.js'
import type { StreamState } from './stream-state.js'

/** After a restart whoever held the epoch must hold it again within so long. */
const adoptMs = 60_000

/**
 * Makes what is written between two moments appear at the far side at once. The epochs in between are cut by size alone
 * and marked as no states of the source, so the destination applies them together with the one after the last moment.
 *
 * The hold is recorded before the first such write: after a crash no half of it is shown, for whoever wrote does it again.
 */
export class EpochHold {
  readonly #state: StreamState
  readonly #sync: () => Promise<Lsn | undefined>
  #count = 0
  #adoption: NodeJS.Timeout | undefined

  /** @param sync makes what was journaled so far durable and tells its end; undefined while nothing is journaled */
  constructor(state: StreamState, sync: () => Promise<Lsn | undefined>) {
    this.#state = state
    this.#sync = sync
  }

  /** Somebody holds it in this life of the agent. */
  get active(): boolean {
    return this.#count > 0
  }

  async begin(): Promise<void> {
    this.#count += 1
    clearTimeout(this.#adoption)
    try {
      if (this.#state.position.phase === 'running') await this.#state.move({ held: true })
    } catch (error) {
      this.#count -= 1
      throw error
    }
  }

  async end(): Promise<void> {
    this.#count -= 1
    if (this.#count === 0) await this.#release()
  }

  /** The stream runs again: a hold of an earlier life ends unless it is taken up. */
  resume(): void {
    clearTimeout(this.#adoption)
    if (!this.#state.position.held || this.active) return
    this.#adoption = setTimeout(() => {
      if (!this.active) this.#release().catch(() => this.resume())
    }, adoptMs).unref()
  }

  stop(): void {
    clearTimeout(this.#adoption)
  }

  /** While nothing is journaled it stays recorded: the next life knows where the journal ends. */
  async #release(): Promise<void> {
    if (!this.#state.position.held) return
    const end = await this.#sync().catch(unlessEnded)
    if (end !== undefined) {
      await this.#state.move(({ copyEndLsn }) => ({ held: false, copyEndLsn: latest(copyEndLsn, end) }))
    }
  }
}

function unlessEnded(error: unknown): undefined {
  if (!(error instanceof StorageError)) throw error
}
