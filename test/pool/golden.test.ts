import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import t from 'tap'
import { catalogText } from '../../src/pool/catalog-codec.js'
import { checkPool } from '../../src/pool/check.js'
import { noLayer, unitIndex } from '../../src/pool/geometry.js'
import type { LogRecord } from '../../src/pool/log-record.js'
import { repositoryRoot, scratchFolder } from '../fixtures/paths.js'
import { golden, heldOperations, poolId, writeGoldenPool } from '../fixtures/pool/golden-pool.js'
import { PoolRig } from '../fixtures/pool/pool-rig.js'

const imageOf = (name: string): Buffer =>
  gunzipSync(readFileSync(join(repositoryRoot, 'test/fixtures/pool', `${name}.pool.gz`)))
const image = imageOf('golden-v1')
const heldImage = imageOf('golden-v1-held')

function goldenRig(test: Parameters<typeof scratchFolder>[0], bytes = image): PoolRig {
  const path = join(scratchFolder(test, 'golden'), 'pool')
  writeFileSync(path, bytes)
  return PoolRig.of([path])
}

t.test('the golden pool is read as it was written', async (t) => {
  const rig = goldenRig(t)
  const store = await rig.open({ bootId: golden.bootId })
  t.match(store, { poolId, clean: false, afterPowerCut: false, logSequence: 8189, damage: [] })
  t.equal(
    catalogText(store.catalog),
    '{"name":"golden","createdAt":"2024-05-01T12:00:00.000Z","nextId":6,"devices":[{"sizeBytes":2097152,"path":"/srv/golden"}],"layers":[[2,0],[3,2],[5,2]],"volumes":[{"id":1,"name":"db","sizeBytes":70368744177664,"layer":3,"createdAt":"2024-05-01T12:00:00.000Z","role":"volume","origin":null,"image":null,"snapshots":[{"name":"monday","layer":2,"sizeBytes":70368744177664,"createdAt":"2024-05-06T06:00:00.000Z","hidden":false}]},{"id":4,"name":"test","sizeBytes":70368744177664,"layer":5,"createdAt":"2024-05-06T07:00:00.000Z","role":"volume","origin":"db@monday","image":{"volume":"db","base":"monday","own":null,"complete":false},"snapshots":[]}]}',
  )
  t.strictSame(
    [...store.holes].map(([layer, extents]) => [layer, [...extents]]),
    [
      [3, [0, 3, 1000, 2 ** 20]],
      [5, [7, 1]],
    ],
  )
  const pages: unknown[] = []
  await store.readPages([0, 3, 4].map(unitIndex), ({ layer, checkpoint, blocks }) =>
    pages.push([layer, checkpoint, ...blocks]),
  )
  t.strictSame(pages, [
    [2, 3, 0, 1, 2, 2 ** 33, -1, -1, 6, 7],
    [3, 4, -1, 4, -1, -1, -1, -1, -1, 262143],
    [5, 3, 1, -1, -1, -1, -1, -1, -1, -1],
  ])
  t.equal(store.units.layer.filter((layer) => layer !== noLayer).length, 3)
  const records: LogRecord[] = []
  await store.readLog((some) => {
    records.push(...some)
  })
  const { geometry } = store
  t.strictSame(records, [
    {
      kind: 'map',
      sequence: 8189,
      layer: 3,
      block: 9,
      location: geometry.locationOf(geometry.unitAt(unitIndex(3)), 2),
    },
    { kind: 'hole', sequence: 8190, layer: 5, block: 10, count: 2 },
    { kind: 'operation', sequence: 8191, text: '{"op":"remove-volume","volume":4}', places: 3 },
    { kind: 'own', sequence: 8194, unit: geometry.unitAt(unitIndex(0)), layer: 3 },
    { kind: 'release', sequence: 8195, unit: geometry.unitAt(unitIndex(4)) },
    { kind: 'commit', sequence: 8196, covered: 8196 },
  ])
  await store.close()
})

t.test('after a restart of the machine the golden pool has what was committed', async (t) => {
  const store = await goldenRig(t).open()
  t.equal(store.afterPowerCut, true)
  t.strictSame(await store.readLog(() => {}), { end: 8197, applied: 8196 })
  await store.close()
  const { clean, usable } = await checkPool(store.paths)
  t.strictSame({ clean, usable }, { clean: true, usable: true })
})

t.test(
  'a pool that was held has its holder, and the streams of its volumes; one that never was has none',
  async (t) => {
    const before = await goldenRig(t).open({ bootId: golden.bootId })
    t.equal(before.catalog.holder, null)
    t.strictSame(
      [...before.catalog.volumes.values()].map(({ stream }) => stream),
      [null, null],
    )
    const rig = goldenRig(t, heldImage)
    const store = await rig.open({ bootId: golden.bootId })
    t.equal(store.catalog.holder, '00112233445566778899aabbccddeeff')
    t.strictSame(
      [...store.catalog.volumes.values()].map(({ stream }) => stream),
      ['gold', null],
    )
    const without = catalogText(store.catalog)
      .replace('"holder":"00112233445566778899aabbccddeeff",', '')
      .replace('"stream":"gold",', '')
    t.equal(without, catalogText(before.catalog), 'all else is the same')
    await before.close()
    await store.close()
  },
)

t.test('the golden pools are written today byte by byte', async (t) => {
  for (const [expected, more] of [
    [image, []],
    [heldImage, heldOperations],
  ] as const) {
    const path = join(scratchFolder(t, 'golden'), 'pool')
    await writeGoldenPool(path, more)
    const written = readFileSync(path)
    t.equal(written.length, expected.length)
    for (let at = 0; at < expected.length; at += 4096) {
      if (!written.subarray(at, at + 4096).equals(expected.subarray(at, at + 4096))) t.fail(`page at ${at}`)
    }
  }
})
