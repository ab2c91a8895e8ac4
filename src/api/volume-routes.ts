import { checkName } from '../block/names.js'
import { parseSize } from '../block/size.js'
import type { AgentOperations, VolumeView } from './agent-operations.js'
import { badRequest } from './failure-reply.js'
import { changed, create, emptied, named, type Route, read } from './route.js'
import type { Static, TSchema } from './schemas.js'
import * as schemas from './schemas.js'

/** A route about one snapshot of a volume. */
const ofSnapshot = <Q extends TSchema = typeof schemas.noQuery>(
  method: Route['method'],
  action: string,
  response: TSchema,
  handle: (operations: AgentOperations, volume: string, snapshot: string, query: Static<Q>) => Promise<unknown>,
  query?: Q,
): Route => ({
  method,
  url: `/v1/volumes/:name/snapshots/:snapshot${action}`,
  params: schemas.snapshotParams,
  query: query ?? schemas.noQuery,
  response,
  handle: (operations, request) => {
    const { name, snapshot } = request.params as Static<typeof schemas.snapshotParams>
    const names = [checkName('volume', name), checkName('snapshot', snapshot)] as const
    return handle(operations, ...names, request.query as Static<Q>)
  },
})

export const volumeRoutes: readonly Route[] = [
  read('/v1/volumes', schemas.listOf(schemas.volumeView), (operations) => operations.volumeList()),
  create('/v1/volumes', schemas.createVolumeBody, schemas.volumeView, createVolume),
  changed('/v1/volumes/:name/adopt', schemas.adoptBody, schemas.volumeView, (operations, name, { path }) =>
    operations.volumeAdopt({ name, path }),
  ),
  named('GET', '/v1/volumes/:name', schemas.volumeView, (operations, name) => operations.volumeShow(name)),
  named(
    'DELETE',
    '/v1/volumes/:name',
    schemas.nothing,
    (operations, name, { yes }) => emptied(operations.volumeRemove(name, yes === 'true')),
    schemas.yesQuery,
  ),
  named(
    'POST',
    '/v1/volumes/:name/attach',
    schemas.volumeView,
    (operations, name, { readOnly }) => operations.volumeAttach(name, readOnly === 'true'),
    schemas.attachQuery,
  ),
  named('POST', '/v1/volumes/:name/detach', schemas.volumeView, (operations, name) => operations.volumeDetach(name)),
  changed('/v1/volumes/:name/resize', schemas.resizeBody, schemas.volumeView, (operations, name, { size, force }) =>
    operations.volumeResize(name, parseSize(String(size)), force ?? false),
  ),
  named(
    'GET',
    '/v1/volumes/:name/diff',
    schemas.diffView,
    (operations, name, { from, to, after }) =>
      operations.volumeDiff(
        name,
        checkName('snapshot', from),
        to === undefined ? null : checkName('snapshot', to),
        Number(after ?? 0),
      ),
    schemas.diffQuery,
  ),
  named('GET', '/v1/volumes/:name/snapshots', schemas.listOf(schemas.snapshotView), (operations, name) =>
    operations.snapshotList(name),
  ),
  changed('/v1/volumes/:name/snapshots', schemas.createSnapshotBody, schemas.snapshotView, (operations, name, body) =>
    operations.snapshotCreate(name, checkName('snapshot', body.name)),
  ),
  ofSnapshot('DELETE', '', schemas.nothing, (operations, volume, snapshot) =>
    emptied(operations.snapshotRemove(volume, snapshot)),
  ),
  ofSnapshot(
    'POST',
    '/rollback',
    schemas.volumeView,
    (operations, volume, snapshot, { yes }) => operations.snapshotRollback(volume, snapshot, yes === 'true'),
    schemas.yesQuery,
  ),
  ofSnapshot(
    'POST',
    '/discard',
    schemas.snapshotView,
    (operations, volume, snapshot, { yes }) => operations.snapshotDiscard(volume, snapshot, yes === 'true'),
    schemas.yesQuery,
  ),
  ofSnapshot(
    'POST',
    '/attach',
    schemas.snapshotView,
    (operations, volume, snapshot, { readOnly }) => operations.snapshotAttach(volume, snapshot, readOnly === 'true'),
    schemas.attachQuery,
  ),
  ofSnapshot('POST', '/detach', schemas.snapshotView, (operations, volume, snapshot) =>
    operations.snapshotDetach(volume, snapshot),
  ),
  create('/v1/clones', schemas.createCloneBody, schemas.volumeView, (operations, { name, volume, snapshot, full }) =>
    operations.cloneCreate({
      name: checkName('volume', name),
      volume: checkName('volume', volume),
      ...(snapshot === undefined ? {} : { snapshot: checkName('snapshot', snapshot) }),
      ...(full === undefined ? {} : { full }),
    }),
  ),
  changed('/v1/clones/:name/refresh', schemas.refreshBody, schemas.volumeView, (operations, name, { from }) =>
    operations.cloneRefresh(name, from === undefined ? null : checkName('snapshot', from)),
  ),
]

/** In a file or on a device, or thin in a pool. */
function createVolume(operations: AgentOperations, body: Static<typeof schemas.createVolumeBody>): Promise<VolumeView> {
  const { path, pool, size, force } = body
  const name = checkName('volume', body.name)
  const sizeBytes = parseSize(String(size))
  if (path !== undefined && pool === undefined) {
    return operations.volumeCreate({ name, path, sizeBytes, ...(force === undefined ? {} : { force }) })
  }
  if (pool === undefined || path !== undefined || force !== undefined) {
    throw badRequest('volume create', name, 'it takes a path, and force with it, or a pool')
  }
  return operations.volumeCreateThin({ name, pool: checkName('pool', pool), sizeBytes })
}
