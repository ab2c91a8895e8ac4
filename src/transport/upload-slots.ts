/** An upload that waits longer for bytes than this may be thrown out by one that wants its place. */
const IDLE_MS = 3_000
/** How long a newcomer waits for the one before it to end. */
const WAIT_MS = 2_000
const POLL_MS = 50

interface Slot {
  progressAtMs: number
  readonly evict: () => void
}

/**
 * One writer for each partial file. After a cut the far side comes back before this side has noticed: an upload that
 * stands still gives way to the new one, one that makes progress does not.
 */
export class UploadSlots {
  readonly #slots = new Map<string, Slot>()

  /** Waits for the place; undefined when another upload keeps it. The one who has it calls `release` in the end. */
  async take(key: string, evict: () => void): Promise<{ progress(): void; release(): void } | undefined> {
    do {
      if (!(await this.settle(key))) return undefined
    } while (this.#slots.has(key))
    const slot: Slot = { progressAtMs: performance.now(), evict }
    this.#slots.set(key, slot)
    return {
      progress: () => {
        slot.progressAtMs = performance.now()
      },
      release: () => {
        if (this.#slots.get(key) === slot) this.#slots.delete(key)
      },
    }
  }

  /** True when nobody writes to it (any more); an idle writer is thrown out. */
  async settle(key: string): Promise<boolean> {
    for (let waited = 0; waited <= WAIT_MS; waited += POLL_MS) {
      const slot = this.#slots.get(key)
      if (!slot) return true
      if (performance.now() - slot.progressAtMs > IDLE_MS) slot.evict()
      await new Promise((resolve) => setTimeout(resolve, POLL_MS))
    }
    return !this.#slots.has(key)
  }
}
