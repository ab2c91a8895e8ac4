/** A heap of record indexes with the greatest, the newest, on top. */
export class NewestFirst {
  readonly #heap: Int32Array
  #size = 0

  constructor(capacity: number) {
    this.#heap = new Int32Array(capacity)
  }

  get size(): number {
    return this.#size
  }

  /** Undefined behaviour when empty: look at `size` first. */
  get newest(): number {
    return this.#heap[0]!
  }

  push(record: number): void {
    const heap = this.#heap
    let at = this.#size
    this.#size += 1
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (heap[parent]! >= record) break
      heap[at] = heap[parent]!
      at = parent
    }
    heap[at] = record
  }

  pop(): void {
    const heap = this.#heap
    this.#size -= 1
    const moved = heap[this.#size]!
    let at = 0
    while (true) {
      let child = 2 * at + 1
      if (child >= this.#size) break
      if (child + 1 < this.#size && heap[child + 1]! > heap[child]!) child += 1
      if (heap[child]! <= moved) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = moved
  }
}
