import assert from 'node:assert/strict'

/** Orders what happens: each issue and each acknowledgement takes the next tick. */
export class Clock {
  #now = 0
  readonly #held = new Set<number>()

  tick(): number {
    this.#now += 1
    return this.#now
  }

  /** A tick that somebody will look back to: what was possible since then is kept until release(). */
  hold(): number {
    const tick = this.tick()
    this.#held.add(tick)
    return tick
  }

  release(tick: number): void {
    this.#held.delete(tick)
  }

  /** Nobody is there any more who would look back. */
  releaseAll(): void {
    this.#held.clear()
  }

  get oldestHeld(): number {
    return Math.min(Number.POSITIVE_INFINITY, ...this.#held)
  }
}

/** One write (zeros and trims too), as far as it has come. */
export interface ModelWrite {
  /** Tick of its acknowledgement; Infinity while it is in flight, and for ever when it failed. */
  acked: number
}

interface Entry {
  readonly serial: number
  readonly write: ModelWrite
}

const settled: ModelWrite = { acked: 0 }

/**
 * What a volume or snapshot may read as: for each sector the serial number of the write it came from (stamps.ts).
 *
 * A sector that was written since the pool was last made durable, or by a write of which nobody knows how far it came,
 * has a history: entries in the order of issue, the first one durable. Writes that overlap are never in flight together, so
 * after a process crash a sector shows its last acknowledged entry or one behind it; after a power cut any entry.
 */
export class Content {
  #current: Uint32Array
  readonly #history = new Map<number, Entry[]>()

  constructor(sectors: number | Uint32Array) {
    this.#current = typeof sectors === 'number' ? new Uint32Array(sectors) : sectors
  }

  get sectors(): number {
    return this.#current.length
  }

  /** A write is issued: the nth of `count` sectors becomes `serialOf(n)`. The caller sets `acked` when it is. */
  issue(first: number, count: number, serialOf: (index: number) => number): ModelWrite {
    const write: ModelWrite = { acked: Number.POSITIVE_INFINITY }
    for (let index = 0; index < count; index++) {
      const sector = first + index
      const serial = serialOf(index)
      const entries = this.#history.get(sector)
      if (entries) entries.push({ serial, write })
      else
        this.#history.set(sector, [
          { serial: this.#current[sector]!, write: settled },
          { serial, write },
        ])
      this.#current[sector] = serial
    }
    return write
  }

  /** What the sector should read as, when nothing is uncertain. */
  newest(sector: number): number {
    return this.#current[sector]!
  }

  /** What it may read as from tick `since` on: acknowledged by then, or issued later and before now. */
  candidates(sector: number, since = Number.MAX_SAFE_INTEGER): number[] {
    const entries = this.#history.get(sector)
    if (!entries) return [this.#current[sector]!]
    return entries.slice(lastAcked(entries, since)).map(({ serial }) => serial)
  }

  /** What it may read as after a power cut. */
  survivors(sector: number): number[] {
    return this.#history.get(sector)?.map(({ serial }) => serial) ?? [this.#current[sector]!]
  }

  certain(sector: number): boolean {
    const entries = this.#history.get(sector)
    return !entries || lastAcked(entries, Number.MAX_SAFE_INTEGER) === entries.length - 1
  }

  /** It was read, with nothing in flight, as one of its candidates: so it stays. */
  observe(sector: number, serial: number, tick: number): void {
    const entries = this.#history.get(sector)
    if (!entries || this.certain(sector)) return
    entries.splice(lastAcked(entries, Number.MAX_SAFE_INTEGER) + 1)
    if (entries.at(-1)!.serial !== serial) entries.push({ serial, write: { acked: tick } })
    this.#current[sector] = serial
  }

  /** It was read after a crash: there is no other state any more. */
  settle(sector: number, serial: number): void {
    this.#history.delete(sector)
    this.#current[sector] = serial
  }

  /** Everything acknowledged by tick `since` is durable. */
  commit(since: number): void {
    for (const [sector, entries] of this.#history) {
      entries.splice(0, lastAcked(entries, since))
      if (entries.length === 1) this.#history.delete(sector)
    }
  }

  /** Sectors beyond the end are gone; new ones read as zeros. */
  resize(sectors: number): void {
    const resized = new Uint32Array(sectors)
    resized.set(this.#current.subarray(0, sectors))
    this.#current = resized
    for (const sector of this.#history.keys()) if (sector >= sectors) this.#history.delete(sector)
  }

  /** A frozen copy of what it was at some moment from tick `since` to now. */
  freeze(since: number): Content {
    const copy = new Content(this.#current.slice())
    for (const [sector, entries] of this.#history) {
      const possible = entries.slice(lastAcked(entries, since))
      if (possible.length > 1) {
        // Which of them it is will be seen: none is acknowledged but the first.
        const unknown: ModelWrite = { acked: Number.POSITIVE_INFINITY }
        copy.#history.set(
          sector,
          possible.map(({ serial }, index) => ({ serial, write: index === 0 ? settled : unknown })),
        )
      }
      copy.#current[sector] = possible.at(-1)!.serial
    }
    return copy
  }

  /** Indices of the blocks that hold anything but zeros for certain. */
  blocksWithData(blockSectors: number): number[] {
    const blocks: number[] = []
    for (let block = 0; block * blockSectors < this.sectors; block++) {
      const end = Math.min(this.sectors, (block + 1) * blockSectors)
      for (let sector = block * blockSectors; sector < end; sector++) {
        if (this.#current[sector] !== 0 && this.certain(sector)) {
          blocks.push(block)
          break
        }
      }
    }
    return blocks
  }
}

/** The last entry acknowledged by a tick. The first one always was: it is what there was before. */
function lastAcked(entries: readonly Entry[], since: number): number {
  for (let index = entries.length - 1; index > 0; index--) if (entries[index]!.write.acked <= since) return index
  assert(entries.length > 0)
  return 0
}
