/** Names of one stream's folder that are remembered, so that each is told once. */
const rememberedLimit = 20_000
/** Told one by one; what comes after them in groups, so that a flood does not drive all else out of the log. */
const singleLimit = 100
/** Names in one event. */
const groupLimit = 100

/** What lies in the inbox and is no replication file: it is left alone, and named once. */
export class ForeignFiles {
  readonly #told = new Set<string>()
  #waiting: string[] = []
  #overflow = false

  has(name: string): boolean {
    return this.#told.has(name)
  }

  /** @returns what to say of it now, if anything */
  note(name: string, folder: string, why: string): string | undefined {
    if (this.#told.has(name)) return undefined
    if (this.#told.size >= rememberedLimit) {
      if (this.#overflow) return undefined
      this.#overflow = true
      return `${JSON.stringify(folder)} holds more than ${rememberedLimit} foreign files; the others are not named`
    }
    this.#told.add(name)
    if (this.#told.size <= singleLimit) return `${JSON.stringify(`${folder}/${name}`)} is left alone: ${why}`
    this.#waiting.push(name)
    return this.#waiting.length >= groupLimit ? this.flush(folder) : undefined
  }

  /** What is not told yet, as one event. */
  flush(folder: string): string | undefined {
    const names = this.#waiting
    this.#waiting = []
    if (names.length === 0) return undefined
    const list = names.map((name) => JSON.stringify(name)).join(', ')
    return `${names.length} more files in ${JSON.stringify(folder)} are left alone: they are no replication files, or no regular ones: ${list}`
  }
}
