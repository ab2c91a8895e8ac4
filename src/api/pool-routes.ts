import { checkName } from '../block/names.js'
import { parseSize } from '../block/size.js'
import type { PoolDevice } from './agent-operations.js'
import { changed, create, emptied, named, type Route, read } from './route.js'
import type { Static } from './schemas.js'
import * as schemas from './schemas.js'

export const poolRoutes: readonly Route[] = [
  read('/v1/pools', schemas.listOf(schemas.poolView), (operations) => operations.poolList()),
  create('/v1/pools', schemas.createPoolBody, schemas.poolView, (operations, { name, devices, unit, block, force }) =>
    operations.poolCreate({
      name: checkName('pool', name),
      devices: devices.map(device),
      ...(unit === undefined ? {} : { unitBytes: parseSize(String(unit)) }),
      ...(block === undefined ? {} : { blockBytes: parseSize(String(block)) }),
      ...(force === undefined ? {} : { force }),
    }),
  ),
  create('/v1/pool-imports', schemas.importPoolBody, schemas.poolView, (operations, { paths }) =>
    operations.poolImport(paths),
  ),
  named('GET', '/v1/pools/:name', schemas.poolView, (operations, name) => operations.poolShow(name)),
  named(
    'DELETE',
    '/v1/pools/:name',
    schemas.nothing,
    (operations, name, { yes }) => emptied(operations.poolRemove(name, yes === 'true')),
    schemas.yesQuery,
  ),
  changed('/v1/pools/:name/extend', schemas.extendPoolBody, schemas.poolView, (operations, name, body) =>
    operations.poolExtend(name, { ...device(body), ...(body.force === undefined ? {} : { force: body.force }) }),
  ),
  named('POST', '/v1/pools/:name/export', schemas.exportView, (operations, name) => operations.poolExport(name)),
  named(
    'POST',
    '/v1/pools/:name/check',
    schemas.poolCheckView,
    (operations, name, { repair }) => operations.poolCheck(name, repair === 'true'),
    schemas.checkQuery,
  ),
]

function device({ path, kind, size }: Static<typeof schemas.extendPoolBody>): PoolDevice {
  return { path, kind, ...(size === undefined ? {} : { sizeBytes: parseSize(String(size)) }) }
}
