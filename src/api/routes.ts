/** Every request the agent answers, one entry each; the server turns them into HTTP. */
import { checkName } from '../block/names.js'
import { parseDuration } from '../block/size.js'
import type { CreatePairing, StreamPolicyChange } from './agent-operations.js'
import { badRequest } from './failure-reply.js'
import { poolRoutes } from './pool-routes.js'
import { changed, create, emptied, named, type Route, read } from './route.js'
import type { Static } from './schemas.js'
import * as schemas from './schemas.js'
import { volumeRoutes } from './volume-routes.js'

/** One call of streamWait never holds a connection longer. */
export const WAIT_LIMIT_MS = 60_000

const destinationRoutes: Route[] = [
  create('/v1/pairings', schemas.createPairingBody, schemas.pairingView, (operations, body) =>
    operations.pairingCreate(pairingRequest(body)),
  ),
  read('/v1/destinations', schemas.listOf(schemas.destinationView), (operations) => operations.destinationList()),
  create('/v1/destinations', schemas.addDestinationBody, schemas.destinationView, (operations, body) =>
    operations.destinationAdd({ name: checkName('destination', body.name), pairing: body.pairing }),
  ),
  named('POST', '/v1/destinations/:name/test', schemas.destinationTestView, (operations, name) =>
    operations.destinationTest(name),
  ),
  named('DELETE', '/v1/destinations/:name', schemas.nothing, (operations, name) =>
    emptied(operations.destinationRemove(name)),
  ),
]

const streamRoutes: Route[] = [
  read('/v1/streams', schemas.listOf(schemas.streamView), (operations) => operations.streamList()),
  create('/v1/streams', schemas.createStreamBody, schemas.streamView, (operations, body) =>
    operations.streamCreate({
      name: checkName('stream', body.name),
      volumes: body.volumes.map((volume) => checkName('volume', volume)),
      destination: checkName('destination', body.destination),
      ...(body.epoch === undefined ? {} : { epochMs: milliseconds(body.epoch) }),
      ...(body.policy === undefined && body.wait === undefined ? {} : { policy: policyOf(body) }),
    }),
  ),
  changed('/v1/streams/:name/set', schemas.setStreamBody, schemas.streamView, (operations, name, body) =>
    operations.streamSet(name, policyOf(body)),
  ),
  named('GET', '/v1/streams/:name', schemas.streamView, (operations, name) => operations.streamStatus(name)),
  named(
    'DELETE',
    '/v1/streams/:name',
    schemas.nothing,
    (operations, name, { discardJournal }) => emptied(operations.streamRemove(name, discardJournal === 'true')),
    schemas.discardJournalQuery,
  ),
  named(
    'POST',
    '/v1/streams/:name/initialize',
    schemas.streamView,
    (operations, name, { discardJournal }) => operations.streamInitialize(name, discardJournal === 'true'),
    schemas.discardJournalQuery,
  ),
  named('POST', '/v1/streams/:name/flush', schemas.flushView, (operations, name) => operations.streamFlush(name)),
  changed('/v1/streams/:name/buffer/move', schemas.moveBufferBody, schemas.streamView, (operations, name, body) =>
    operations.bufferMove(name, body.directory),
  ),
  named('POST', '/v1/streams/:name/buffer/abort', schemas.streamView, (operations, name) =>
    operations.bufferMove(name, null),
  ),
  changed('/v1/streams/:name/verify', schemas.verifyStreamBody, schemas.streamView, (operations, name, body) =>
    operations.streamVerify(name, body.repair ?? true),
  ),
  named('POST', '/v1/streams/:name/verify/abort', schemas.streamView, (operations, name) =>
    operations.streamVerify(name, null),
  ),
  named('POST', '/v1/streams/:name/pause', schemas.streamView, (operations, name) => operations.streamPause(name)),
  named('POST', '/v1/streams/:name/resume', schemas.streamView, (operations, name) => operations.streamResume(name)),
  {
    method: 'GET',
    url: '/v1/streams/:name/wait',
    params: schemas.nameParams,
    query: schemas.waitQuery,
    response: schemas.waitView,
    handle: (operations, { params, query }) => {
      const { epoch, timeoutMs } = query as Static<typeof schemas.waitQuery>
      const limitMs = Math.min(timeoutMs === undefined ? WAIT_LIMIT_MS : Number(timeoutMs), WAIT_LIMIT_MS)
      return operations.streamWait(
        checkName('stream', (params as Static<typeof schemas.nameParams>).name),
        Number(epoch),
        limitMs,
      )
    },
  },
]

export const routes: readonly Route[] = [
  read('/v1/agent', schemas.agentView, (operations) => operations.agent()),
  ...poolRoutes,
  ...volumeRoutes,
  ...destinationRoutes,
  ...streamRoutes,
  read('/v1/inbound', schemas.listOf(schemas.inboundView), (operations) => operations.inboundList()),
  named('GET', '/v1/inbound/:name', schemas.inboundView, (operations, name) => operations.inboundShow(name)),
  named(
    'DELETE',
    '/v1/inbound/:name',
    schemas.nothing,
    (operations, name, { yes }) => emptied(operations.inboundRemove(name, yes === 'true')),
    schemas.yesQuery,
  ),
]

function milliseconds(given: number | string): number {
  return typeof given === 'number' ? given : parseDuration(given)
}

function policyOf({ policy, wait }: Static<typeof schemas.setStreamBody>): StreamPolicyChange {
  return {
    ...(policy === undefined ? {} : { kind: policy }),
    ...(wait === undefined ? {} : { waitMs: milliseconds(wait) }),
  }
}

/** Each kind of pairing has fields of its own; one of another kind is a mistake, not to be passed over. */
function pairingRequest(body: Static<typeof schemas.createPairingBody>): CreatePairing {
  const { kind, listen, url, inbox, directory, ...rest } = body
  const given = Object.entries({ listen, url, inbox, directory, ...rest })
    .filter(([, value]) => value !== undefined)
    .map(([field]) => field)
  const refuse = (takes: string) =>
    badRequest('pairing create', kind, `it takes ${takes}, not ${given.join(', ') || 'nothing'}`)
  if (kind === 'https') {
    if (given.some((field) => field !== 'listen')) throw refuse('listen or nothing')
    return listen === undefined ? { kind } : { kind, listen }
  }
  if (kind === 'ftp') {
    if (given.length !== 2 || url === undefined || inbox === undefined) throw refuse('url and inbox')
    return { kind, url, inbox }
  }
  if (given.length !== 1 || directory === undefined) throw refuse('directory')
  return { kind, directory }
}
