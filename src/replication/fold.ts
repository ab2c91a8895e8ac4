import assert from 'node:assert/strict'
import { sectorBytes, type VolumeIndex, volumeIndex } from '../block/units.js'
import { type FoldInput, foldKind } from './fold-input.js'
import { NewestFirst } from './newest-first.js'
import { orderByPlace } from './place-order.js'

export { type FoldInput, foldKind }

/** What survives of one volume, as columns: sorted by offset, no two overlap. */
export interface FoldedVolume {
  readonly volume: VolumeIndex
  readonly count: number
  readonly kind: Uint8Array
  readonly offset: Float64Array
  readonly lengthBytes: Float64Array
  /** Index of the record whose content it is; of a merged zero or trim extent, the newest of them. */
  readonly record: Uint32Array
  /** Where in that record's payload it begins; 0 for zero and trim. */
  readonly payloadOffset: Float64Array
}

export interface Fold {
  /** In order of their index; only those that were touched. */
  readonly volumes: readonly FoldedVolume[]
  /** Payload of the writes that came in. */
  readonly rawBytes: number
  /** Payload dropped, because a later record of the epoch lies over it. */
  readonly foldedBytes: number
}

/**
 * Keep of an epoch what its end shows: the newest record wins wherever records overlap, exact to the sector.
 *
 * Pure, O(n log n): one sweep over each volume in order of offset, with a heap that has the newest record of those
 * under the sweep on top.
 */
export function foldEpoch(input: FoldInput): Fold {
  const order = orderByPlace(input)
  const volumes: FoldedVolume[] = []
  let rawBytes = 0
  let keptBytes = 0
  for (let from = 0; from < order.length; ) {
    const volume = input.volume[order[from]!]!
    let to = from
    while (to < order.length && input.volume[order[to]!] === volume) to += 1
    const folded = sweep(input, order.subarray(from, to), volumeIndex(volume))
    for (let at = from; at < to; at += 1) rawBytes += writtenBytes(input, order[at]!)
    for (let at = 0; at < folded.count; at += 1) keptBytes += writtenBytes(folded, at)
    volumes.push(folded)
    from = to
  }
  return { volumes, rawBytes, foldedBytes: rawBytes - keptBytes }
}

function sweep(input: FoldInput, order: Uint32Array, volume: VolumeIndex): FoldedVolume {
  const { kind, offset, lengthBytes } = input
  const out = new ExtentColumns(2 * order.length)
  const active = new NewestFirst(order.length)
  let next = 0
  let position = 0
  while (true) {
    while (active.size > 0 && endOf(input, active.newest) <= position) active.pop()
    if (active.size === 0) {
      if (next === order.length) break
      position = offset[order[next]!]!
    }
    while (next < order.length && offset[order[next]!] === position) {
      const record = order[next]!
      const length = lengthBytes[record]!
      if (!(length > 0 && Number.isSafeInteger(length / sectorBytes))) assert.fail(`record ${record}: ${length} bytes`)
      active.push(record)
      next += 1
    }
    const winner = active.newest
    const end = endOf(input, winner)
    const boundary = next < order.length ? Math.min(end, offset[order[next]!]!) : end
    out.add(kind[winner]!, position, boundary - position, winner, position - offset[winner]!)
    position = boundary
  }
  return out.finish(volume)
}

function endOf(input: FoldInput, record: number): number {
  return input.offset[record]! + input.lengthBytes[record]!
}

function writtenBytes(columns: { readonly kind: Uint8Array; readonly lengthBytes: Float64Array }, at: number): number {
  return columns.kind[at] === foldKind.write ? columns.lengthBytes[at]! : 0
}

/** Extents in the making. n records give at most 2n - 1: each start and each end begins at most one. */
class ExtentColumns {
  #count = 0
  readonly #kind: Uint8Array
  readonly #offset: Float64Array
  readonly #lengthBytes: Float64Array
  readonly #record: Uint32Array
  readonly #payloadOffset: Float64Array

  constructor(capacity: number) {
    this.#kind = new Uint8Array(capacity)
    this.#offset = new Float64Array(capacity)
    this.#lengthBytes = new Float64Array(capacity)
    this.#record = new Uint32Array(capacity)
    this.#payloadOffset = new Float64Array(capacity)
  }

  add(kind: number, offset: number, lengthBytes: number, record: number, payloadOffset: number): void {
    const last = this.#count - 1
    const isWrite = kind === foldKind.write
    if (last >= 0 && this.#kind[last] === kind && this.#offset[last]! + this.#lengthBytes[last]! === offset) {
      if (!isWrite || this.#record[last] === record) {
        this.#lengthBytes[last] = this.#lengthBytes[last]! + lengthBytes
        this.#record[last] = Math.max(this.#record[last]!, record)
        return
      }
    }
    const at = this.#count
    this.#count += 1
    this.#kind[at] = kind
    this.#offset[at] = offset
    this.#lengthBytes[at] = lengthBytes
    this.#record[at] = record
    this.#payloadOffset[at] = isWrite ? payloadOffset : 0
  }

  finish(volume: VolumeIndex): FoldedVolume {
    const count = this.#count
    return {
      volume,
      count,
      kind: this.#kind.slice(0, count),
      offset: this.#offset.slice(0, count),
      lengthBytes: this.#lengthBytes.slice(0, count),
      record: this.#record.slice(0, count),
      payloadOffset: this.#payloadOffset.slice(0, count),
    }
  }
}
