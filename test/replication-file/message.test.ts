import { randomBytes } from 'node:crypto'
import t from 'tap'
import { MESSAGE_FILE_LIMIT, openMessage, sealMessage } from '../../src/replication-file/message.js'
import { codeOf, streamId, streamSecret } from './samples.js'

const value = { sequence: 7, appliedEpoch: 41, text: 'grün', wanted: [{ epoch: 42, part: 0 }] }
const sealed = sealMessage('acknowledgement', streamSecret, streamId, value)

t.test('a message comes back as it was sealed', async (t) => {
  t.same(openMessage('acknowledgement', streamSecret, streamId, sealed), value)
  t.notOk(sealed.includes('appliedEpoch'), 'and cannot be read on the way')
  t.notOk(sealed.equals(sealMessage('acknowledgement', streamSecret, streamId, value)))
})

t.test('another kind, key or stream does not open it', async (t) => {
  t.equal(
    codeOf(() => openMessage('manifest', streamSecret, streamId, sealed)),
    'SEAL_BROKEN',
  )
  t.equal(
    codeOf(() => openMessage('acknowledgement', randomBytes(32), streamId, sealed)),
    'SEAL_BROKEN',
  )
  t.equal(
    codeOf(() => openMessage('acknowledgement', streamSecret, Buffer.alloc(16), sealed)),
    'SEAL_BROKEN',
  )
})

t.test('a message cut at any length or with any bit flipped is refused', async (t) => {
  const open = (bytes: Buffer) => codeOf(() => openMessage('acknowledgement', streamSecret, streamId, bytes))
  for (let length = 0; length < sealed.length; length += 1) {
    if (open(sealed.subarray(0, length)) === 'nothing thrown') t.fail(`${length} bytes`)
  }
  for (let bit = 0; bit < sealed.length * 8; bit += 1) {
    const bytes = Buffer.from(sealed)
    bytes[bit >> 3]! ^= 1 << (bit & 7)
    if (open(bytes) === 'nothing thrown') t.fail(`bit ${bit}`)
  }
  t.equal(open(randomBytes(500)), 'NOT_A_SEALED_MESSAGE')
  t.equal(open(Buffer.concat([sealed, Buffer.alloc(MESSAGE_FILE_LIMIT)])), 'NOT_A_SEALED_MESSAGE')
})

t.test('more than the limit is a programming error', async (t) => {
  const text = 'x'.repeat(65_536)
  t.throws(() => sealMessage('acknowledgement', streamSecret, streamId, text), { code: 'ERR_ASSERTION' })
  const longest = sealMessage('acknowledgement', streamSecret, streamId, text.slice(2))
  t.equal(longest.length, MESSAGE_FILE_LIMIT)
  t.equal(openMessage('acknowledgement', streamSecret, streamId, longest), text.slice(2))
})
