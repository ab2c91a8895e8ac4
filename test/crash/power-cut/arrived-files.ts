/** Of each epoch that comes in, its files, by part; and what came again and was not the same. */
export class ArrivedFiles {
  /** A number that was used for something else before, in words. */
  readonly reused: string[] = []
  readonly #epochs = new Map<string, { readonly partCount: number; readonly bytes: Map<number, Buffer> }>()

  add({ generation, epoch, part, partCount }: ArrivedPlace, bytes: Buffer): void {
    const key = `${generation}/${epoch}`
    const known = this.#epochs.get(key) ?? { partCount, bytes: new Map<number, Buffer>() }
    this.#epochs.set(key, known)
    if (known.partCount !== partCount)
      this.reused.push(`epoch ${epoch} of generation ${generation} had ${known.partCount} parts, and has ${partCount}`)
    if (known.bytes.get(part)?.equals(bytes) === false)
      this.reused.push(`epoch ${epoch} part ${part} of generation ${generation} came again with other content`)
    known.bytes.set(part, bytes)
  }

  /** Of a whole epoch, in order. */
  files(generation: number, epoch: number): Buffer[] | undefined {
    const known = this.#epochs.get(`${generation}/${epoch}`)
    if (!known || known.bytes.size < known.partCount) return undefined
    return [...known.bytes].sort(([a], [b]) => a - b).map(([, bytes]) => bytes)
  }

  /** As `generation/epoch`. */
  get epochs(): string[] {
    return [...this.#epochs.keys()]
  }
}

interface ArrivedPlace {
  readonly generation: number
  readonly epoch: number
  readonly part: number
  readonly partCount: number
}
