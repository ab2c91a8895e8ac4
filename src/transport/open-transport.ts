import { folderTransport } from './folder-transport.js'
import { ftpTransport } from './ftp-transport.js'
import { httpsTransport } from './https-transport.js'
import type { Pairing } from './pairing.js'
import { bearerToken } from './pairing-keys.js'
import type { Transport } from './transport.js'

/** The way to the other site that a pairing names. Nothing is connected yet; the caller closes it. */
export function openTransport(pairing: Pairing): Transport {
  const { endpoint, id } = pairing
  if (endpoint.kind === 'folder') return folderTransport(endpoint, id)
  if (endpoint.kind === 'https') return httpsTransport(endpoint, id, bearerToken(pairing))
  return ftpTransport(endpoint, id)
}
