/** A wait that ends early when it is woken or the signal aborts; never rejects. */
export class Pause {
  #wake: (() => void) | undefined
  #woken = false

  /** End the wait that is under way, or make the next one end at once. */
  wake(): void {
    this.#woken = true
    this.#wake?.()
  }

  async wait(milliseconds: number, signal: AbortSignal): Promise<void> {
    if (!this.#woken && !signal.aborted) {
      await new Promise<void>((resolve) => {
        const end = (): void => {
          clearTimeout(timer)
          signal.removeEventListener('abort', end)
          this.#wake = undefined
          resolve()
        }
        const timer = setTimeout(end, milliseconds)
        this.#wake = end
        signal.addEventListener('abort', end, { once: true })
      })
    }
    this.#woken = false
  }
}
