import { randomInt } from 'node:crypto'
import t from 'tap'
import {
  applyOperation,
  type Catalog,
  chainOf,
  childCounts,
  childrenOf,
  emptyCatalog,
  findVolume,
  garbageLayers,
  namedLayers,
  type Operation,
  volumeId,
} from '../../src/pool/catalog.js'
import { catalogText } from '../../src/pool/catalog-codec.js'
import { catalogFaults, layerLimits, showingLayers } from '../../src/pool/check-catalog.js'
import { layerId } from '../../src/pool/geometry.js'
import { seededRandom } from '../fixtures/pool/pool-rig.js'
import { randomOperation } from '../fixtures/pool/random-operations.js'

const at = '2024-05-01T12:00:00.000Z'
const [v1, v2, v3] = [1, 2, 3].map(volumeId) as [
  ReturnType<typeof volumeId>,
  ReturnType<typeof volumeId>,
  ReturnType<typeof volumeId>,
]
const layer = layerId

function newCatalog(): Catalog {
  return emptyCatalog('p', at, [{ sizeBytes: 2 ** 30, path: '/a' }])
}

function create(volume: typeof v1, layer: number, name: string): Operation {
  return { op: 'create-volume', volume, layer: layerId(layer), name, sizeBytes: 4096, createdAt: at, role: 'volume' }
}

function snapshot(volume: typeof v1, name: string, layer: number): Operation {
  return { op: 'snapshot', volume, name, layer: layerId(layer), createdAt: at, hidden: false }
}

function applied(...operations: Operation[]): Catalog {
  const catalog = newCatalog()
  for (const operation of operations) applyOperation(catalog, operation)
  return catalog
}

t.test('a snapshot gets the layer, the volume a new one on it', async (t) => {
  const catalog = applied(create(v1, 10, 'v'), snapshot(v1, 's', 11), snapshot(v1, 't', 12))
  t.strictSame(chainOf(catalog, layer(12)), [12, 11, 10])
  t.match(findVolume(catalog, 'v'), {
    layer: 12,
    snapshots: [
      { name: 's', layer: 10 },
      { name: 't', layer: 11 },
    ],
  })
  t.equal(catalog.nextId, 13)
  t.strictSame(garbageLayers(catalog), [])
})

t.test('a clone stands on the snapshot’s layer and has the snapshot’s size', async (t) => {
  const clone: Operation = {
    op: 'clone',
    volume: v2,
    layer: layer(20),
    name: 'c',
    from: v1,
    snapshot: 's',
    createdAt: at,
  }
  const resize: Operation = { op: 'resize', volume: v1, sizeBytes: 8192 }
  const catalog = applied(create(v1, 10, 'v'), snapshot(v1, 's', 11), resize, clone)
  t.match(findVolume(catalog, 'c'), { origin: 'v@s', sizeBytes: 4096, image: null, role: 'volume' })
  t.strictSame(chainOf(catalog, layer(20)), [20, 10])
  t.strictSame(childrenOf(catalog, layer(10)), [11, 20])
  t.strictSame([...showingLayers(catalog).get(layer(10))!].sort(), ['c', 'v', 'v@s'])
  t.strictSame(
    layerLimits(catalog, 4096),
    new Map([
      [11, 2],
      [10, 1],
      [20, 1],
    ]),
  )
})

t.test('a rollback leaves the old top layer as garbage, and the size of the snapshot', async (t) => {
  const rollback: Operation = { op: 'rollback', volume: v1, name: 's', layer: layer(13) }
  const resize: Operation = { op: 'resize', volume: v1, sizeBytes: 8192 }
  const catalog = applied(create(v1, 10, 'v'), snapshot(v1, 's', 11), snapshot(v1, 't', 12), resize, rollback)
  t.strictSame(chainOf(catalog, layer(13)), [13, 10])
  t.strictSame(garbageLayers(catalog), [12])
  t.equal(findVolume(catalog, 'v')!.sizeBytes, 4096)
  t.equal(findVolume(catalog, 'v')!.snapshots.length, 2, 'newer snapshots stay')
})

t.test('garbage with one child goes into it, garbage without is dropped, garbage with two stays', async (t) => {
  const clone: Operation = {
    op: 'clone',
    volume: v2,
    layer: layer(20),
    name: 'c',
    from: v1,
    snapshot: 's',
    createdAt: at,
  }
  const catalog = applied(create(v1, 10, 'v'), snapshot(v1, 's', 11), clone)
  const without: Operation = { op: 'remove-snapshot', volume: v1, name: 's' }
  applyOperation(catalog, without)
  t.strictSame(garbageLayers(catalog), [10])
  t.throws(() => applyOperation(catalog, { op: 'merged', layer: layer(10), child: layer(11) }))
  t.throws(() => applyOperation(catalog, { op: 'dropped', layer: layer(10) }))
  applyOperation(catalog, { op: 'remove-volume', volume: v2 })
  applyOperation(catalog, { op: 'dropped', layer: layer(20) })
  applyOperation(catalog, { op: 'merged', layer: layer(10), child: layer(11) })
  t.strictSame([...catalog.layers], [[11, 0]])
})

t.test('a volume that replaces another takes its name and its snapshots', async (t) => {
  const catalog = applied(create(v1, 10, 'old'), snapshot(v1, 's', 11), create(v2, 20, 'new'), snapshot(v2, 't', 21), {
    op: 'rename-volume',
    volume: v2,
    name: 'old',
    replace: v1,
  })
  t.strictSame([...catalog.volumes.keys()], [2])
  t.match(findVolume(catalog, 'old'), {
    id: 2,
    layer: 21,
    snapshots: [
      { name: 's', layer: 10 },
      { name: 't', layer: 20 },
    ],
  })
  t.strictSame(garbageLayers(catalog), [11])
  t.strictSame(catalogFaults(catalog), [])
})

t.test('what was written to a snapshot has its name, follows it to another volume, and goes with it', async (t) => {
  const written: Operation = {
    op: 'clone',
    volume: v2,
    layer: layer(12),
    name: 'v@s',
    from: v1,
    snapshot: 's',
    createdAt: at,
  }
  const catalog = applied(create(v1, 10, 'v'), snapshot(v1, 's', 11), written)
  t.strictSame(catalogFaults(catalog), [])
  applyOperation(catalog, { op: 'rename-volume', volume: v1, name: 'w' })
  t.match(catalog.volumes.get(v2), { name: 'w@s', layer: 12, sizeBytes: findVolume(catalog, 'w')!.sizeBytes })
  applyOperation(catalog, create(v3, 30, 'n'))
  applyOperation(catalog, { op: 'rename-volume', volume: v3, name: 'w', replace: v1 })
  t.strictSame(catalogFaults(catalog), [])
  applyOperation(catalog, { op: 'remove-snapshot', volume: v3, name: 's' })
  t.strictSame([...catalog.volumes.keys()], [3])
  t.strictSame(garbageLayers(catalog), [10, 11, 12])
})

t.test('volumes are in streams of the holder, and in none for the next', async (t) => {
  const catalog = newCatalog()
  for (const operation of [create(v1, 2, 'a'), create(v3, 4, 'b')]) applyOperation(catalog, operation)
  const before = catalogText(catalog)
  applyOperation(catalog, { op: 'set-stream', volume: v1, stream: 'gold' })
  applyOperation(catalog, { op: 'set-stream', volume: v3, stream: 'gold' })
  applyOperation(catalog, { op: 'set-stream', volume: v3, stream: null })
  t.strictSame(
    [v1, v3].map((id) => catalog.volumes.get(id)!.stream),
    ['gold', null],
  )
  applyOperation(catalog, snapshot(v1, 's', 5))
  t.equal(catalog.volumes.get(v1)!.stream, 'gold', 'a snapshot changes nothing of that')
  applyOperation(catalog, { op: 'hold', holder: 'next' })
  t.equal(catalog.holder, 'next')
  t.equal(catalog.volumes.get(v1)!.stream, null)
  t.notMatch(before, /stream|holder/, 'what is not said takes no room')
})

t.test('an operation that does not fit asserts, and changes nothing', async (t) => {
  const catalog = applied(create(v1, 10, 'v'), snapshot(v1, 's', 11), create(v2, 20, 'w'), snapshot(v2, 's', 21))
  const text = catalogText(catalog)
  const impossible: Operation[] = [
    create(v1, 30, 'x'),
    create(v3, 10, 'x'),
    create(v3, 30, 'v'),
    create(v3, 3, 'x'),
    create(v3, 2 ** 32, 'x'),
    { op: 'clone', volume: v3, layer: layer(30), name: 'c', from: v1, snapshot: 'no', createdAt: at },
    { op: 'clone', volume: v3, layer: layer(30), name: 'v', from: v1, snapshot: 's', createdAt: at },
    { op: 'remove-volume', volume: v1 },
    { op: 'remove-volume', volume: v3 },
    { op: 'rename-volume', volume: v1, name: 'w' },
    { op: 'rename-volume', volume: v1, name: 'w', replace: v2 },
    { op: 'rename-volume', volume: v1, name: 'y', replace: v2 },
    { op: 'resize', volume: v1, sizeBytes: 0 },
    snapshot(v1, 's', 30),
    snapshot(v1, 't', 20),
    { op: 'remove-snapshot', volume: v1, name: 't' },
    { op: 'rollback', volume: v1, name: 't', layer: layer(30) },
    { op: 'rollback', volume: v1, name: 's', layer: layer(11) },
    { op: 'set-image', volume: v3, image: null },
    { op: 'set-stream', volume: v3, stream: 'gold' },
    { op: 'hold', holder: '' },
    { op: 'add-device', device: 2, sizeBytes: 1, path: '/b' },
    { op: 'dropped', layer: layer(10) },
    { op: 'merged', layer: layer(10), child: layer(11) },
    { op: 'dropped', layer: layer(99) },
    { op: 'unheard-of' } as unknown as Operation,
  ]
  for (const operation of impossible) {
    t.throws(() => applyOperation(catalog, operation), { name: 'AssertionError' }, JSON.stringify(operation))
    t.equal(catalogText(catalog), text)
  }
})

t.test('whatever operations do, the catalog is sound and says what they said', async (t) => {
  const seed = Number(process.env.SEED ?? randomInt(2 ** 31))
  t.comment(`seed ${seed}`)
  const random = seededRandom(seed)
  for (let round = 0; round < 20; round += 1) {
    const catalog = newCatalog()
    const log: string[] = []
    const ids = new Set<number>()
    for (let step = 0; step < 200; step += 1) {
      const operation = randomOperation(catalog, random)
      for (const id of [
        'volume' in operation && operation.op === 'clone' && operation.volume,
        operation.op === 'snapshot' && operation.layer,
      ]) {
        if (id === false) continue
        if (ids.has(id)) t.fail(`id ${id} is used again`)
        ids.add(id)
      }
      log.push(JSON.stringify(operation))
      applyOperation(catalog, operation)
      const faults = catalogFaults(catalog)
      if (faults.length > 0) t.fail(`${faults.join(', ')} after ${log.join('\n')}`)
    }
    const named = namedLayers(catalog)
    for (const [layer, count] of childCounts(catalog)) t.equal(childrenOf(catalog, layer).length, count)
    for (const layer of garbageLayers(catalog)) t.notOk(named.has(layer))
    t.equal(named.size + garbageLayers(catalog).length, catalog.layers.size)
    const again = newCatalog()
    for (const text of log) applyOperation(again, JSON.parse(text) as Operation)
    t.equal(catalogText(again), catalogText(catalog), 'applied again it is the same')
  }
})

t.test('faults that no operation makes are found', async (t) => {
  const sound = () => applied(create(v1, 10, 'v'), snapshot(v1, 's', 11), create(v2, 20, 'w'))
  const faultsOf = (spoil: (catalog: Catalog) => void) => {
    const catalog = sound()
    spoil(catalog)
    return catalogFaults(catalog)
  }
  const entry = (catalog: Catalog, id: typeof v1, changes: object) => {
    catalog.volumes.set(id, { ...catalog.volumes.get(id)!, ...changes })
  }
  t.strictSame(
    faultsOf(() => {}),
    [],
  )
  t.match(
    faultsOf((c) => c.layers.set(layer(10), layer(11))),
    [/below itself/],
  )
  t.match(
    faultsOf((c) => c.layers.set(layer(20), layer(77))),
    [/parent of layer 20 does not exist/],
  )
  t.match(
    faultsOf((c) => c.layers.delete(layer(20))),
    ['w has layer 20, which does not exist'],
  )
  t.match(
    faultsOf((c) => entry(c, v2, { layer: layer(11) })),
    [/w and v both have layer 11/],
  )
  t.match(
    faultsOf((c) => c.layers.set(layer(20), layer(11))),
    [/top layer of v is under another/],
  )
  t.match(
    faultsOf((c) => entry(c, v2, { name: 'v@s' })),
    ['what was written to v@s is not over it'],
  )
  t.match(
    faultsOf((c) => entry(c, v2, { name: 'v@t' })),
    ['what was written to v@t is not over it'],
  )
  t.match(
    faultsOf((c) => entry(c, v2, { name: 'v' })),
    ['two volumes are called v'],
  )
  t.match(
    faultsOf((c) => Object.assign(c, { nextId: 20 })),
    [/layer 20 is not an id/],
  )
  t.match(
    faultsOf((c) => entry(c, v1, { sizeBytes: 0 })),
    ['v has no size'],
  )
})
