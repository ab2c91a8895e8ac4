import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { StorageError } from '../block/storage-error.js'
import { ALGORITHM, open, seal, section, TAG_BYTES } from './aead.js'
import { deriveMessageKey, drawSalt, SALT_BYTES } from './keys.js'
import { MESSAGE_LIMIT } from './limits.js'

export const MESSAGE_MAGIC = 'TMRM'
export const MESSAGE_VERSION = 1
export const MESSAGE_HEADER_BYTES = 48
/** A sealed message is never longer: the limit of whoever reads it from a transport. */
export const MESSAGE_FILE_LIMIT = MESSAGE_HEADER_BYTES + MESSAGE_LIMIT + TAG_BYTES

export const messageHeaderLayout = {
  magic: { offset: 0, size: 4 },
  version: { offset: 4, size: 2 },
  headerLength: { offset: 6, size: 2 },
  algorithm: { offset: 8, size: 1 },
  reserved: { offset: 9, size: 7 },
  salt: { offset: 16, size: SALT_BYTES },
} as const

/**
 * Seal a small message (an acknowledgement) for the other site.
 *
 * It says nothing about freshness: put a number that only grows into `value` and compare.
 *
 * @param kind a message of one kind never opens as another
 * @param aad whatever both sides know and the message must belong to (stream id, folder)
 * @param value JSON; more than MESSAGE_LIMIT of it is a programming error
 */
export function sealMessage(kind: string, streamSecret: Buffer, aad: Buffer, value: unknown): Buffer {
  const text = Buffer.from(JSON.stringify(value))
  assert(text.length <= MESSAGE_LIMIT, `a message of ${text.length} bytes`)
  const header = Buffer.alloc(MESSAGE_HEADER_BYTES)
  header.write(MESSAGE_MAGIC, 0, 'latin1')
  header.writeUInt16LE(MESSAGE_VERSION, messageHeaderLayout.version.offset)
  header.writeUInt16LE(MESSAGE_HEADER_BYTES, messageHeaderLayout.headerLength.offset)
  header.writeUInt8(ALGORITHM, messageHeaderLayout.algorithm.offset)
  const salt = drawSalt(streamSecret, randomBytes(SALT_BYTES), [Buffer.from(kind), aad, text])
  salt.copy(header, messageHeaderLayout.salt.offset)
  const key = deriveMessageKey(streamSecret, salt, kind)
  const { body, tag } = seal(key, section.message, 0, Buffer.concat([header, aad]), text)
  return Buffer.concat([header, body, tag])
}

/**
 * The value the other site sealed, exactly; its shape is the caller's to check.
 *
 * @throws StorageError NOT_A_SEALED_MESSAGE, FORMAT_TOO_NEW, SEAL_BROKEN (another key, kind or aad, or damage)
 */
export function openMessage(kind: string, streamSecret: Buffer, aad: Buffer, bytes: Buffer): unknown {
  const { magic, version, headerLength, algorithm } = messageHeaderLayout
  if (
    bytes.length < MESSAGE_HEADER_BYTES + TAG_BYTES ||
    bytes.length > MESSAGE_FILE_LIMIT ||
    bytes.toString('latin1', magic.offset, magic.size) !== MESSAGE_MAGIC
  ) {
    throw refuse('NOT_A_SEALED_MESSAGE', kind, `${bytes.length} bytes`)
  }
  if (bytes.readUInt16LE(version.offset) > MESSAGE_VERSION) {
    throw new StorageError('FORMAT_TOO_NEW', {
      op: 'open message',
      object: kind,
      retry: 'later',
      hint: 'A newer agent wrote it. Upgrade the agent of this site.',
    })
  }
  const header = bytes.subarray(0, MESSAGE_HEADER_BYTES)
  if (bytes.readUInt16LE(headerLength.offset) !== MESSAGE_HEADER_BYTES || bytes[algorithm.offset] !== ALGORITHM) {
    throw refuse('SEAL_BROKEN', kind, 'header')
  }
  const key = deriveMessageKey(streamSecret, header.subarray(messageHeaderLayout.salt.offset), kind)
  const tagAt = bytes.length - TAG_BYTES
  const body = bytes.subarray(MESSAGE_HEADER_BYTES, tagAt)
  const text = open(key, section.message, 0, Buffer.concat([header, aad]), body, bytes.subarray(tagAt))
  if (!text) throw refuse('SEAL_BROKEN', kind, 'content')
  try {
    return JSON.parse(text.toString('utf8'))
  } catch (cause) {
    throw refuse('SEAL_BROKEN', kind, cause)
  }
}

function refuse(code: string, kind: string, cause: unknown): StorageError {
  return new StorageError(code, {
    op: 'open message',
    object: kind,
    cause,
    retry: 'after-arrival',
    hint: 'It was not written by the other site of this pairing, or was damaged on the way. It is ignored.',
  })
}
