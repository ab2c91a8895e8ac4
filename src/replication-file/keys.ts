import assert from 'node:assert/strict'
import { createHmac, hkdfSync } from 'node:crypto'

export const SECRET_BYTES = 32
export const SALT_BYTES = 32

/**
 * The secret of one stream of a pairing. Every file and message of the stream is sealed under keys made from it, so
 * one stream's file can never pass for another's.
 */
export function deriveStreamSecret(pairingSecret: Buffer, streamId: Buffer): Buffer {
  assert.equal(streamId.length, 16)
  return derive(pairingSecret, streamId, 'tidemark stream secret 1')
}

/** 16 bytes that name a stream secret without giving it away: which key a file was sealed with. */
export function keyId(streamSecret: Buffer): Buffer {
  return derive(streamSecret, Buffer.alloc(0), 'tidemark key id 1').subarray(0, 16)
}

/** The key of one file: `place` is the part of its header that says where it belongs. */
export function deriveFileKey(streamSecret: Buffer, salt: Buffer, place: Buffer): Buffer {
  return derive(streamSecret, salt, 'tidemark replication file 1', place)
}

export function deriveMessageKey(streamSecret: Buffer, salt: Buffer, kind: string): Buffer {
  return derive(streamSecret, salt, 'tidemark sealed message 1', Buffer.from(kind))
}

/**
 * A salt nobody used before. The random bytes alone would do on a machine that only moves forward; one restored from
 * an old image may draw the same bytes again, so what is about to be sealed goes in too: equal salts mean equal content.
 */
export function drawSalt(streamSecret: Buffer, random: Buffer, content: readonly Buffer[]): Buffer {
  const mac = createHmac('sha256', streamSecret).update('tidemark salt 1').update(random)
  for (const piece of content) mac.update(piece)
  return mac.digest()
}

function derive(secret: Buffer, salt: Buffer, label: string, context: Buffer = Buffer.alloc(0)): Buffer {
  assert.equal(secret.length, SECRET_BYTES)
  return Buffer.from(hkdfSync('sha256', secret, salt, Buffer.concat([Buffer.from(`${label}\0`), context]), 32))
}
