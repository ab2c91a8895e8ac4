import { constants } from 'node:os'
import { type Fault, leafBlocks, type NativeVolume } from '../intercept/addon.js'
import { ChainView } from './chain-view.js'
import type { BlockIndex, LayerId, Location } from './geometry.js'
import type { LayerSlots, Slots } from './slots.js'
import type { PoolState } from './state.js'
import { WaitingForSpace } from './waiting-for-space.js'
import { WriteFaults } from './write-faults.js'

export interface ThinVolumeContext {
  readonly state: PoolState
  readonly slots: Slots
  readonly waitForSpaceMs: number
  /** Apply what native has appended: an answer must not be older than what is asked. */
  readonly take: () => void
  /** A fault waits for room. */
  readonly onNoSpace: () => void
  /** The pool failed: faults are refused. */
  readonly isBroken: () => boolean
  readonly onBroken: (error: unknown) => void
}

/**
 * One open volume or snapshot: answers the faults of its native side.
 *
 * Order: a batch of faults is handed over, then take(), then the answer. With take() first, what native appended in between
 * would be missing from the answer, and a block that just moved be answered with its old place.
 */
export class ThinVolume {
  readonly #context: ThinVolumeContext
  readonly #top: () => LayerId
  readonly #waiting: WaitingForSpace
  #native: NativeVolume | undefined
  #writes: WriteFaults | undefined
  #layer: LayerId | undefined
  /** Faults that came during a freeze: what is answered then would show the wrong layer. */
  #held: Fault[] | undefined
  #closed = false

  /** @param top the layer to show, as the catalog has it now */
  constructor(context: ThinVolumeContext, top: () => LayerId) {
    this.#context = context
    this.#top = top
    this.#waiting = new WaitingForSpace(context.waitForSpaceMs, (blocks) =>
      this.#refuse(blocks, constants.errno.ENOSPC),
    )
  }

  /** The layer it is written in; undefined: it is only read. */
  get layer(): LayerId | undefined {
    return this.#layer
  }

  get top(): LayerId {
    return this.#top()
  }

  get waitsForSpace(): boolean {
    return this.#waiting.size > 0
  }

  /** It is written: these are the slots of its top layer. */
  admitWrites(layer: LayerId, slots: LayerSlots): void {
    this.#layer = layer
    this.#writes = new WriteFaults(this.#context.state.geometry, this.#context.slots.space, slots)
  }

  connect(native: NativeVolume): void {
    this.#native = native
  }

  readonly onFaults = (faults: readonly Fault[]): void => {
    if (this.#closed) return
    if (this.#held) this.#held.push(...faults)
    else this.#answer(faults)
  }

  published(layer: LayerId, block: BlockIndex, location: Location): void {
    if (layer === this.#layer) this.#writes?.published(block, location)
  }

  /** There is room again. */
  retry(): void {
    if (this.#held || this.#closed || this.#waiting.size === 0) return
    this.#answer(this.#waiting.takeAll())
  }

  /**
   * Put a new layer on top: `operation` says so in the log. Hosts wait for what is in flight, no longer.
   *
   * @throws StorageError POOL_FAILED, LOG_FULL: nothing has changed
   */
  async freeze(native: NativeVolume, layer: LayerId, operation: Buffer): Promise<void> {
    this.#held = [...this.#waiting.takeAll()]
    try {
      const { dropped } = await native.freeze(layer, operation)
      // What was published under the old layer, and the operation itself.
      this.#context.take()
      this.#writes?.dropped(dropped)
      if (this.#layer !== undefined) this.#context.slots.closeLayer(this.#layer)
      this.#layer = layer
      this.#writes?.changeLayer(this.#context.slots.openLayer(layer))
    } finally {
      const held = this.#held
      this.#held = undefined
      if (held.length > 0 && !this.#closed) this.#answer(held)
    }
  }

  /** The view of what it shows now. */
  view(): ChainView {
    return new ChainView(this.#context.state, this.#top())
  }

  /** Native is closed: nothing is asked or published any more. */
  close(): void {
    this.#closed = true
    this.#waiting.takeAll()
    this.#writes?.dropAll()
    if (this.#layer !== undefined) this.#context.slots.closeLayer(this.#layer)
    this.#layer = undefined
  }

  #answer(faults: readonly Fault[]): void {
    try {
      this.#context.take()
      if (!this.#context.isBroken()) {
        this.#answerNow(faults)
        return
      }
    } catch (error) {
      this.#context.onBroken(error)
    }
    this.#refuse(
      faults.map((fault) => fault.block),
      constants.errno.EIO,
    )
  }

  #answerNow(faults: readonly Fault[]): void {
    const view = this.view()
    const writes: Fault[] = []
    for (const fault of faults) {
      if (fault.kind === 'write') writes.push(fault)
      else this.#loadLeaf(view, fault.block)
    }
    if (writes.length === 0) return
    if (!this.#writes) {
      // Nobody writes to what is only read; who does is told so.
      this.#refuse(
        writes.map((fault) => fault.block),
        constants.errno.EROFS,
      )
      return
    }
    const { grants, unplaced } = this.#writes.plan(view, writes)
    if (grants.length > 0) this.#native?.grant(grants)
    if (unplaced.length === 0) return
    this.#waiting.add(unplaced)
    this.#context.onNoSpace()
  }

  #loadLeaf(view: ChainView, block: number): void {
    const leaf = Math.floor(block / leafBlocks)
    this.#native?.loadLeaf(leaf, view.leaf(leaf))
  }

  #refuse(blocks: readonly number[], errno: number): void {
    if (blocks.length > 0) this.#native?.refuse(blocks, errno)
  }
}
