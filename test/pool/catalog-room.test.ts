import { randomInt } from 'node:crypto'
import t from 'tap'
import { applyOperation, emptyCatalog, type Operation, volumeId } from '../../src/pool/catalog.js'
import { emptyDirectory, encodeCatalog } from '../../src/pool/catalog-codec.js'
import { catalogRoom, wouldFit } from '../../src/pool/catalog-room.js'
import { Geometry, layerId, layOutDevice } from '../../src/pool/geometry.js'
import { mapPageCount } from '../../src/pool/tree-reader.js'
import { seededRandom, tiny } from '../fixtures/pool/pool-rig.js'
import { randomOperation } from '../fixtures/pool/random-operations.js'

const geometry = new Geometry(tiny, [layOutDevice(tiny, 0, 4 * 2 ** 20)])
const at = '2024-05-01T12:00:00.000Z'
const newCatalog = () => emptyCatalog('p', at, [{ sizeBytes: 4 * 2 ** 20, path: '/a' }])

function lengthOf(catalog: ReturnType<typeof newCatalog>): number {
  const directory = emptyDirectory(mapPageCount(geometry))
  return encodeCatalog({ poolId: Buffer.alloc(16), sequence: 2 ** 52, catalog, holes: new Map(), directory }).length
}

t.test('what is reckoned is never less than what is written, and not much more', async (t) => {
  const seed = Number(process.env.SEED ?? randomInt(2 ** 31))
  t.comment(`seed ${seed}`)
  const random = seededRandom(seed)
  const catalog = newCatalog()
  for (let step = 0; step < 500; step += 1) {
    applyOperation(catalog, randomOperation(catalog, random))
    const { usedBytes } = catalogRoom(catalog, 0, geometry)
    const length = lengthOf(catalog)
    if (usedBytes < length || usedBytes > 2 * length + 400) t.fail(`${usedBytes} for ${length}`)
  }
})

t.test('a full catalog refuses what makes it larger, never what frees, and always fits its place', async (t) => {
  const catalog = newCatalog()
  const volume = volumeId(1)
  const create: Operation = {
    op: 'create-volume',
    volume,
    layer: layerId(2),
    name: 'v',
    sizeBytes: 4096,
    createdAt: at,
    role: 'volume',
  }
  applyOperation(catalog, create)
  let count = 0
  for (; count < 10_000; count += 1) {
    const layer = layerId(catalog.nextId)
    const name = 'n'.repeat(50) + count
    const operation: Operation = { op: 'snapshot', volume, name, layer, createdAt: at, hidden: false }
    if (!wouldFit(catalog, operation, 0, geometry)) break
    applyOperation(catalog, operation)
  }
  t.ok(count > 150 && count < 600, `${count} snapshots in 64 KiB`)
  const { reserveBytes, capacityBytes } = catalogRoom(catalog, 0, geometry)
  t.ok(lengthOf(catalog) <= capacityBytes - reserveBytes)
  t.notOk(wouldFit(catalog, { ...create, volume: volumeId(90_000), layer: layerId(90_001), name: 'w' }, 0, geometry))
  t.notOk(wouldFit(catalog, { op: 'rename-volume', volume, name: 'longer'.repeat(50) }, 0, geometry))
  t.notOk(wouldFit(catalog, { op: 'add-device', device: 1, sizeBytes: 2 ** 30, path: '/b' }, 0, geometry))
  const snapshot = catalog.volumes.get(volume)!.snapshots[0]!
  const freeing: Operation[] = [
    { op: 'rollback', volume, name: snapshot.name, layer: layerId(catalog.nextId) },
    { op: 'remove-snapshot', volume, name: snapshot.name },
    { op: 'rename-volume', volume, name: 'w' },
    { op: 'set-image', volume, image: null },
    { op: 'resize', volume, sizeBytes: 8192 },
    { op: 'merged', layer: snapshot.layer, child: layerId(3) },
  ]
  for (const operation of freeing) t.ok(wouldFit(catalog, operation, 0, geometry), operation.op)
  t.ok(wouldFit(newCatalog(), create, 0, geometry))
  t.notOk(wouldFit(newCatalog(), create, capacityBytes - reserveBytes, geometry), 'holes take room too')
})
