import { isIP } from 'node:net'
import path from 'node:path'
import type { Endpoint } from './pairing.js'

export const HOST_LIMIT = 253
export const DIRECTORY_LIMIT = 1024
export const CREDENTIAL_LIMIT = 255

const hostPattern = /^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$/
const fingerprintPattern = /^[0-9a-f]{64}$/
// Whatever could end a line or hide in one; an FTP command is a line.
const controlCharacters = /[\p{Cc}\p{Zl}\p{Zp}]/u
const ftpDirectoryPattern = /^[\p{L}\p{N}._~@+/ -]*$/u

/** What is wrong with an endpoint, in one sentence, or undefined. The sentence quotes no secret. */
export function endpointFault(endpoint: Endpoint): string | undefined {
  if (endpoint.kind === 'folder') return folderFault(endpoint.directory)
  if (!isHost(endpoint.host)) return 'The host is neither a name nor an address.'
  if (!Number.isInteger(endpoint.port) || endpoint.port < 1 || endpoint.port > 65_535)
    return 'The port is not 1 to 65535.'
  if (endpoint.kind === 'https') {
    return fingerprintPattern.test(endpoint.fingerprint) ? undefined : 'The fingerprint is not 64 hex digits.'
  }
  if (!isCredential(endpoint.user) || endpoint.user === '')
    return 'The FTP user is empty, too long or has odd characters.'
  if (!isCredential(endpoint.password)) return 'The FTP password is too long or has control characters.'
  return ftpDirectoryFault(endpoint.directory)
}

function folderFault(directory: string): string | undefined {
  if (!path.isAbsolute(directory) || path.normalize(directory) !== directory) return 'The folder is no absolute path.'
  if (directory.length > DIRECTORY_LIMIT || controlCharacters.test(directory)) {
    return 'The folder has control characters or is too long.'
  }
  return undefined
}

function ftpDirectoryFault(directory: string): string | undefined {
  if (directory.length > DIRECTORY_LIMIT || !ftpDirectoryPattern.test(directory)) {
    return 'The FTP directory may have letters, digits, spaces and . _ ~ @ + - only.'
  }
  const parts = directory.split('/')
  return parts.some((part) => part === '..' || part.startsWith('-'))
    ? 'The FTP directory has a .. or a leading dash.'
    : undefined
}

function isHost(host: string): boolean {
  return isIP(host) !== 0 || (host.length <= HOST_LIMIT && hostPattern.test(host) && !host.includes('..'))
}

function isCredential(text: string): boolean {
  return text.length <= CREDENTIAL_LIMIT && !controlCharacters.test(text)
}
