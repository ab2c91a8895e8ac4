import assert from 'node:assert/strict'
import { StorageError } from '../block/storage-error.js'
import type { NativePool } from '../intercept/addon.js'
import { type LogSequence, logSequence } from './geometry.js'
import { parseRecords } from './log-record.js'
import type { PoolState } from './state.js'

/** How often an append looks for room in a full log, with a checkpoint in between. */
const attempts = 5

export interface PoolLogEvents {
  /** Records were applied. */
  onTaken(): void
  /** Records before this sequence are durable. */
  onDurable(sequence: LogSequence): void
  /** Take a checkpoint, so that the log has room again. */
  makeRoom(): Promise<void>
  /** The state can no longer be trusted, or the log not be written: for good. */
  onBroken(error: unknown): void
}

/** The mapping log of a running pool: what is appended, by whomever, is applied to the state in the order of the log. */
export class PoolLog {
  readonly #native: NativePool
  readonly #state: PoolState
  readonly #events: PoolLogEvents
  #broken: unknown

  constructor(native: NativePool, state: PoolState, events: PoolLogEvents) {
    this.#native = native
    this.#state = state
    this.#events = events
  }

  get isBroken(): boolean {
    return this.#broken !== undefined
  }

  /** Why nothing can be changed any more; empty while all is well. */
  get reason(): string {
    if (this.#broken === undefined) return ''
    return this.#broken instanceof Error ? this.#broken.message : String(this.#broken)
  }

  /** Records before it survive a power cut. */
  get durable(): LogSequence {
    return logSequence(Number(this.#native.committed()))
  }

  /** @throws StorageError POOL_FAILED */
  check(): void {
    if (this.#broken === undefined) return
    throw new StorageError('POOL_FAILED', {
      op: 'pool change',
      object: this.#state.catalog.name,
      cause: this.#broken,
      hint: 'Look at the devices of the pool and the kernel log (dmesg), then restart the agent: it recovers the pool.',
    })
  }

  /** Apply what was appended since the last call. Never throws: a state that cannot follow its log is given up. */
  take(): void {
    if (this.#broken !== undefined) return
    try {
      const records = parseRecords(this.#native.take())
      this.#state.apply(records)
      if (records.length > 0) this.#events.onTaken()
      // Not the COMMITs among the records: one that was taken may still be on its way to the disk.
      this.#events.onDurable(this.durable)
    } catch (error) {
      this.fail(error)
    }
  }

  /**
   * Append records and apply them, in one turn.
   * @throws StorageError LOG_FULL (nothing was appended), POOL_FAILED
   */
  append(records: readonly Buffer[]): void {
    this.check()
    this.#native.append(Buffer.concat(records))
    this.take()
    this.check()
  }

  /**
   * As append(), waiting for a checkpoint while the log is full.
   * @param make is called before each attempt: things may have changed since the last
   */
  async appendWhenRoom(make: () => readonly Buffer[]): Promise<void> {
    await this.whenRoom(() => {
      const records = make()
      if (records.length > 0) this.append(records)
    })
  }

  /** Do it, and again after a checkpoint while it fails with LOG_FULL. */
  async whenRoom<T>(step: () => T | Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await step()
      } catch (error) {
        if (attempt === attempts || !(error instanceof StorageError) || error.code !== 'LOG_FULL') throw error
        await this.#events.makeRoom()
      }
    }
  }

  /** Everything applied so far is durable when it resolves. @throws StorageError POOL_FAILED */
  async sync(): Promise<void> {
    this.check()
    const wanted = this.#state.sequence
    const covered = Number(await this.#native.sync())
    assert(covered >= wanted, 'a sync covers what was appended before it')
    this.take()
    this.check()
  }

  fail(error: unknown): void {
    if (this.#broken !== undefined) return
    this.#broken = error ?? new Error('unknown')
    this.#events.onBroken(error)
  }
}
