import { createDecipheriv } from 'node:crypto'
import { createRequire } from 'node:module'

/** The one legal value of every algorithm field: AES-256-GCM under an HKDF-SHA256 key. */
export const ALGORITHM = 1
export const TAG_BYTES = 16

const cipher = 'aes-256-gcm'
const options = { authTagLength: TAG_BYTES }

/** What a nonce counts: each key seals each (section, index) once. */
export const section = { frame: 1, index: 2, trailer: 3, message: 4 } as const
export type Section = (typeof section)[keyof typeof section]

export interface Sealed {
  readonly body: Buffer
  readonly tag: Buffer
}

interface SealCalls {
  seal(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, plain: Uint8Array, body: Uint8Array, tag: Uint8Array): void
}

// Node's cipher objects make new memory for each text, fill it with zeros, and copy it once more.
const native: SealCalls = createRequire(import.meta.url)('../../../build/Release/tidemark_seal.node')

/** @param body where the encrypted text goes: as long as the plain one, and elsewhere */
export function seal(
  key: Buffer,
  place: Section,
  index: number,
  aad: Buffer,
  plain: Buffer,
  body: Buffer = Buffer.allocUnsafe(plain.length),
): Sealed {
  const tag = Buffer.allocUnsafe(TAG_BYTES)
  native.seal(key, nonce(place, index), aad, plain, body, tag)
  return { body, tag }
}

/** The plain bytes, or undefined when the seal is broken: then nothing of them may be looked at. */
export function open(
  key: Buffer,
  place: Section,
  index: number,
  aad: Buffer,
  body: Buffer,
  tag: Buffer,
): Buffer | undefined {
  const work = createDecipheriv(cipher, key, nonce(place, index), options)
  work.setAAD(aad)
  work.setAuthTag(tag)
  const plain = work.update(body)
  try {
    work.final()
  } catch {
    return undefined
  }
  return plain
}

function nonce(place: Section, index: number): Buffer {
  const bytes = Buffer.alloc(12)
  bytes.writeUInt32LE(place, 0)
  bytes.writeUInt32LE(index, 4)
  return bytes
}
