import type { NativePool } from '../intercept/addon.js'
import type { SlotRun } from './freed-slots.js'
import type { Geometry, LogSequence } from './geometry.js'
import type { Slots } from './slots.js'

/** Runs of slots in one call to native code. */
const runsAtOnce = 1024
/** Freed slots wait so long for a host's flush before a sync is made for them. */
const syncAfterMs = 5_000
/** Free units that are trimmed in one step of a sweep. */
const sweepUnits = 256

export interface ReclaimEvents {
  sync(): Promise<void>
  /** Slots can be given out that could not before. */
  onSpace(): void
  /** A trim failed; the space is used all the same. */
  onTrimFailed(error: unknown): void
  /** What is known about slots does not fit together. */
  onBroken(error: unknown): void
}

/** Takes freed slots through their steps (freed-slots.ts): waits until they are durable, trims them, frees them. */
export class Reclaim {
  readonly #native: NativePool
  readonly #geometry: Geometry
  readonly #slots: Slots
  readonly #events: ReclaimEvents
  #trimming: Promise<void> | undefined
  #syncing: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #stopped = false
  #sweeping = true

  constructor(native: NativePool, geometry: Geometry, slots: Slots, events: ReclaimEvents) {
    this.#native = native
    this.#geometry = geometry
    this.#slots = slots
    this.#events = events
  }

  /** Slots were freed, or given back. */
  look(): void {
    if (this.#stopped) return
    if (this.#slots.freed.isReady) this.#trim()
    if (!this.#slots.freed.isWaiting || this.#timer !== undefined) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      void this.hurry()
    }, syncAfterMs)
    this.#timer.unref()
  }

  durable(sequence: LogSequence): void {
    if (!this.#slots.freed.isWaiting) return
    this.#slots.freed.commit(sequence)
    this.look()
  }

  /** Somebody needs space: do not wait for a host's flush. Never rejects. */
  hurry(): Promise<void> {
    if (!this.#slots.freed.isWaiting || this.#stopped) return Promise.resolve()
    this.#syncing ??= this.#events
      .sync()
      .catch(() => undefined)
      .finally(() => {
        this.#syncing = undefined
        this.look()
      })
    return this.#syncing
  }

  /** Everything that was freed so far can be given out, or the pool failed. */
  async settle(): Promise<void> {
    await this.hurry()
    while (this.#trimming !== undefined) await this.#trimming
  }

  /**
   * Trim the free units of devices that then read as zeros for certain: so fresh blocks need not be filled with zeros, and
   * what a crash left there is given back. Never more than a quarter of what is free is away meanwhile.
   */
  async sweep(deviceIsSwept: (device: number) => boolean): Promise<void> {
    for (const { index: device, unitCount } of this.#geometry.devices) {
      if (!deviceIsSwept(device)) continue
      const first = this.#geometry.baseOf(device)
      for (let from: number = first; from < first + unitCount && this.#sweeping; ) {
        const limit = Math.min(sweepUnits, Math.floor(this.#slots.space.freeUnits / 4), first + unitCount - from)
        const claimed = limit > 0 ? this.#slots.space.takeUncertain(from, limit, first + unitCount) : []
        if (claimed.length === 0) break
        for (const index of claimed) this.#slots.addClaimed(index)
        from = claimed.at(-1)! + 1
        this.look()
        while (this.#trimming !== undefined) await this.#trimming
        await new Promise(setImmediate)
      }
    }
  }

  /** After the step that is under way. */
  stopSweep(): void {
    this.#sweeping = false
  }

  stop(): void {
    this.#stopped = true
    this.#sweeping = false
    clearTimeout(this.#timer)
  }

  #trim(): void {
    this.#trimming ??= this.#trimAll()
      .catch((error) => this.#events.onBroken(error))
      .finally(() => {
        this.#trimming = undefined
      })
  }

  async #trimAll(): Promise<void> {
    // What is freed in the same turn is trimmed together.
    await undefined
    for (;;) {
      const runs = this.#slots.freed.takeReady(runsAtOnce)
      if (runs.length === 0) return
      for (const onDevice of this.#byDevice(runs)) {
        let zeros = false
        try {
          zeros = await this.#native.discard(coalesce(onDevice))
        } catch (error) {
          this.#events.onTrimFailed(error)
        }
        for (const run of onDevice) this.#slots.settle(run, zeros)
        this.#events.onSpace()
      }
    }
  }

  #byDevice(runs: readonly SlotRun[]): SlotRun[][] {
    const groups = new Map<number, SlotRun[]>()
    for (const run of runs) {
      const device = this.#geometry.deviceOf(this.#geometry.unitOf(run.location))
      const group = groups.get(device)
      if (group) group.push(run)
      else groups.set(device, [run])
    }
    return [...groups.values()]
  }
}

/** In order, neighbours as one. */
function coalesce(runs: readonly SlotRun[]): { location: number; count: number }[] {
  const ranges: { location: number; count: number }[] = []
  for (const { location, count } of runs) {
    const last = ranges.at(-1)
    const end = last ? last.location + last.count : -1
    if (last && end >= location) last.count = Math.max(last.count, location + count - last.location)
    else ranges.push({ location, count })
  }
  return ranges
}
