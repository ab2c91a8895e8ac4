import assert from 'node:assert/strict'

/** How the bits of a map lie on the volumes of a stream. */
export interface RegionLayout {
  /** A power of two. */
  readonly regionBytes: number
  /** By volume index. */
  readonly volumeBytes: readonly number[]
}

/** A run of regions of one volume that are all in the map. */
export interface RegionRun {
  readonly volume: number
  readonly offset: number
  readonly lengthBytes: number
}

const wordBits = 64

/** A set of regions of a stream's volumes: a bit each, each volume's beginning at a multiple of 64. */
export class RegionMap {
  readonly layout: RegionLayout
  /** In order of regions, lowest bit first. */
  readonly bits: Uint8Array
  readonly #first: readonly number[]

  /** @param bits as they are; none: an empty map */
  constructor(layout: RegionLayout, bits?: Uint8Array) {
    this.layout = layout
    const first = [0]
    for (const bytes of layout.volumeBytes) {
      first.push(first.at(-1)! + Math.ceil(Math.ceil(bytes / layout.regionBytes) / wordBits) * wordBits)
    }
    this.#first = first
    const lengthBytes = first.at(-1)! / 8
    assert(bits === undefined || bits.length === lengthBytes, 'a bit for each region')
    this.bits = bits ?? new Uint8Array(lengthBytes)
  }

  /** Every region of every volume. */
  static whole(layout: RegionLayout): RegionMap {
    const map = new RegionMap(layout)
    layout.volumeBytes.forEach((bytes, volume) => {
      map.add(volume, 0, bytes)
    })
    return map
  }

  /** Each region that the range touches. */
  add(volume: number, offset: number, lengthBytes: number): void {
    if (lengthBytes <= 0) return
    const { regionBytes } = this.layout
    const last = Math.floor((offset + lengthBytes - 1) / regionBytes)
    for (let region = Math.floor(offset / regionBytes); region <= last; region++) {
      const bit = this.#first[volume]! + region
      this.bits[bit >> 3]! |= 1 << (bit & 7)
    }
  }

  /** What is in the other map, whatever the size of its regions. */
  addAll(other: RegionMap): void {
    for (const run of other.runs()) this.add(run.volume, run.offset, run.lengthBytes)
  }

  /** In order; none reaches beyond its volume. */
  *runs(): Generator<RegionRun> {
    for (const volume of this.layout.volumeBytes.keys()) {
      for (let run = this.next(volume, 0); run; run = this.next(volume, run.offset + run.lengthBytes)) yield run
    }
  }

  /** The first run of a volume at or after the offset, from there on. */
  next(volume: number, offset: number): RegionRun | undefined {
    const { regionBytes, volumeBytes } = this.layout
    const sizeBytes = volumeBytes[volume]!
    const count = Math.ceil(sizeBytes / regionBytes)
    const from = this.#find(volume, Math.floor(offset / regionBytes), count, true)
    const end = this.#find(volume, from, count, false)
    const start = Math.max(offset, from * regionBytes)
    const lengthBytes = Math.min(end * regionBytes, sizeBytes) - start
    return lengthBytes > 0 ? { volume, offset: start, lengthBytes } : undefined
  }

  /** All of it, or what lies before this place. */
  bytes(before?: { readonly volume: number; readonly offset: number }): number {
    let bytes = 0
    for (const { volume, offset, lengthBytes } of this.runs()) {
      if (before && volume > before.volume) break
      const isCut = before !== undefined && volume === before.volume
      bytes += isCut ? Math.max(0, Math.min(lengthBytes, before.offset - offset)) : lengthBytes
    }
    return bytes
  }

  /** The first region from here on that is in the map, or is not; `count` when there is none. */
  #find(volume: number, from: number, count: number, isIn: boolean): number {
    const first = this.#first[volume]!
    const skipped = isIn ? 0 : 0xff
    let region = from
    while (region < count) {
      const bit = first + region
      const byte = this.bits[bit >> 3]!
      if ((bit & 7) === 0 && byte === skipped) region += 8
      else if (((byte >> (bit & 7)) & 1) === (isIn ? 1 : 0)) return region
      else region += 1
    }
    return count
  }
}
