import assert from 'node:assert/strict'
import { sectorBytes } from '../block/units.js'
import { type FoldInput, foldKind } from './fold-input.js'

const digitBits = 11
const digitCount = 1 << digitBits

/**
 * The indexes of all records that cover bytes, sorted by volume, then offset, then age.
 *
 * A radix sort: it is stable, which gives the age for nothing, and calls no comparison function.
 */
export function orderByPlace(input: FoldInput): Uint32Array {
  const { count, kind, volume, offset } = input
  let order = new Uint32Array(count)
  let length = 0
  let greatestSector = 0
  let greatestVolume = 0
  const low = new Uint32Array(count)
  const high = new Uint32Array(count)
  for (let record = 0; record < count; record += 1) {
    if (kind[record] !== foldKind.write && kind[record] !== foldKind.zero && kind[record] !== foldKind.trim) continue
    const at = offset[record]! / sectorBytes
    if (!Number.isSafeInteger(at) || at < 0) assert.fail(`record ${record}: offset ${offset[record]}`)
    low[record] = at
    high[record] = at / 2 ** 32
    if (at > greatestSector) greatestSector = at
    if (volume[record]! > greatestVolume) greatestVolume = volume[record]!
    order[length] = record
    length += 1
  }
  order = order.subarray(0, length)
  let spare = new Uint32Array(length)
  const digit = new Uint16Array(count)
  const pass = (keys: Uint32Array | Uint16Array, shift: number) => {
    const places = new Uint32Array(digitCount + 1)
    for (const record of order) {
      const value = (keys[record]! >>> shift) & (digitCount - 1)
      digit[record] = value
      places[value + 1]! += 1
    }
    for (let value = 0; value < digitCount; value += 1) places[value + 1]! += places[value]!
    for (const record of order) {
      const value = digit[record]!
      spare[places[value]!] = record
      places[value]! += 1
    }
    const sorted = spare
    spare = order
    order = sorted
  }
  for (let shift = 0; shift < 32 && greatestSector >= 2 ** shift; shift += digitBits) pass(low, shift)
  for (let shift = 0; greatestSector >= 2 ** (32 + shift); shift += digitBits) pass(high, shift)
  for (let shift = 0; greatestVolume >= 2 ** shift; shift += digitBits) pass(volume, shift)
  return order
}
