import assert from 'node:assert/strict'
import { StorageError } from '../../../src/block/storage-error.js'
import { formatPath, formatRange, parsePath, parseRange } from '../../../src/transport/https-protocol.js'
import { parseListing } from '../../../src/transport/https-transport.js'
import { isRemoteName } from '../../../src/transport/remote-name.js'
import type { OpenTarget } from '../target.js'

const id = '0123456789abcdef'.repeat(2)

/** First byte: what a far agent answers to a listing (0), or the address (1) or range (2) that somebody asks for. */
export const https: OpenTarget = () => ({
  words: ['/', '..', '%2e', '/v1/', '.partial', '9'.repeat(15), 'bytes */', '\n', ' '].map((text) => Buffer.from(text)),
  seeds: () =>
    [
      '\0' + '1048576 g00000001-e0000000000000001-p0000001-of-0000001.tmr\n0 acknowledgement\n',
      `\x01${formatPath({ pairing: id, folder: id })}`,
      `\x01${formatPath({ pairing: id, folder: id, name: 'acknowledgement' })}`,
      '\x02bytes 5-9/10',
      '\x02bytes */5',
    ].map((text) => Buffer.from(text, 'latin1')),
  run(input) {
    const kind = (input[0] ?? 0) % 3
    const rest = input.subarray(1)
    const text = rest.toString('latin1')
    if (kind === 0) {
      const files = parseListing(rest, 'fuzzed')
      assert(files.every(({ name, lengthBytes }) => isRemoteName(name) && Number.isSafeInteger(lengthBytes)))
      assert(files.every(({ lengthBytes }) => lengthBytes >= 0))
    } else if (kind === 1) {
      const path = parsePath(text)
      if (!path) throw refused('address')
      // What is one has one spelling.
      assert.equal(formatPath(path), text)
    } else {
      const bodyBytes = 5
      const range = parseRange(text, bodyBytes) ?? parseRange(text, 0)
      if (!range) throw refused('range')
      assert(range.start > 0 && range.start <= range.total && Number.isSafeInteger(range.total))
      assert(formatRange(range)?.startsWith('bytes '))
    }
  },
})

function refused(object: string): StorageError {
  return new StorageError('REFUSED', { op: 'parse', object, hint: '' })
}
