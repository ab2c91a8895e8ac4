import assert from 'node:assert/strict'
import { crc32c } from '../../../src/block/crc32c.js'
import { type Endpoint, newPairing } from '../../../src/transport/pairing.js'
import { formatPairing, parsePairing } from '../../../src/transport/pairing-string.js'
import type { OpenTarget } from '../target.js'

const prefix = 'tidemark1-'

const endpoints: Endpoint[] = [
  { kind: 'folder', directory: '/srv/far side' },
  { kind: 'https', host: 'far.example', port: 443, fingerprint: 'ab'.repeat(32) },
  { kind: 'ftp', host: '::1', port: 21, user: 'u', password: 'p w', directory: '/in', tls: 'explicit' },
]

/** First byte: 0 the text itself, else the bytes below its base64, with the right checksum behind them. */
export const pairing: OpenTarget = () => ({
  words: ['tidemark1-', 'tidemark9-', '\r\n', '..', '/', '%00', '\0'].map((text) => Buffer.from(text)),
  seeds: () =>
    endpoints.flatMap((endpoint) => {
      const text = formatPairing(newPairing(endpoint))
      const body = Buffer.from(text.slice(prefix.length), 'base64url').subarray(0, -4)
      return [Buffer.concat([Buffer.of(0), Buffer.from(text)]), Buffer.concat([Buffer.of(1), body])]
    }),
  run(input) {
    const rest = input.subarray(1)
    const found = parsePairing(input[0] === 0 ? rest.toString('latin1') : sealed(rest))
    // What is taken can be written down again, and is the same then.
    assert.deepEqual(parsePairing(formatPairing(found)), found)
  },
})

function sealed(body: Buffer): string {
  const sum = Buffer.alloc(4)
  sum.writeUInt32LE(crc32c(body, crc32c(Buffer.from(prefix))))
  return prefix + Buffer.concat([body, sum]).toString('base64url')
}
