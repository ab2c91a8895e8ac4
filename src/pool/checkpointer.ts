import { Exclusive } from '../block/exclusive.js'
import type { NativePool } from '../intercept/addon.js'
import type { Catalog } from './catalog.js'
import { hasRoomForHoles } from './catalog-room.js'
import type { LayerId } from './geometry.js'
import type { LayerLoader } from './layer-loader.js'
import type { HoleExtents, MetadataStore } from './metadata-store.js'
import type { PoolLog } from './pool-log.js'
import type { PoolState } from './state.js'

export interface CheckpointKind {
  /** The pool is closed with it. */
  readonly clean?: boolean
  /** Write both trees. */
  readonly twice?: boolean
}

/**
 * Brings what the log says into the pages, so that the log has room again.
 *
 * 1. The state is taken as it is: what changes later belongs to the next checkpoint.
 * 2. The pool is synced. Pages may only say what is durable: with 1 after 2 they could name a block whose data a power
 *    cut took away, or be ahead of the last COMMIT.
 * 3. The store writes and syncs.
 * 4. The log before the older of the two trees is given up.
 */
export class Checkpointer {
  readonly #native: NativePool
  readonly #store: MetadataStore
  readonly #state: PoolState
  readonly #log: PoolLog
  readonly #loader: LayerLoader
  readonly #onHoles: (haveRoom: boolean) => void
  readonly #exclusive = new Exclusive()
  /** Has not begun yet: whoever asks meanwhile is served by it. */
  #next: Promise<void> | undefined

  /** @param onHoles told at each checkpoint whether there is room for more holes */
  constructor(
    native: NativePool,
    store: MetadataStore,
    state: PoolState,
    log: PoolLog,
    loader: LayerLoader,
    onHoles: (haveRoom: boolean) => void,
  ) {
    this.#native = native
    this.#store = store
    this.#state = state
    this.#log = log
    this.#loader = loader
    this.#onHoles = onHoles
  }

  /** Everything applied when it is called is in the pages when it resolves. @throws StorageError: the pool has failed */
  run(): Promise<void> {
    this.#next ??= this.#exclusive.run(() => {
      this.#next = undefined
      return this.#write({})
    })
    return this.#next
  }

  /** As run(), of this kind. */
  runAs(kind: CheckpointKind): Promise<void> {
    return this.#exclusive.run(() => this.#write(kind))
  }

  /** While no checkpoint is written. */
  between<T>(step: () => Promise<T>): Promise<T> {
    return this.#exclusive.run(step)
  }

  async #write({ clean = false, twice = false }: CheckpointKind): Promise<void> {
    this.#log.take()
    this.#log.check()
    const { sequence, catalog, geometry } = this.#state
    const holes = this.#holes()
    this.#onHoles(hasRoomForHoles(catalog, holes, geometry))
    const content = {
      catalog: copyOf(catalog),
      holes,
      logSequence: sequence,
      clean,
      twice,
    }
    const changes = this.#state.freezeChanges()
    try {
      await this.#log.sync()
      // Pages that are being read now may be the copies that are written next.
      await this.#loader.readsDone()
      const { keepFrom } = await this.#store.checkpoint({ ...content, changes: changes.list() })
      this.#state.changesWritten()
      this.#native.trim(BigInt(keepFrom))
    } catch (error) {
      this.#state.changesNotWritten()
      this.#log.fail(error)
      throw error
    }
  }

  #holes(): Map<LayerId, HoleExtents> {
    const holes = new Map<LayerId, HoleExtents>()
    for (const [layer, set] of this.#state.holes) if (set.extentCount > 0) holes.set(layer, set.toExtents())
    return holes
  }
}

/** Entries are replaced, never changed. */
function copyOf(catalog: Catalog): Catalog {
  return {
    ...catalog,
    devices: [...catalog.devices],
    layers: new Map(catalog.layers),
    volumes: new Map(catalog.volumes),
  }
}
