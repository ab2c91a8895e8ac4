import { randomBytes } from 'node:crypto'

/**
 * What one site tells the other, once, by hand: where to send and how to prove it. Printed at the destination as one
 * string, pasted at the source. It is a secret.
 */
export interface Pairing {
  /** 16 bytes: names the pair of sites, and the folder at the destination. */
  readonly id: Buffer
  /** 32 bytes: every key of the pair is derived from it. */
  readonly secret: Buffer
  readonly endpoint: Endpoint
}

export const PAIRING_ID_BYTES = 16
export const PAIRING_SECRET_BYTES = 32

export type Endpoint = FolderEndpoint | HttpsEndpoint | FtpEndpoint

export interface FolderEndpoint {
  readonly kind: 'folder'
  readonly directory: string
}

export interface HttpsEndpoint {
  readonly kind: 'https'
  readonly host: string
  readonly port: number
  /** SHA-256 of the certificate (DER), 64 lower-case hex digits. */
  readonly fingerprint: string
}

export interface FtpEndpoint {
  readonly kind: 'ftp'
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  /** Relative to the login directory, or absolute; empty is the login directory itself. */
  readonly directory: string
  readonly tls: 'none' | 'explicit' | 'implicit'
}

/** A new pair of sites: id and secret are random. */
export function newPairing(endpoint: Endpoint): Pairing {
  return { id: randomBytes(PAIRING_ID_BYTES), secret: randomBytes(PAIRING_SECRET_BYTES), endpoint }
}

/** Where an endpoint is, for people: never a password. */
export function describeEndpoint(endpoint: Endpoint): string {
  if (endpoint.kind === 'folder') return endpoint.directory
  const host = endpoint.host.includes(':') ? `[${endpoint.host}]` : endpoint.host
  if (endpoint.kind === 'https') return `https://${host}:${endpoint.port}`
  const scheme = { none: 'ftp', explicit: 'ftpes', implicit: 'ftps' }[endpoint.tls]
  return `${scheme}://${endpoint.user}@${host}:${endpoint.port}/${endpoint.directory}`
}
