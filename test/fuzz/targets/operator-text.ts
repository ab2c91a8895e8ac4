import assert from 'node:assert/strict'
import { parseDuration, parseSize } from '../../../src/block/size.js'
import { StorageError } from '../../../src/block/storage-error.js'
import { parsePartFileName, partFileName } from '../../../src/replication-file/part-file-name.js'
import { parseFtpUrl } from '../../../src/transport/ftp-url.js'
import { newPairing } from '../../../src/transport/pairing.js'
import { formatPairing, parsePairing } from '../../../src/transport/pairing-string.js'
import type { OpenTarget } from '../target.js'

const seeds = [
  '\0ftp://user:p%20w@ftp.example:2121//srv/in',
  '\0ftps://[2001:db8::1]/in/',
  '\0ftpes://host/',
  '\x011.5GiB',
  '\x02250ms',
  '\x03g00000001-e0000000000000001-p0000001-of-0000003.tmr',
]

/** First byte: an FTP URL (0), a size (1), a duration (2), or the name of a file that arrives (3). */
export const operatorText: OpenTarget = () => ({
  words: ['ftp://', '%00', '%', '@', '[::1]', '//', '..', '?', '#', 'KiB', '0.', '9007199254740993', 'e0000'].map(
    (text) => Buffer.from(text),
  ),
  seeds: () => seeds.map((text) => Buffer.from(text, 'latin1')),
  run(input) {
    const kind = (input[0] ?? 0) & 3
    const text = input.toString('utf8', 1)
    if (kind === 0) {
      const endpoint = parseFtpUrl(text)
      // What is taken can be handed to the other site.
      assert.deepEqual(parsePairing(formatPairing(newPairing(endpoint))).endpoint, endpoint)
    } else if (kind === 1) {
      const bytes = parseSize(text)
      assert(Number.isSafeInteger(bytes) && bytes > 0 && bytes % 512 === 0)
    } else if (kind === 2) {
      const milliseconds = parseDuration(text)
      assert(milliseconds > 0 && milliseconds <= 86_400_000)
    } else {
      const place = parsePartFileName(text)
      if (!place) throw new StorageError('REFUSED', { op: 'parse', object: 'name', hint: '' })
      assert.equal(partFileName(place), text)
    }
  },
})
