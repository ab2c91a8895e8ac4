import type { ThinPool } from '../pool/thin-pool.js'
import type { FrontEndOptions } from './front-end.js'
import { ThinSnapshot } from './thin-snapshot.js'
import { ThinVolume, thinName } from './thin-volume.js'

/**
 * The volumes and snapshots of open pools, each as one object: whoever attaches, records, copies or destages one has
 * the same. Names are unique in the agent, whichever pool they are in.
 */
export class ThinVolumes {
  readonly #options: FrontEndOptions
  readonly #volumes = new Map<string, ThinVolume>()

  constructor(options: FrontEndOptions) {
    this.#options = options
  }

  /** Whether the pool has it is seen when it is opened. */
  get(pool: ThinPool, volume: string, snapshot: string | null = null): ThinVolume {
    const name = thinName(volume, snapshot)
    const known = this.#volumes.get(name)
    if (known?.pool === pool) return known
    const made =
      snapshot === null
        ? new ThinVolume(pool, volume, null, this.#options)
        : new ThinSnapshot(pool, volume, snapshot, this.#options)
    this.#volumes.set(name, made)
    return made
  }

  /** Those that anybody has asked for since they were forgotten last. */
  known(): ThinVolume[] {
    return [...this.#volumes.values()]
  }

  /** It was removed, or got another name. */
  forget(volume: string, snapshot: string | null = null): void {
    this.#volumes.delete(thinName(volume, snapshot))
  }

  /** The pool is closed. */
  forgetPool(pool: ThinPool): void {
    for (const [name, volume] of this.#volumes) if (volume.pool === pool) this.#volumes.delete(name)
  }
}
