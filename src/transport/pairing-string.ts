/**
 * A pairing as one line: `tidemark1-` and base64url of the bytes below. Lengths are u16, little-endian; strings UTF-8.
 *
 * | bytes | meaning |
 * |---|---|
 * | 16 | id |
 * | 32 | secret |
 * | 1 | kind: 1 folder, 2 https, 3 FTP |
 * | 1 | FTP: TLS 0 none, 1 explicit, 2 implicit; else 0 |
 * | 2 | port; folder: 0 |
 * | 2 + n, each | folder: directory; https: host, fingerprint; FTP: host, user, password, directory |
 * | 4 | CRC-32C of the prefix and all before |
 *
 * A reader rejects another prefix, a wrong checksum, bytes left over and every field that endpoint-rules refuses.
 */
import assert from 'node:assert/strict'
import { crc32c } from '../block/crc32c.js'
import { StorageError } from '../block/storage-error.js'
import { endpointFault } from './endpoint-rules.js'
import { type Endpoint, PAIRING_ID_BYTES, PAIRING_SECRET_BYTES, type Pairing } from './pairing.js'

const PREFIX = 'tidemark1-'
export const PAIRING_TEXT_LIMIT = 8192

const kinds = ['folder', 'https', 'ftp'] as const
const tlsModes = ['none', 'explicit', 'implicit'] as const

/** @throws StorageError BAD_ENDPOINT when the endpoint could not be read back */
export function formatPairing(pairing: Pairing): string {
  const { id, secret, endpoint } = pairing
  assert(id.length === PAIRING_ID_BYTES && secret.length === PAIRING_SECRET_BYTES)
  checkEndpoint(endpoint)
  const head = Buffer.alloc(4)
  head[0] = kinds.indexOf(endpoint.kind) + 1
  head[1] = endpoint.kind === 'ftp' ? tlsModes.indexOf(endpoint.tls) : 0
  head.writeUInt16LE(endpoint.kind === 'folder' ? 0 : endpoint.port, 2)
  const body = Buffer.concat([id, secret, head, ...stringsOf(endpoint).map(encodeString)])
  return PREFIX + Buffer.concat([body, checksum(body)]).toString('base64url')
}

/**
 * Read a pasted pairing. White space is ignored, since terminals and mail break long lines.
 *
 * @throws StorageError BAD_PAIRING; neither it nor its text quotes what was pasted
 */
export function parsePairing(text: string): Pairing {
  if (text.length > PAIRING_TEXT_LIMIT) throw badPairing('It is far too long for one pairing string.')
  const line = text.replace(/\s+/g, '')
  const version = /^tidemark(\d{1,4})-/.exec(line)
  if (!version) throw badPairing("Paste the whole line that 'pairing create' printed, from tidemark1- to its end.")
  if (version[0] !== PREFIX) throw badPairing(`It was made by another version (${version[0]}). Upgrade the older site.`)
  const encoded = line.slice(PREFIX.length)
  const bytes = Buffer.from(encoded, 'base64url')
  if (!/^[A-Za-z0-9_-]*$/.test(encoded) || bytes.toString('base64url') !== encoded) throw miscopied()
  const body = bytes.subarray(0, -4)
  if (bytes.length < PAIRING_ID_BYTES + PAIRING_SECRET_BYTES + 8 || !checksum(body).equals(bytes.subarray(-4)))
    throw miscopied()
  return decode(body)
}

function decode(body: Buffer): Pairing {
  const head = body.subarray(PAIRING_ID_BYTES + PAIRING_SECRET_BYTES)
  const kind = kinds[head[0]! - 1]
  const port = head.readUInt16LE(2)
  const tls = tlsModes[head[1]!]
  if (!kind || !tls) throw badPairing('It names a kind of transport this version does not know. Upgrade this site.')
  const strings = decodeStrings(head.subarray(4))
  const expected = { folder: 1, https: 2, ftp: 4 }[kind]
  if (strings?.length !== expected) throw badPairing('Its fields do not fit its kind.')
  const [first = '', second = '', password = '', directory = ''] = strings
  const endpoint: Endpoint =
    kind === 'folder'
      ? { kind, directory: first }
      : kind === 'https'
        ? { kind, host: first, port, fingerprint: second }
        : { kind, host: first, port, user: second, password, directory, tls }
  const fault = endpointFault(endpoint)
  if (fault) throw badPairing(fault)
  return {
    id: Buffer.from(body.subarray(0, PAIRING_ID_BYTES)),
    secret: Buffer.from(body.subarray(PAIRING_ID_BYTES, PAIRING_ID_BYTES + PAIRING_SECRET_BYTES)),
    endpoint,
  }
}

/** @throws StorageError BAD_ENDPOINT */
export function checkEndpoint<E extends Endpoint>(endpoint: E): E {
  const fault = endpointFault(endpoint)
  if (!fault) return endpoint
  throw new StorageError('BAD_ENDPOINT', { op: 'pairing', object: endpoint.kind, hint: fault })
}

function stringsOf(endpoint: Endpoint): string[] {
  if (endpoint.kind === 'folder') return [endpoint.directory]
  if (endpoint.kind === 'https') return [endpoint.host, endpoint.fingerprint]
  return [endpoint.host, endpoint.user, endpoint.password, endpoint.directory]
}

function encodeString(text: string): Buffer {
  const bytes = Buffer.from(text, 'utf8')
  const length = Buffer.alloc(2)
  length.writeUInt16LE(bytes.length)
  return Buffer.concat([length, bytes])
}

function decodeStrings(bytes: Buffer): string[] | undefined {
  const strings: string[] = []
  let offset = 0
  while (offset < bytes.length) {
    if (offset + 2 > bytes.length || strings.length === 4) return undefined
    const length = bytes.readUInt16LE(offset)
    const end = offset + 2 + length
    if (end > bytes.length) return undefined
    strings.push(bytes.toString('utf8', offset + 2, end))
    offset = end
  }
  return strings
}

function checksum(body: Buffer): Buffer {
  const sum = Buffer.alloc(4)
  sum.writeUInt32LE(crc32c(body, crc32c(Buffer.from(PREFIX))))
  return sum
}

function miscopied(): StorageError {
  return badPairing('Characters are missing or changed. Copy the whole line again.')
}

function badPairing(hint: string): StorageError {
  return new StorageError('BAD_PAIRING', { op: 'read', object: 'pairing string', hint })
}
