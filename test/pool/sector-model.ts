import assert from 'node:assert/strict'

export const sectorBytes = 512

/**
 * What a volume may hold: for each sector the number of the write it shows, 0 for zeros, and beside it the older ones
 * that a power cut may bring back.
 */
export class SectorModel {
  #now: Uint32Array
  /** Sectors that were written since the last sync, with what they may be instead. */
  readonly #older = new Map<number, Set<number>>()

  constructor(sizeBytes: number) {
    this.#now = new Uint32Array(sizeBytes / sectorBytes)
  }

  get sizeBytes(): number {
    return this.#now.length * sectorBytes
  }

  /** The write is done: nobody sees anything else any more, unless the power goes. */
  write(offset: number, lengthBytes: number, stamp: number): void {
    for (let at = offset / sectorBytes; at < (offset + lengthBytes) / sectorBytes; at += 1) {
      const older = this.#older.get(at) ?? new Set()
      older.add(this.#now[at]!)
      this.#older.set(at, older)
      this.#now[at] = stamp
    }
  }

  /** The write may have happened in part: each sector is old or new. */
  maybe(offset: number, lengthBytes: number, stamp: number): void {
    for (let at = offset / sectorBytes; at < (offset + lengthBytes) / sectorBytes; at += 1) {
      const older = this.#older.get(at) ?? new Set()
      older.add(stamp)
      this.#older.set(at, older)
    }
  }

  /** Everything written so far is durable. */
  synced(): void {
    this.#older.clear()
  }

  copy(): SectorModel {
    const copy = new SectorModel(0)
    copy.#now = this.#now.slice()
    for (const [at, older] of this.#older) copy.#older.set(at, new Set(older))
    return copy
  }

  resize(sizeBytes: number): void {
    const now = new Uint32Array(sizeBytes / sectorBytes)
    now.set(this.#now.subarray(0, now.length))
    for (const at of this.#older.keys()) if (at >= now.length) this.#older.delete(at)
    this.#now = now
  }

  /** Differs from the other in these bytes. */
  *differences(other: SectorModel): Generator<number> {
    const length = Math.max(this.#now.length, other.#now.length)
    for (let at = 0; at < length; at += 1) {
      if ((this.#now[at] ?? 0) !== (other.#now[at] ?? 0)) yield at * sectorBytes
    }
  }

  isZero(offset: number): boolean {
    return this.#now[offset / sectorBytes] === 0
  }

  /**
   * Compare with what was read.
   *
   * @param loose older content may be there too, which counts from now on. 'for-good': nothing else can come back
   */
  check(bytes: Buffer, what: string, loose: 'no' | 'for-now' | 'for-good' = 'no'): void {
    assert.equal(bytes.length, this.sizeBytes, `${what}: size`)
    for (let at = 0; at < this.#now.length; at += 1) {
      const sector = bytes.subarray(at * sectorBytes, (at + 1) * sectorBytes)
      const stamp = stampOf(sector, `${what}, sector ${at}`)
      const now = this.#now[at]!
      if (stamp === now) continue
      const older = this.#older.get(at)
      assert(
        loose !== 'no' && older?.has(stamp),
        `${what}, sector ${at}: shows write ${stamp}, not ${now}${older ? ` (or ${[...older]})` : ''}`,
      )
      older?.add(now)
      this.#now[at] = stamp
    }
    if (loose === 'for-good') this.#older.clear()
  }
}

/** A whole write: each sector says which write it is and where it belongs. */
export function stamped(volume: number, offset: number, lengthBytes: number, stamp: number): Buffer {
  const bytes = Buffer.alloc(lengthBytes)
  for (let at = 0; at < lengthBytes; at += sectorBytes) {
    bytes.fill(stamp % 251, at, at + sectorBytes)
    bytes.writeUInt32LE(stamp, at)
    bytes.writeUInt32LE((offset + at) / sectorBytes, at + 4)
    bytes.writeUInt32LE(volume, at + 8)
  }
  return bytes
}

function stampOf(sector: Buffer, what: string): number {
  if (sector.every((byte) => byte === 0)) return 0
  const stamp = sector.readUInt32LE(0)
  assert(
    sector.subarray(12).every((byte) => byte === stamp % 251),
    `${what} is torn or foreign`,
  )
  return stamp
}
