/** Runs one asynchronous action at a time, in the order they came; a failed one does not stop the next. */
export class Exclusive {
  #last: Promise<unknown> = Promise.resolve()

  run<T>(action: () => Promise<T>): Promise<T> {
    const result = this.#last.then(action, action)
    this.#last = result.catch(() => undefined)
    return result
  }
}
