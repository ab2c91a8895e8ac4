import assert from 'node:assert/strict'
import { openAcknowledgement, sealAcknowledgement } from '../../../src/replication-file/acknowledgement.js'
import { seal, section } from '../../../src/replication-file/aead.js'
import { deriveMessageKey } from '../../../src/replication-file/keys.js'
import { MESSAGE_HEADER_BYTES } from '../../../src/replication-file/message.js'
import { fewRanges, rangesText } from '../../../src/replication-file/volume-range.js'
import { streamId, streamSecret } from '../../replication-file/samples.js'
import type { OpenTarget } from '../target.js'

const sample = {
  ...{ sequence: 7, generation: 2, appliedEpoch: 41, appliedLsn: '123456', state: 'stalled', reason: 'epoch 42' },
  wanted: [{ epoch: 42, part: 0 }],
}
/** With all that was added since. */
const long = {
  ...sample,
  ...{ receivedEpoch: 43, reads: 2 },
  comparison: {
    ...{ run: 2, comparedBytes: 1 << 20, differingBytes: 512 },
    differing: [{ volume: 0, offset: 65_536, lengthBytes: 65_536 }],
  },
}
const whole = sealAcknowledgement(sample, streamSecret, streamId)

/** First byte: 0 the sealed bytes, else the text, which is sealed as the far side would. */
export const message: OpenTarget = () => ({
  words: [
    '"wanted":',
    '{"epoch":',
    '9007199254740993',
    '1e309',
    '-0',
    'null',
    '"__proto__":',
    '[[',
    '"differing":[',
    '{"volume":',
    ',null',
    ',{}',
  ].map((text) => Buffer.from(text)),
  seeds: () => [
    Buffer.concat([Buffer.of(0), whole]),
    Buffer.concat([Buffer.of(1), Buffer.from(JSON.stringify(sample))]),
    Buffer.concat([Buffer.of(1), Buffer.from(JSON.stringify(long))]),
    Buffer.concat([Buffer.of(1), Buffer.from(JSON.stringify({ ...sample, wanted: [] }))]),
  ],
  run(input) {
    const rest = input.subarray(1)
    const found = openAcknowledgement(input[0] === 0 ? rest : sealText(rest), streamSecret, streamId)
    for (const value of [found.sequence, found.generation, found.appliedEpoch]) assert(Number.isSafeInteger(value))
    BigInt(found.appliedLsn)
    assert(found.wanted.length <= 256)
    const { differing = [] } = found.comparison ?? {}
    assert(fewRanges(differing, 8).length <= Math.max(8, new Set(differing.map(({ volume }) => volume)).size))
    assert.equal(typeof rangesText(differing, []), 'string')
  },
})

function sealText(text: Buffer): Buffer {
  const header = Buffer.from(whole.subarray(0, MESSAGE_HEADER_BYTES))
  const key = deriveMessageKey(streamSecret, header.subarray(16), 'acknowledgement')
  const { body, tag } = seal(key, section.message, 0, Buffer.concat([header, streamId]), text)
  return Buffer.concat([header, body, tag])
}
