/**
 * The words of the https transport, version 1; both ends read them here. One resource is
 * `/v1/PAIRING/FOLDER/NAME`, one listing `/v1/PAIRING/FOLDER/`; PAIRING and FOLDER are 32 hex digits, NAME is a remote
 * name. `Authorization: Bearer TOKEN` comes with every request. Nothing else is answered but by 404.
 *
 * | request | answer |
 * |---|---|
 * | GET listing | 200, a line `LENGTH NAME` for each complete file, in name order |
 * | GET file | 200 and the file, 404 |
 * | DELETE file | 204, also when it is not there |
 * | HEAD file | the upload that was cut short: 200, `Upload-Offset` its length, `Upload-Checksum` CRC-32C of it; 404 |
 * | PUT file | the whole file; or its rest, `Content-Range: bytes FIRST-LAST/TOTAL` (all there: `bytes *\/TOTAL`). 201: durable |
 *
 * 401 wrong pairing or token, 409 the rest does not fit what is there, 411 no length, 413 longer than the limit,
 * 423 another upload of that name goes on, 507 no room, 503 too busy, 500 the disk there failed.
 */
import type { FaultCode } from './faults.js'
import { isRemoteFolder, isRemoteName } from './remote-name.js'

export const MAX_FILE_BYTES = 64 * 1024 * 1024
export const OFFSET_HEADER = 'upload-offset'
export const CHECKSUM_HEADER = 'upload-checksum'
/** No valid request line and its headers come near it. */
export const HEADER_LIMIT_BYTES = 4096

export interface ResourcePath {
  readonly pairing: string
  readonly folder: string
  /** Absent: the listing. */
  readonly name?: string
}

export function formatPath({ pairing, folder, name = '' }: ResourcePath): string {
  return `/v1/${pairing}/${folder}/${name}`
}

/** The resource a request asks for, or undefined for everything that is not exactly one. */
export function parsePath(url: string): ResourcePath | undefined {
  const parts = url.length > 256 ? [] : url.split('/')
  const [root, version, pairing = '', folder = '', name = ''] = parts
  if (parts.length !== 5 || root !== '' || version !== 'v1') return undefined
  // A pairing's id has the same form as a stream's.
  if (!isRemoteFolder(pairing) || !isRemoteFolder(folder)) return undefined
  if (name === '') return { pairing, folder }
  return isRemoteName(name) ? { pairing, folder, name } : undefined
}

/** Where the body of a PUT belongs. */
export interface UploadRange {
  readonly start: number
  readonly total: number
}

export function formatRange({ start, total }: UploadRange): string | undefined {
  if (start === 0) return undefined
  return start === total ? `bytes */${total}` : `bytes ${start}-${total - 1}/${total}`
}

/** The range of a PUT with so long a body, or undefined when the two do not fit. */
export function parseRange(header: string | undefined, bodyBytes: number): UploadRange | undefined {
  if (header === undefined) return { start: 0, total: bodyBytes }
  const match = /^bytes (?:(\d{1,15})-(\d{1,15})|\*)\/(\d{1,15})$/.exec(header)
  if (!match) return undefined
  const total = Number(match[3])
  const start = match[1] === undefined ? total : Number(match[1])
  const last = match[2] === undefined ? total - 1 : Number(match[2])
  return last === total - 1 && total - start === bodyBytes && start > 0 ? { start, total } : undefined
}

/** What a status that is no success means for the operator. 409 and 404 are the caller's to judge first. */
export function statusFault(status: number): FaultCode {
  const known: Record<number, FaultCode> = {
    401: 'LOGIN_DENIED',
    413: 'FILE_TOO_LARGE',
    423: 'REMOTE_BUSY',
    409: 'REMOTE_BUSY',
    503: 'REMOTE_BUSY',
    507: 'REMOTE_FULL',
    500: 'REMOTE_FAULT',
  }
  return known[status] ?? 'PROTOCOL_ERROR'
}
