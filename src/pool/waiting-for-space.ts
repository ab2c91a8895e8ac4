import type { Fault } from '../intercept/addon.js'

/** Faults of one volume that wait at once; those beyond are refused. */
const waitingLimit = 65_536
/** Deadlines are looked at so often while something waits. */
const stepMs = 250

interface Waiting {
  readonly fault: Fault
  readonly deadlineMs: number
}

/** Write faults that no slot could be found for: each is refused when its time is over. */
export class WaitingForSpace {
  readonly #waitMs: number
  readonly #refuse: (blocks: readonly number[]) => void
  /** In the order of their deadlines. */
  readonly #waiting = new Map<number, Waiting>()
  /** A block that is asked again while it is being placed keeps its deadline. */
  #retried = new Map<number, number>()
  #timer: NodeJS.Timeout | undefined

  constructor(waitMs: number, refuse: (blocks: readonly number[]) => void) {
    this.#waitMs = waitMs
    this.#refuse = refuse
  }

  get size(): number {
    return this.#waiting.size
  }

  add(faults: readonly Fault[]): void {
    const now = performance.now()
    const refused: number[] = []
    for (const fault of faults) {
      const deadlineMs =
        this.#waiting.get(fault.block)?.deadlineMs ?? this.#retried.get(fault.block) ?? now + this.#waitMs
      if (deadlineMs <= now || (this.#waiting.size >= waitingLimit && !this.#waiting.has(fault.block))) {
        this.#waiting.delete(fault.block)
        refused.push(fault.block)
      } else {
        this.#waiting.set(fault.block, { fault, deadlineMs })
      }
    }
    this.#retried.clear()
    if (refused.length > 0) this.#refuse(refused)
    this.#arm()
  }

  /** All of them, to be tried again; those that still find no room come back with add() at once. */
  takeAll(): Fault[] {
    const faults = [...this.#waiting.values()].map(({ fault }) => fault)
    this.#retried = new Map([...this.#waiting].map(([block, { deadlineMs }]) => [block, deadlineMs]))
    this.#waiting.clear()
    return faults
  }

  #arm(): void {
    if (this.#timer !== undefined || this.#waiting.size === 0) return
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined
        this.#refuseLate()
        this.#arm()
      },
      Math.min(stepMs, this.#waitMs),
    )
    this.#timer.unref()
  }

  #refuseLate(): void {
    const now = performance.now()
    const late: number[] = []
    for (const [block, { deadlineMs }] of this.#waiting) {
      if (deadlineMs > now) continue
      this.#waiting.delete(block)
      late.push(block)
    }
    if (late.length > 0) this.#refuse(late)
  }
}
