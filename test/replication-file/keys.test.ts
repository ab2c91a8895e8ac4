import { randomBytes } from 'node:crypto'
import t from 'tap'
import {
  deriveFileKey,
  deriveMessageKey,
  deriveStreamSecret,
  drawSalt,
  keyId,
} from '../../src/replication-file/keys.js'
import { pairingSecret, streamId, streamSecret } from './samples.js'

t.test('each stream, file, place and kind of message has a key of its own', async (t) => {
  const salt = randomBytes(32)
  const place = randomBytes(72)
  const keys = [
    streamSecret,
    deriveStreamSecret(pairingSecret, Buffer.alloc(16)),
    deriveStreamSecret(randomBytes(32), streamId),
    deriveFileKey(streamSecret, salt, place),
    deriveFileKey(streamSecret, randomBytes(32), place),
    deriveFileKey(streamSecret, salt, randomBytes(72)),
    deriveMessageKey(streamSecret, salt, 'acknowledgement'),
    deriveMessageKey(streamSecret, salt, 'manifest'),
  ].map((key) => key.toString('hex'))
  t.equal(new Set(keys).size, keys.length)
  t.ok(keys.every((key) => key.length === 64))
})

t.test('keys are made in format 1 as they always were', async (t) => {
  const secret = deriveStreamSecret(pairingSecret, streamId)
  t.equal(secret.toString('hex'), 'e4353176adfcf6531555ed46de43ebce349ecff7b27e453b53b15fbb9eaa8c39')
  t.equal(keyId(secret).toString('hex'), '84ed273a143b54ea694733eb1ef5e11e')
})

t.test('a machine put back to an old image draws another salt unless it seals the same content', async (t) => {
  const random = Buffer.alloc(32, 5)
  const salt = (...content: string[]) =>
    drawSalt(
      streamSecret,
      random,
      content.map((text) => Buffer.from(text)),
    ).toString('hex')
  t.equal(salt('header', 'index'), salt('header', 'index'))
  t.not(salt('header', 'index'), salt('header', 'index of another write'))
  t.not(salt('header', 'index'), drawSalt(streamSecret, randomBytes(32), []).toString('hex'))
})
