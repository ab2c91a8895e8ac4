import type { Exclusive } from '../block/exclusive.js'
import { Pause } from '../block/pause.js'
import { StorageError } from '../block/storage-error.js'
import { childrenOf, garbageLayers } from './catalog.js'
import type { LayerId, LogSequence, UnitIndex } from './geometry.js'
import type { LayerLoader } from './layer-loader.js'
import { encodeOperation, encodeOwn, encodeRelease } from './log-record.js'
import type { PoolLog } from './pool-log.js'
import type { PoolState } from './state.js'

/** Units that change hands in one turn. */
const unitsAtOnce = 64

/** Before a turn that failed is tried again. */
const retryMs = 5_000

/** A layer that nobody names, and its only child; without one it is dropped. */
interface Step {
  readonly layer: LayerId
  readonly child: LayerId | undefined
}

/**
 * Gets rid of layers that no volume or snapshot names, in the background: the units of one without children are
 * released, those of one with a single child become the child's. What is left to do is seen from the catalog alone, so a
 * restart goes on with it.
 *
 * A unit changes hands only when the operation that made its layer garbage is durable: its blocks may then be written in
 * place, and after a power cut the layer could otherwise be a snapshot again.
 */
export class Merging {
  readonly #state: PoolState
  readonly #log: PoolLog
  readonly #loader: LayerLoader
  readonly #structure: Exclusive
  readonly #onDamage: (error: StorageError) => void
  /** Not to be merged: pages of the layer, or of its child, cannot be read. */
  readonly #stuck = new Set<LayerId>()
  #running: Promise<void> | undefined
  /** Of the last record that may have made garbage. */
  #since = -1
  readonly #stop = new AbortController()
  readonly #pause = new Pause()
  #background: string | null = null

  constructor(
    state: PoolState,
    log: PoolLog,
    loader: LayerLoader,
    structure: Exclusive,
    onDamage: (error: StorageError) => void,
  ) {
    this.#state = state
    this.#log = log
    this.#loader = loader
    this.#structure = structure
    this.#onDamage = onDamage
  }

  /** What goes on, for people. */
  get background(): string | null {
    return this.#background
  }

  /** There may be garbage. @param sequence of the record that made it, unless that is durable */
  look(sequence?: LogSequence): void {
    if (sequence !== undefined) this.#since = sequence
    if (this.#stop.signal.aborted) return
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined
      this.#background = null
      // Made while the last turn ended.
      if (!this.#stop.signal.aborted && !this.#log.isBroken && this.#next()) this.look()
    })
  }

  /** Resolves when nothing is left to do for now. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running
  }

  /** After the turn that is under way. */
  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#running
  }

  async #run(): Promise<void> {
    await undefined
    for (let step = this.#next(); step && !this.#stop.signal.aborted; step = this.#next()) {
      try {
        if (this.#log.durable <= this.#since) await this.#log.sync()
        if (step.child === undefined) await this.#drop(step.layer)
        else await this.#merge(step.layer, step.child)
      } catch (error) {
        if (!(error instanceof StorageError)) this.#log.fail(error)
        // A restart goes on.
        if (!(error instanceof StorageError) || this.#log.isBroken) return
        if (error.code === 'POOL_DAMAGED') {
          this.#stuck.add(step.layer)
          this.#onDamage(error)
        } else {
          await this.#pause.wait(retryMs, this.#stop.signal)
        }
      }
    }
  }

  /** Leaves first: what they leave makes the rest simpler. Then garbage over a child that stays. */
  #next(): Step | undefined {
    let merge: Step | undefined
    for (const layer of garbageLayers(this.#state.catalog)) {
      const children = childrenOf(this.#state.catalog, layer)
      if (children.length === 0) return { layer, child: undefined }
      // The newest garbage lies next to what stays.
      if (children.length === 1 && !this.#stuck.has(layer)) merge = { layer, child: children[0]! }
    }
    return merge
  }

  async #drop(layer: LayerId): Promise<void> {
    await this.#turns({ layer, child: undefined }, 'giving back', async (units) => {
      this.#log.append(units.map((index) => encodeRelease(this.#state.geometry.unitAt(index))))
    })
    await this.#finish(encodeOperation({ op: 'dropped', layer }))
  }

  async #merge(layer: LayerId, child: LayerId): Promise<void> {
    const need = this.#loader.need(() => [child])
    try {
      await this.#structure.run(() => this.#loader.loadLayer(child))
      await this.#turns({ layer, child }, 'merging', (units) => this.#own(layer, child, units))
      await this.#finish(encodeOperation({ op: 'merged', layer, child }))
    } finally {
      need.done()
    }
  }

  async #own(layer: LayerId, child: LayerId, units: readonly UnitIndex[]): Promise<void> {
    const { contents, geometry } = this.#state
    try {
      await this.#loader.readLayer(layer, units, (index, blocks) => contents.set(index, blocks))
      this.#log.append(units.map((index) => encodeOwn(geometry.unitAt(index), child)))
    } finally {
      for (const index of units) contents.delete(index)
    }
  }

  /** A few units a turn until the layer has none, or the step fits no more. */
  async #turns(step: Step, verb: string, turn: (units: readonly UnitIndex[]) => Promise<void>): Promise<void> {
    let left = this.#state.units.unitCount(step.layer)
    while (left > 0 && !this.#stop.signal.aborted) {
      this.#background = `${verb} ${left} units of what was removed`
      await this.#log.whenRoom(() =>
        this.#structure.run(async () => {
          const units = this.#state.units.unitsOf(step.layer, unitsAtOnce).sort((a, b) => a - b)
          if (units.length > 0 && !this.#stop.signal.aborted) await turn(units)
        }),
      )
      left = this.#state.units.unitCount(step.layer)
      await new Promise(setImmediate)
    }
  }

  async #finish(operation: Buffer): Promise<void> {
    if (this.#stop.signal.aborted) return
    await this.#log.whenRoom(() => this.#structure.run(async () => this.#log.append([operation])))
  }
}
