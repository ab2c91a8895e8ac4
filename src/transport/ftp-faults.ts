import { StorageError } from '../block/storage-error.js'
import { type FaultCode, networkFault, transferFault } from './faults.js'

const REPLY_TEXT_LIMIT = 200

/** A negative reply of an FTP server; the session goes on. Its text is safe to show. */
export class FtpRefusal extends Error {
  constructor(
    readonly code: number,
    text: string,
  ) {
    super(text)
  }
}

/** What a server wrote, for people: one line, short, and without the password it may have sent back. */
export function cleanReply(text: string, password: string): string {
  const line = text.replace(/[\p{C}\s]+/gu, ' ').slice(0, REPLY_TEXT_LIMIT * 2)
  const scrubbed = password === '' ? line : line.replaceAll(password, '***')
  return scrubbed.slice(0, REPLY_TEXT_LIMIT).trim()
}

/** What a reply means for the operator, outside login. */
export function refusalFault(code: number): FaultCode {
  const known: Record<number, FaultCode> = {
    421: 'LINK_DOWN',
    425: 'LINK_DOWN',
    426: 'LINK_DOWN',
    430: 'LOGIN_DENIED',
    450: 'ACCESS_DENIED',
    452: 'REMOTE_FULL',
    530: 'LOGIN_DENIED',
    532: 'ACCESS_DENIED',
    550: 'ACCESS_DENIED',
    552: 'REMOTE_FULL',
    553: 'ACCESS_DENIED',
  }
  return known[code] ?? (code < 500 ? 'REMOTE_FAULT' : 'PROTOCOL_ERROR')
}

/** A refusal as the fault it is; anything else as it came. */
export function asFault(error: unknown, op: string, object: string): unknown {
  if (!(error instanceof FtpRefusal)) return error
  return transferFault(refusalFault(error.code), op, object, error)
}

const nonsense = /maximum (allowed size|bytes exceeded)|exceeded maximum|PASV returned another host/i

/** An error of the connection. The library tells a time-out, and what it refuses to bear, by their text alone. */
export function connectionFault(error: unknown, op: string, object: string, password: string): StorageError {
  if (error instanceof StorageError) return error
  const text = cleanReply(error instanceof Error ? error.message : String(error), password)
  const code = nonsense.test(text) ? 'PROTOCOL_ERROR' : /^Timeout/.test(text) ? 'LINK_TIMEOUT' : networkFault(error)
  return transferFault(code === 'TLS_FAILED' && isBrokenOff(error, op) ? 'LINK_DOWN' : code, op, object, text)
}

/** TLS stood, and broke: a server that dies writes its last words in clear text behind it. The library names the socket. */
function isBrokenOff(error: unknown, op: string): boolean {
  return op !== 'connect' && error instanceof Error && error.message.endsWith('(control socket)')
}
