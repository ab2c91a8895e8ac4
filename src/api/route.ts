import { checkName } from '../block/names.js'
import type { AgentOperations } from './agent-operations.js'
import type { Static, TSchema } from './schemas.js'
import * as schemas from './schemas.js'

/** One request the agent answers. */
export interface Route {
  readonly method: 'GET' | 'POST' | 'DELETE'
  readonly url: string
  readonly params?: TSchema
  readonly query: TSchema
  readonly body?: TSchema
  readonly response: TSchema
  readonly handle: (operations: AgentOperations, request: RouteRequest) => Promise<unknown>
}

/** What has passed the schemas. */
export interface RouteRequest {
  readonly params: unknown
  readonly query: unknown
  readonly body: unknown
}

export const read = (
  url: string,
  response: TSchema,
  handle: (operations: AgentOperations) => Promise<unknown>,
): Route => ({ method: 'GET', url, query: schemas.noQuery, response, handle })

/** A route about one object: its name is checked before anything is done with it. */
export const named = <Q extends TSchema = typeof schemas.noQuery>(
  method: Route['method'],
  url: string,
  response: TSchema,
  handle: (operations: AgentOperations, name: string, query: Static<Q>) => Promise<unknown>,
  query?: Q,
): Route => ({
  method,
  url,
  params: schemas.nameParams,
  query: query ?? schemas.noQuery,
  response,
  handle: (operations, request) => handle(operations, nameOf(url, request), request.query as Static<Q>),
})

export const create = <S extends TSchema>(
  url: string,
  body: S,
  response: TSchema,
  handle: (operations: AgentOperations, body: Static<S>) => Promise<unknown>,
): Route => ({
  method: 'POST',
  url,
  query: schemas.noQuery,
  body,
  response,
  handle: (operations, request) => handle(operations, request.body as Static<S>),
})

/** An action on one object that takes a body. */
export const changed = <S extends TSchema>(
  url: string,
  body: S,
  response: TSchema,
  handle: (operations: AgentOperations, name: string, body: Static<S>) => Promise<unknown>,
): Route => ({
  method: 'POST',
  url,
  params: schemas.nameParams,
  query: schemas.noQuery,
  body,
  response,
  handle: (operations, request) => handle(operations, nameOf(url, request), request.body as Static<S>),
})

export const emptied = async (done: Promise<void>): Promise<Record<string, never>> => {
  await done
  return {}
}

function nameOf(url: string, { params }: RouteRequest): string {
  return checkName(nounOf(url), (params as Static<typeof schemas.nameParams>).name)
}

/** `/v1/volumes/:name` is about a volume. */
function nounOf(url: string): string {
  const noun = url.split('/')[2] ?? 'agent'
  return noun === 'inbound' ? 'inbound stream' : noun.replace(/s$/, '')
}
