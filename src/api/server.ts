/**
 * The agent's API: HTTP with JSON on a unix socket that only its owner can open.
 *
 * What arrives is not trusted all the same: bodies are limited and checked strictly, pages of a browser (Origin, a
 * foreign Host) are refused, and what nobody foresaw is a 500 whose details stay in the log.
 */
import type { ServerResponse } from 'node:http'
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { StorageError } from '../block/storage-error.js'
import type { AgentOperations } from './agent-operations.js'
import { eventFeed } from './event-feed.js'
import { badRequest, failureReply } from './failure-reply.js'
import { serializerOnDemand, validatorOnDemand } from './on-demand.js'
import { claimSocket } from './private-socket.js'
import { routes } from './routes.js'
import * as schemas from './schemas.js'
import { JsonRefusal, parseStrictJson } from './strict-json.js'

export const BODY_LIMIT_BYTES = 1024 * 1024
export const CONNECTION_LIMIT = 256
export const FOLLOWER_LIMIT = 32
/** The time a client has to send its whole request. */
const REQUEST_TIMEOUT_MS = 30_000
/** The time requests have to finish when the agent stops. */
const CLOSE_LIMIT_MS = 3000

const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const
const hosts = new Set(['localhost', 'tidemark'])

/** A pino logger is one. */
export interface ApiLog {
  info(details: object, message: string): void
  warn(details: object, message: string): void
  error(details: object, message: string): void
}

export interface Api {
  /** No new requests; those under way get CLOSE_LIMIT_MS. The socket is gone when it resolves. */
  close(): Promise<void>
}

/**
 * Serve the operations on the socket.
 *
 * @throws StorageError AGENT_RUNNING, UNSAFE_SOCKET, SOCKET_PATH_TOO_LONG, SOCKET_FAILED
 */
export async function startApi(options: {
  operations: AgentOperations
  socketPath: string
  log: ApiLog
}): Promise<Api> {
  const { operations, socketPath, log } = options
  const app = makeServer(log)
  const stopping = new AbortController()
  addRoutes(app, operations)
  addEvents(app, operations, stopping.signal, log)
  refuseOtherMethods(app)
  await app.ready()
  const socket = await claimSocket(socketPath, (path) => app.listen({ path })).catch(async (error) => {
    await app.close()
    throw error
  })
  log.info({ socketPath }, 'the API is served')
  return {
    close: async () => {
      await socket.remove()
      stopping.abort()
      const limit = setTimeout(() => app.server.closeAllConnections(), CLOSE_LIMIT_MS)
      await app.close()
      clearTimeout(limit)
    },
  }
}

function makeServer(log: ApiLog): FastifyInstance {
  const refuse = (error: unknown, request: FastifyRequest, reply: FastifyReply) => {
    const op = opOf(request)
    const { status, body, unexpected } = failureReply(error, op)
    if (unexpected) log.error({ err: error, op }, 'a request failed for an unforeseen reason')
    else if (body.error.code === 'BAD_REQUEST') log.warn({ op, reason: body.error.message }, 'a request was refused')
    // A body that was not read to its end is cut off, not waited for.
    if (status === 413) reply.header('connection', 'close')
    return reply.code(status).send(body)
  }
  const app = fastify({
    bodyLimit: BODY_LIMIT_BYTES,
    requestTimeout: REQUEST_TIMEOUT_MS,
    forceCloseConnections: 'idle',
    routerOptions: { maxParamLength: 4096 },
    frameworkErrors: refuse,
    clientErrorHandler: (_error, socket) => {
      const body = JSON.stringify(failureReply(badRequest('request', 'HTTP', 'it is malformed'), 'request').body)
      const head = `HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n`
      if (socket.writable) socket.end(head + body)
      else socket.destroy()
    },
  })
  app.setValidatorCompiler(validatorOnDemand())
  app.setSerializerCompiler(serializerOnDemand())
  app.server.maxConnections = CONNECTION_LIMIT
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('application/json', { parseAs: 'string' }, async (request: FastifyRequest, text: string) => {
    try {
      return parseStrictJson(text)
    } catch (error) {
      throw error instanceof JsonRefusal ? badRequest(opOf(request), 'body', error.message) : error
    }
  })
  app.addHook('onRequest', async (request) => refuseStrangers(request))
  app.setErrorHandler(refuse)
  app.setNotFoundHandler((request, reply) => {
    const error = badRequest(opOf(request), 'request', 'there is no such route')
    reply.code(404).send(failureReply(error, 'request').body)
  })
  return app
}

/** A browser page that found a way to the socket (a proxy, a rebound name) betrays itself by one of these. */
function refuseStrangers(request: FastifyRequest): void {
  const { host, origin } = request.headers
  if (origin !== undefined || request.headers['sec-fetch-site'] !== undefined) {
    throw forbidden(opOf(request), 'it comes from a web page')
  }
  if (host === undefined || !hosts.has(host.toLowerCase())) throw forbidden(opOf(request), 'its Host is not localhost')
}

function forbidden(op: string, cause: string): StorageError {
  return new StorageError('FORBIDDEN', {
    op,
    object: 'request',
    cause,
    hint: 'The API is for local programs: use the tidemark command, or send Host: localhost and no Origin.',
  })
}

/** Method and route, never the query or the body. */
function opOf(request: FastifyRequest): string {
  return `${request.method} ${request.routeOptions?.url ?? '(no route)'}`
}

function addRoutes(app: FastifyInstance, operations: AgentOperations): void {
  for (const route of routes) {
    app.route({
      method: route.method,
      url: route.url,
      schema: {
        ...(route.params ? { params: route.params } : {}),
        ...(route.body ? { body: route.body } : {}),
        querystring: route.query,
        response: { 200: route.response },
      },
      handler: async (request) => {
        const { params, query, body } = request
        // An action takes no body; an empty object is what some clients send for none.
        if (!route.body && body !== undefined && !isEmptyObject(body)) {
          throw badRequest(opOf(request), 'body', 'this request takes no body')
        }
        return route.handle(operations, { params, query, body })
      },
    })
  }
}

function isEmptyObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && Object.keys(value).length === 0
}

/** GET /v1/events: an array of what has happened; with follow=true one JSON line an event until the client leaves. */
function addEvents(app: FastifyInstance, operations: AgentOperations, stopping: AbortSignal, log: ApiLog): void {
  let followers = 0
  app.route({
    method: 'GET',
    url: '/v1/events',
    schema: { querystring: schemas.eventsQuery, response: { 200: schemas.listOf(schemas.eventView) } },
    handler: async (request, reply) => {
      const { after, follow } = request.query as schemas.Static<typeof schemas.eventsQuery>
      const afterNumber = Number(after ?? 0)
      if (follow !== 'true') return operations.events(afterNumber)
      if (followers >= FOLLOWER_LIMIT) throw tooManyFollowers()
      followers += 1
      reply.hijack()
      try {
        await streamEvents(operations, afterNumber, reply.raw, stopping)
      } catch (error) {
        log.error({ err: error }, 'a follower of events was dropped')
        reply.raw.destroy()
      } finally {
        followers -= 1
      }
    },
  })
}

async function streamEvents(
  operations: AgentOperations,
  afterNumber: number,
  response: ServerResponse,
  stopping: AbortSignal,
): Promise<void> {
  const left = new AbortController()
  response.once('close', () => left.abort())
  const signal = AbortSignal.any([left.signal, stopping])
  response.writeHead(200, { 'content-type': 'application/x-ndjson', connection: 'close' })
  response.flushHeaders()
  for await (const event of eventFeed(operations, afterNumber, signal)) {
    if (!response.write(`${JSON.stringify(event)}\n`)) await drained(response, signal)
  }
  response.end()
}

function drained(response: ServerResponse, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const settle = () => {
      response.off('drain', settle)
      signal.removeEventListener('abort', settle)
      resolve()
    }
    if (signal.aborted) return resolve()
    response.once('drain', settle)
    signal.addEventListener('abort', settle)
  })
}

function tooManyFollowers(): StorageError {
  return new StorageError('TOO_MANY_FOLLOWERS', {
    op: 'events',
    object: 'agent',
    hint: `${FOLLOWER_LIMIT} programs follow the events already. Stop one of them.`,
    retry: 'later',
  })
}

/** A known address with another method is 405 and says which methods there are. */
function refuseOtherMethods(app: FastifyInstance): void {
  const byUrl = new Map<string, Set<string>>([['/v1/events', new Set(['GET', 'HEAD'])]])
  for (const { url, method } of routes) {
    const known = byUrl.get(url) ?? new Set()
    known.add(method)
    if (method === 'GET') known.add('HEAD')
    byUrl.set(url, known)
  }
  for (const [url, known] of byUrl) {
    app.route({
      method: methods.filter((method) => !known.has(method)),
      url,
      handler: async (request, reply) => {
        const error = badRequest(opOf(request), 'request', 'the route does not take this method')
        return reply
          .code(405)
          .header('allow', [...known].join(', '))
          .send(failureReply(error, opOf(request)).body)
      },
    })
  }
}
