/** Waits for conditions that are looked at after every announced change. */
export class Changes {
  readonly #checks = new Set<() => void>()

  announce(): void {
    for (const check of [...this.#checks]) check()
  }

  /** True once the condition holds, false when the time is over first; what the condition throws ends the wait. */
  until(condition: () => boolean, timeoutMs?: number): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const end = (settle: () => void): void => {
        clearTimeout(timer)
        this.#checks.delete(check)
        settle()
      }
      const check = (): void => {
        try {
          if (condition()) end(() => resolve(true))
        } catch (error) {
          end(() => reject(error))
        }
      }
      const timer = timeoutMs === undefined ? undefined : setTimeout(() => end(() => resolve(false)), timeoutMs)
      this.#checks.add(check)
      check()
    })
  }
}
