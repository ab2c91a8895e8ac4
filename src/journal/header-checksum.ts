import assert from 'node:assert/strict'
import { endianness } from 'node:os'

// The reader looks at headers as 32-bit words of memory; they are little-endian on disk.
assert.equal(endianness(), 'LE', 'the journal is read on little-endian machines only')

const polynomial = 0x82f63b78
const [table0, table1, table2, table3] = makeTables()

/**
 * CRC-32C of `count` words, continued from `previous`: the same value as block/crc32c. For record headers: with a call
 * into native code for each of their checksums, reading a journal of small records took four times as long.
 */
export function checksumWords(words: Uint32Array, from: number, count: number, previous: number): number {
  let crc = ~previous
  for (let index = from; index < from + count; index += 1) {
    crc ^= words[index]!
    crc = table3[crc & 255]! ^ table2[(crc >>> 8) & 255]! ^ table1[(crc >>> 16) & 255]! ^ table0[crc >>> 24]!
  }
  return ~crc >>> 0
}

/** Slicing by 4: table n is the checksum of a byte followed by n zero bytes. */
function makeTables(): [Int32Array, Int32Array, Int32Array, Int32Array] {
  const tables: [Int32Array, Int32Array, Int32Array, Int32Array] = [
    new Int32Array(256),
    new Int32Array(256),
    new Int32Array(256),
    new Int32Array(256),
  ]
  for (let byte = 0; byte < 256; byte += 1) {
    let crc = byte
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ polynomial : crc >>> 1
    tables[0][byte] = crc
  }
  for (let byte = 0; byte < 256; byte += 1) {
    for (const n of [1, 2, 3] as const) {
      const before = tables[(n - 1) as 0 | 1 | 2][byte]!
      tables[n][byte] = (before >>> 8) ^ tables[0][before & 255]!
    }
  }
  return tables
}
