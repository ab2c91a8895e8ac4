import { errnoOf, type RetryClass, StorageError } from '../block/storage-error.js'

/** What went wrong on the way to the other site, exactly: the words of `destination test`. */
const faults = {
  HOST_NOT_FOUND: ['later', 'The host name is not known here. Check its spelling and the name server.'],
  CONNECTION_REFUSED: ['later', 'Nothing listens there. Check that the far agent or server runs, and host and port.'],
  HOST_UNREACHABLE: ['later', 'There is no route to the host. Check network, VPN and firewall.'],
  LINK_TIMEOUT: ['later', 'No answer in time. Check network and firewall; the next try is automatic.'],
  LINK_DOWN: ['later', 'The connection was lost. The next try is automatic and goes on where this one stopped.'],
  REMOTE_BUSY: ['later', 'The far side is busy with as much as it allows. The next try is automatic.'],
  REMOTE_FULL: [
    'later',
    'The far side has no room. Free space or raise its quota; the transfer then goes on by itself.',
  ],
  REMOTE_FAULT: ['later', 'The far side failed on its own account. Look at its log.'],
  TLS_FINGERPRINT: [
    'never',
    'Another machine answers, or the far agent has a new certificate. Make a new pairing there and add it here.',
  ],
  TLS_FAILED: [
    'never',
    'No trusted TLS connection could be made. Check the certificate and TLS settings of the server.',
  ],
  LOGIN_DENIED: ['never', 'The far side does not accept this pairing or password. Make a new pairing there.'],
  ACCESS_DENIED: ['never', 'Reading or writing is not permitted there. Check owner and permissions of the directory.'],
  NOT_FOUND: ['never', 'The directory does not exist there. Create or mount it, or correct its path.'],
  NOT_A_FOLDER: ['never', 'A link or a file stands where a directory belongs. Remove it.'],
  FILE_TOO_LARGE: ['never', 'The far side refuses files of this length. Raise its limit.'],
  REMOTE_FILE_TOO_LARGE: [
    'never',
    'The file there is longer than it may be. It was not written by this product: remove it.',
  ],
  PROTOCOL_ERROR: [
    'never',
    'The answer makes no sense. Check that host and port belong to the right server and version.',
  ],
} as const satisfies Record<string, readonly [RetryClass, string]>

export type FaultCode = keyof typeof faults

/** A fault of the way or of the far side, with the hint that belongs to it. `cause` must hold no secret. */
export function transferFault(code: FaultCode, op: string, object: string, cause?: unknown): StorageError {
  const [retry, hint] = faults[code]
  return new StorageError(code, { op, object, hint, retry, cause })
}

const networkCodes: Record<string, FaultCode> = {
  ENOTFOUND: 'HOST_NOT_FOUND',
  EAI_AGAIN: 'HOST_NOT_FOUND',
  ECONNREFUSED: 'CONNECTION_REFUSED',
  EHOSTUNREACH: 'HOST_UNREACHABLE',
  ENETUNREACH: 'HOST_UNREACHABLE',
  EADDRNOTAVAIL: 'HOST_UNREACHABLE',
  ETIMEDOUT: 'LINK_TIMEOUT',
}

const tlsCode = /^(ERR_SSL|ERR_TLS|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|ERR_OSSL|EPROTO)/

/** Which fault an error of a socket is. What is not recognised is a lost connection. */
export function networkFault(error: unknown): FaultCode {
  // With several addresses Node tries each and wraps the errors; the first one says what the operator can mend.
  const code = errnoOf(error) ?? (error instanceof AggregateError ? errnoOf(error.errors[0]) : undefined) ?? ''
  return networkCodes[code] ?? (tlsCode.test(code) ? 'TLS_FAILED' : 'LINK_DOWN')
}

const diskCodes: Record<string, FaultCode> = {
  ENOENT: 'NOT_FOUND',
  ENOTDIR: 'NOT_A_FOLDER',
  ELOOP: 'NOT_A_FOLDER',
  EACCES: 'ACCESS_DENIED',
  EPERM: 'ACCESS_DENIED',
  EROFS: 'ACCESS_DENIED',
  ENOSPC: 'REMOTE_FULL',
  EDQUOT: 'REMOTE_FULL',
}

/** Which fault an error of a file system that holds the far side's files is. */
export function diskFault(error: unknown): FaultCode {
  return diskCodes[errnoOf(error) ?? ''] ?? 'REMOTE_FAULT'
}

const linkCodes: ReadonlySet<string> = new Set([
  'HOST_NOT_FOUND',
  'CONNECTION_REFUSED',
  'HOST_UNREACHABLE',
  'LINK_TIMEOUT',
  'LINK_DOWN',
  'REMOTE_BUSY',
])

/** True for a fault of the way that another try may find mended. */
export function isLinkFault(error: unknown): error is StorageError {
  return error instanceof StorageError && linkCodes.has(error.code)
}

/** A fault of the way as callers of put, list, read and remove see it: LINK_DOWN, the exact fault being its cause. */
export function asLinkDown(error: unknown): unknown {
  if (!isLinkFault(error) || error.code === 'LINK_DOWN') return error
  const { op, object, hint } = error
  return new StorageError('LINK_DOWN', { op, object, hint, retry: 'later', cause: error })
}
