import type { ClientRequest, IncomingHttpHeaders, IncomingMessage } from 'node:http'
import https from 'node:https'
import { StorageError } from '../block/storage-error.js'
import { type FaultCode, networkFault, transferFault } from './faults.js'
import { formatPath } from './https-protocol.js'
import { describeEndpoint, type HttpsEndpoint } from './pairing.js'
import { pinnedAgent } from './pinned-agent.js'
import type { SourceFile } from './source-file.js'

export interface HttpsTimeouts {
  /** For name, TCP and TLS together. */
  readonly connectMs: number
  /** Without a byte in either direction. */
  readonly idleMs: number
}

const defaults: HttpsTimeouts = { connectMs: 10_000, idleMs: 30_000 }

export interface RequestOptions {
  readonly method: 'GET' | 'HEAD' | 'PUT' | 'DELETE'
  readonly folder: string
  readonly name?: string
  readonly signal: AbortSignal
  /** A longer answer is REMOTE_FILE_TOO_LARGE. */
  readonly limitBytes: number
  readonly headers?: Record<string, string | number>
  /** Bytes of the source from `start` to its end. */
  readonly body?: { readonly source: SourceFile; readonly start: number; readonly onSent: (bytes: number) => void }
}

export interface Reply {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

/** One request and its answer, over the pinned connections to one far agent. Every failure is a StorageError. */
export class HttpsClient {
  readonly #endpoint: HttpsEndpoint
  readonly #pairing: string
  readonly #token: string
  readonly #timeouts: HttpsTimeouts
  readonly #agent: https.Agent
  readonly #closing = new AbortController()
  /** The last answer came from one who knows the pairing. */
  accepted = false

  constructor(endpoint: HttpsEndpoint, pairing: string, token: string, timeouts: Partial<HttpsTimeouts> = {}) {
    this.#endpoint = endpoint
    this.#pairing = pairing
    this.#token = token
    this.#timeouts = { ...defaults, ...timeouts }
    this.#agent = pinnedAgent(endpoint, this.#timeouts.connectMs)
  }

  describe(object: string): string {
    return `${describeEndpoint(this.#endpoint)} ${object}`
  }

  close(): void {
    this.#closing.abort()
    this.#agent.destroy()
  }

  /** @throws StorageError the exact fault of the way; an abort rejects with the signal's reason */
  async request(options: RequestOptions): Promise<Reply> {
    const { method, folder, name, signal } = options
    const object = this.describe(name === undefined ? folder : `${folder}/${name}`)
    const fault = (code: FaultCode, cause?: unknown) => transferFault(code, method, object, cause)
    if (this.#closing.signal.aborted) throw fault('LINK_DOWN', 'the transport was closed')
    signal.throwIfAborted()
    const request = https.request({
      agent: this.#agent,
      method,
      host: this.#endpoint.host,
      port: this.#endpoint.port,
      path: formatPath({ pairing: this.#pairing, folder, ...(name !== undefined && { name }) }),
      headers: { ...options.headers, authorization: `Bearer ${this.#token}` },
    })
    const stop = (): void => void request.destroy()
    signal.addEventListener('abort', stop, { once: true })
    this.#closing.signal.addEventListener('abort', stop, { once: true })
    try {
      request.setTimeout(this.#timeouts.idleMs, () => request.destroy(fault('LINK_TIMEOUT')))
      const reply = await exchange(request, options, fault)
      this.accepted = reply.status !== 401
      return reply
    } catch (error) {
      this.accepted = false
      request.destroy()
      signal.throwIfAborted()
      throw error instanceof StorageError ? error : fault(networkFault(error), error)
    } finally {
      signal.removeEventListener('abort', stop)
      this.#closing.signal.removeEventListener('abort', stop)
    }
  }
}

async function exchange(
  request: ClientRequest,
  options: RequestOptions,
  fault: (code: FaultCode, cause?: unknown) => StorageError,
): Promise<Reply> {
  const answered = new Promise<IncomingMessage>((resolve, reject) => {
    request.once('response', resolve)
    // Stays on: an error after the answer has begun is reported by the answer too.
    request.on('error', reject)
    request.once('close', () => reject(new Error('the connection was closed')))
  })
  answered.catch(() => undefined)
  // A refusal may come while the body is still going out; then the answer counts, not the broken sending.
  const sending = send(request, options, answered)
  sending.catch(() => undefined)
  const response = await Promise.race([answered, sending.then(() => answered)])
  const limit = options.method === 'HEAD' ? 0 : options.limitBytes
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    length += chunk.length
    if (length > limit && response.statusCode === 200) throw fault('REMOTE_FILE_TOO_LARGE')
    if (length <= limit) chunks.push(chunk)
    else throw fault('PROTOCOL_ERROR', 'an answer that should be empty is not')
  }
  if (!response.complete) throw new Error('the answer was cut short')
  const status = response.statusCode ?? 0
  // The body must be over before the connection is used again.
  if (status === 201) await sending
  return { status, headers: response.headers, body: Buffer.concat(chunks) }
}

async function send(
  request: ClientRequest,
  { body, signal }: RequestOptions,
  answered: Promise<unknown>,
): Promise<void> {
  if (body) {
    let over = false
    const end = (): void => {
      over = true
    }
    answered.then(end, end)
    for await (const chunk of body.source.read(body.start, body.source.lengthBytes, signal)) {
      if (over || request.destroyed) return
      if (!request.write(chunk)) await drained(request)
      body.onSent(chunk.length)
    }
  }
  request.end()
}

async function drained(request: ClientRequest): Promise<void> {
  await new Promise<void>((resolve) => {
    const end = (): void => {
      request.off('drain', end).off('close', end)
      resolve()
    }
    request.on('drain', end).on('close', end)
  })
}
