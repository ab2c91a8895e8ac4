import { createHash } from 'node:crypto'
import https from 'node:https'
import tls from 'node:tls'
import type { StorageError } from '../block/storage-error.js'
import { transferFault } from './faults.js'
import type { HttpsEndpoint } from './pairing.js'

const CONNECTION_LIMIT = 8

/**
 * Keep-alive TLS connections to one far agent. Names and authorities mean nothing between two paired agents: the
 * certificate must be the one of the pairing. It is compared before the connection is handed out, so not one byte of a
 * request, and no token, goes to anybody else.
 */
export function pinnedAgent(endpoint: HttpsEndpoint, connectMs: number): https.Agent {
  const agent = new https.Agent({ keepAlive: true, maxSockets: CONNECTION_LIMIT, scheduling: 'lifo' })
  const connect = (_options: unknown, done: (error: Error | null, socket?: tls.TLSSocket) => void): undefined => {
    const { host, port, fingerprint } = endpoint
    const socket = tls.connect({
      host,
      port,
      minVersion: 'TLSv1.3',
      rejectUnauthorized: false,
      checkServerIdentity: () => undefined,
      noDelay: true,
    } as tls.ConnectionOptions)
    const settle = (error: Error | null): void => {
      socket.setTimeout(0)
      socket.off('error', settle).off('timeout', late).off('close', closed).off('secureConnect', compare)
      if (!error) {
        done(null, socket)
        return
      }
      socket.on('error', () => undefined)
      socket.destroy()
      done(error)
    }
    const late = (): void => settle(fault('LINK_TIMEOUT'))
    const closed = (): void => settle(fault('LINK_DOWN'))
    const compare = (): void => {
      const raw = socket.getPeerX509Certificate()?.raw ?? Buffer.alloc(0)
      const presented = createHash('sha256').update(raw).digest('hex')
      settle(presented === fingerprint ? null : fault('TLS_FINGERPRINT', `it shows ${presented.slice(0, 16)}…`))
    }
    const fault = (code: 'LINK_TIMEOUT' | 'LINK_DOWN' | 'TLS_FINGERPRINT', cause?: string): StorageError =>
      transferFault(code, 'connect', `https://${host}:${port}`, cause)
    socket.setTimeout(connectMs)
    socket.on('error', settle).on('timeout', late).on('close', closed).on('secureConnect', compare)
  }
  return Object.assign(agent, { createConnection: connect })
}
