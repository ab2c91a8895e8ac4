/**
 * The destination's listener. Everyone can reach it, so until a request has shown the token of a pairing it costs next
 * to nothing: its path is matched, its token compared, its body never read, its connection closed.
 */
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import https from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { makeFolder } from '../block/durable-file.js'
import type { ReportEvent } from '../block/event-log.js'
import { errnoOf, StorageError } from '../block/storage-error.js'
import type { Certificate } from './certificate.js'
import { diskFault } from './faults.js'
import {
  CHECKSUM_HEADER,
  HEADER_LIMIT_BYTES,
  MAX_FILE_BYTES,
  OFFSET_HEADER,
  parsePath,
  parseRange,
  type ResourcePath,
} from './https-protocol.js'
import { isSameToken } from './pairing-keys.js'
import { type FilePath, ReceiverFiles, Refusal } from './receiver-files.js'
import { StrangerLog } from './stranger-log.js'
import { UploadSlots } from './upload-slots.js'

export interface ReceiverOptions {
  readonly host: string
  /** 0: any free one. */
  readonly port: number
  readonly certificate: Certificate
  /** Made when missing. Files arrive as `<inbox>/<pairing>/<folder>/<name>`. */
  readonly inbox: string
  /** The bearer token of a pairing, undefined for one this agent does not know. */
  readonly authorize: (pairingId: string) => string | undefined
  /** May so many more bytes be stored for the pairing? No: the sender gets REMOTE_FULL and tries again later. */
  readonly mayStore?: (pairingId: string, bytes: number) => boolean
  /** A file is complete and durable under its name. */
  readonly onArrival?: (pairingId: string, folder: string, name: string) => void
  readonly report?: ReportEvent
  readonly limits?: Partial<ReceiverLimits>
}

export interface ReceiverLimits {
  readonly maxFileBytes: number
  readonly maxConnections: number
  /** Time for a TLS handshake, and for the request line and headers. */
  readonly headerMs: number
  /** A connection without a byte in either direction is closed after so long. */
  readonly idleMs: number
}

const defaults: ReceiverLimits = { maxFileBytes: MAX_FILE_BYTES, maxConnections: 128, headerMs: 10_000, idleMs: 60_000 }

/** After a refusal what is still coming is thrown away for so long, so that the sender reads the answer. */
const LINGER_MS = 2_000

export interface Receiver {
  readonly port: number
  /** Stops listening and ends what is under way; partial files stay for the next try. */
  close(): Promise<void>
}

/** @throws StorageError LISTEN when host and port cannot be had */
export async function startReceiver(options: ReceiverOptions): Promise<Receiver> {
  const limits = { ...defaults, ...options.limits }
  await makeFolder(options.inbox)
  const receiver = new RequestHandler(options, limits)
  const server = https.createServer(
    {
      ...options.certificate,
      minVersion: 'TLSv1.3',
      handshakeTimeout: limits.headerMs,
      maxHeaderSize: HEADER_LIMIT_BYTES,
      headersTimeout: limits.headerMs,
      // A body may take as long as it takes over a slow link; idleMs ends one that stands still.
      requestTimeout: 0,
      connectionsCheckingInterval: Math.min(1_000, limits.headerMs),
      keepAliveTimeout: limits.idleMs,
    },
    (request, response) => void receiver.handle(request, response),
  )
  server.maxConnections = limits.maxConnections
  server.timeout = limits.idleMs
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  // A request that cannot be parsed, or whose headers do not come: no answer is owed.
  server.on('clientError', (_error, socket) => socket.destroy())
  server.on('tlsClientError', (_error, socket) => socket.destroy())
  for (const event of ['upgrade', 'connect'] as const) server.on(event, (_request, socket) => socket.destroy())
  await listen(server, options)
  return {
    port: (server.address() as AddressInfo).port,
    async close() {
      const closed = once(server, 'close')
      server.close()
      for (const socket of sockets) socket.destroy()
      await closed
      await receiver.idle()
    },
  }
}

async function listen(server: https.Server, { host, port }: ReceiverOptions): Promise<void> {
  try {
    server.listen(port, host)
    await once(server, 'listening')
  } catch (cause) {
    throw new StorageError('LISTEN', {
      op: 'listen',
      object: `${host}:${port}`,
      cause,
      hint: 'The address is not of this machine or the port is in use. Choose another with --listen.',
    })
  }
}

class RequestHandler {
  readonly #options: ReceiverOptions
  readonly #limits: ReceiverLimits
  readonly #files: ReceiverFiles
  readonly #slots = new UploadSlots()
  readonly #strangers: StrangerLog
  readonly #working = new Set<Promise<void>>()

  constructor(options: ReceiverOptions, limits: ReceiverLimits) {
    this.#options = options
    this.#limits = limits
    this.#files = new ReceiverFiles(options.inbox)
    this.#strangers = new StrangerLog(options.report)
  }

  handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const work = this.#answer(request, response).finally(() => this.#working.delete(work))
    this.#working.add(work)
    return work
  }

  async idle(): Promise<void> {
    await Promise.all(this.#working)
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const path = parsePath(request.url ?? '')
      if (!path) return this.#turnAway(request, response, 404)
      if (!this.#isAuthorized(path, request)) return this.#turnAway(request, response, 401)
      await this.#serve(path, request, response)
    } catch (error) {
      // The peer is gone: what it sent so far is kept, there is nobody to answer.
      if (request.socket.destroyed || response.destroyed) return
      refuse(request, response, this.#statusOf(error, request.url ?? ''))
    }
  }

  #isAuthorized({ pairing }: ResourcePath, request: IncomingMessage): boolean {
    const tokens = request.headersDistinct.authorization ?? []
    const given = /^Bearer ([0-9a-f]{64})$/.exec(tokens[0] ?? '')?.[1]
    const expected = this.#options.authorize(pairing)
    // Both are compared even when there is nothing to compare with: an unknown pairing takes as long as a wrong token.
    const same = isSameToken(given ?? '', expected ?? 'none')
    return same && tokens.length === 1 && given !== undefined && expected !== undefined
  }

  #turnAway(request: IncomingMessage, response: ServerResponse, status: number): void {
    this.#strangers.note(request.socket.remoteAddress ?? 'unknown', status)
    response.writeHead(status, { connection: 'close', 'content-length': 0 })
    response.end(() => request.socket.destroySoon())
  }

  async #serve(path: ResourcePath, request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (isFile(path)) {
      if (request.method === 'PUT') return this.#put(path, request, response)
      if (request.method === 'HEAD') return this.#head(path, response)
      if (request.method === 'GET') return this.#get(path, response)
      if (request.method === 'DELETE') {
        await this.#files.remove(path)
        response.writeHead(204).end()
        return
      }
    } else if (request.method === 'GET') {
      const files = await this.#files.list(path)
      const text = files.map(({ name, lengthBytes }) => `${lengthBytes} ${name}\n`).join('')
      response.writeHead(200, { 'content-type': 'text/plain', 'content-length': Buffer.byteLength(text) }).end(text)
      return
    }
    throw new Refusal(405, 'no such method')
  }

  async #head(path: FilePath, response: ServerResponse): Promise<void> {
    if (!(await this.#slots.settle(keyOf(path)))) throw new Refusal(423, 'another upload goes on')
    const partial = await this.#files.partial(path)
    if (!partial) throw new Refusal(404, 'nothing to resume')
    const { lengthBytes, checksum } = partial
    response.writeHead(200, { [OFFSET_HEADER]: lengthBytes, [CHECKSUM_HEADER]: checksum }).end()
  }

  async #get(path: FilePath, response: ServerResponse): Promise<void> {
    const file = await this.#files.open(path)
    if (!file) throw new Refusal(404, 'no such file')
    const { handle, lengthBytes } = file
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': lengthBytes })
    if (lengthBytes === 0) {
      response.end()
      await handle.close()
      return
    }
    await pipeline(handle.createReadStream({ start: 0, end: lengthBytes - 1 }), response)
  }

  async #put(path: FilePath, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pairing, folder, name } = path
    const length = request.headers['content-length']
    if (request.headers['transfer-encoding'] !== undefined || !/^\d{1,15}$/.test(length ?? '')) {
      throw new Refusal(411, 'no length')
    }
    const range = parseRange(request.headers['content-range'], Number(length))
    if (!range) throw new Refusal(416, 'range and length do not fit')
    if (range.total > this.#limits.maxFileBytes) throw new Refusal(413, `${range.total} bytes are too many`)
    if (!(this.#options.mayStore?.(pairing, Number(length)) ?? true)) throw new Refusal(507, 'no room')
    const slot = await this.#slots.take(keyOf(path), () => request.socket.destroy())
    if (!slot) throw new Refusal(423, 'another upload goes on')
    try {
      // Leaving the loop over a body early must not destroy the connection the refusal goes out by.
      const body = request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>
      await this.#files.store(path, range, body, slot.progress)
    } finally {
      slot.release()
    }
    response.writeHead(201, { 'content-length': 0 }).end()
    this.#options.onArrival?.(pairing, folder, name)
  }

  #statusOf(error: unknown, object: string): number {
    if (error instanceof Refusal) return error.status
    const fault = errnoOf(error) === undefined ? 'REMOTE_FAULT' : diskFault(error)
    const text = error instanceof Error ? error.message : String(error)
    this.#options.report?.({ severity: 'error', code: fault, object, text: `The arrival buffer failed: ${text}` })
    return fault === 'REMOTE_FULL' ? 507 : 500
  }
}

/** Answer, and let what the peer is still sending run dry: a connection closed at once takes the answer with it. */
function refuse(request: IncomingMessage, response: ServerResponse, status: number): void {
  if (response.headersSent) {
    request.socket.destroy()
    return
  }
  const sent = request.complete || request.headers['content-length'] === undefined
  response.writeHead(status, { 'content-length': 0, ...(sent ? {} : { connection: 'close' }) })
  response.end()
  if (sent) return
  request.resume()
  const timer = setTimeout(() => request.socket.destroy(), LINGER_MS)
  request.socket.once('close', () => clearTimeout(timer))
}

function isFile(path: ResourcePath): path is FilePath {
  return path.name !== undefined
}

function keyOf({ pairing, folder, name }: FilePath): string {
  return `${pairing}/${folder}/${name}`
}
