import assert from 'node:assert/strict'
import { crc32c } from '../../../src/block/crc32c.js'
import { StorageError } from '../../../src/block/storage-error.js'
import { encodeStateRecord, readState, recordHeadBytes } from '../../../src/daemon/state-record.js'
import { makeGoldenState } from '../../fixtures/state-golden.js'
import type { OpenTarget } from '../target.js'

const older = encodeStateRecord(2n, 0n, [['older', '1']])

/** First byte: 1 makes all checksums right. The rest is a file of the agent's state, beside an older one. */
export const stateLog: OpenTarget = () => ({
  words: ['TMST', '["', '"]', '"__proto__"', '[]', '\0\0\0\0\x03\0\0\0\0\0\0\0'].map((text) => Buffer.from(text)),
  seeds: () => [0, 1].map((flags) => Buffer.concat([Buffer.of(flags), makeGoldenState()])),
  run(input) {
    const bytes = Buffer.from(input.subarray(1))
    if (((input[0] ?? 0) & 1) !== 0) seal(bytes)
    const image = readState([bytes, older], 'fuzzed')
    assert(image)
    const again = encodeStateRecord(image.generation, 0n, image.entries)
    assert.deepEqual(readState([again], 'fuzzed')?.entries, image.entries)
    if (image.file === 1) throw new StorageError('OLDER', { op: 'read', object: 'fuzzed', hint: '' })
    assert(image.tail <= bytes.length && image.sequence > 0n)
  },
})

function seal(bytes: Buffer): void {
  for (let at = bytes.indexOf('TMST'); at >= 0; at = bytes.indexOf('TMST', at + 1)) {
    if (at + recordHeadBytes > bytes.length) return
    const end = Math.min(bytes.length, at + recordHeadBytes + bytes.readUInt32LE(at + 28))
    bytes.writeUInt32LE(end - at - recordHeadBytes, at + 28)
    bytes.writeUInt32LE(crc32c(bytes.subarray(at + 8, end)), at + 4)
    at = end - 1
  }
}
