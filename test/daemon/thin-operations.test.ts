import { join } from 'node:path'
import t from 'tap'
import type { InboundView } from '../../src/api/agent-operations.js'
import { StorageError } from '../../src/block/storage-error.js'
import { PathVolumes } from '../../src/daemon/path-volumes.js'
import { streamUsing } from '../../src/daemon/pool-users.js'
import { Pools } from '../../src/daemon/pools.js'
import { ThinOperations } from '../../src/daemon/thin-operations.js'
import { Volumes } from '../../src/daemon/volumes.js'
import type { Intercept } from '../../src/intercept/addon.js'
import type { FrontEndOptions } from '../../src/volume/front-end.js'
import type { ImageCopies } from '../../src/volume/image-copies.js'
import { ThinVolumes } from '../../src/volume/thin-volumes.js'
import { MemoryStore } from '../fixtures/memory-store.js'
import { scratchFolder } from '../fixtures/paths.js'
import { FakeEngine, type FakePool } from './fake-pool.js'

const MiB = 1024 ** 2

/** The commands of an agent with the pool `p` and in it the volume `db`; nothing is ever attached. */
async function agent(test: Parameters<typeof scratchFolder>[0]) {
  const folder = scratchFolder(test, 'thin')
  const store = new MemoryStore()
  const engine = new FakeEngine()
  const streams = new Map<string, string>()
  const boundaries: string[] = []
  const copies: unknown[][] = []
  const told: string[][] = []
  const runDirectory = join(folder, 'run')
  const frontEnd: FrontEndOptions = { intercept: {} as Intercept, runDirectory, threads: 1, onLost: () => {} }
  const paths = new PathVolumes({
    store,
    frontEnd,
    direct: false,
    forbidden: [],
    poolAt: () => undefined,
    checkPlace: async () => {},
    identify: engine.identify.bind(engine),
  })
  const pools = new Pools({
    store,
    engine,
    report: () => {},
    forbidden: [],
    marks: [95],
    volumeAt: () => undefined,
    nameTaken: () => undefined,
    users: () => [],
    onClose: async () => {},
  })
  await pools.create({ name: 'p', devices: [{ path: join(folder, 'p'), kind: 'file', sizeBytes: MiB }] })
  const thin = new ThinVolumes(frontEnd)
  const incoming = new Set<string>()
  const mixtures = new Map<string, string>()
  const volumes = new Volumes({
    store,
    paths,
    pools,
    thin,
    isIncoming: (name) => incoming.has(name),
    whyNoState: (name) => mixtures.get(name),
    streamOf: () => undefined,
  })
  const progress = new Map<string, { doneBytes: number; totalBytes: number }>()
  const images = {
    create: async (...given: unknown[]) => copies.push(['create', ...given.slice(1)]),
    refresh: async (...given: unknown[]) => copies.push(['refresh', ...given.slice(1)]),
    forget: async (...given: unknown[]) => copies.push(['forget', ...given.slice(1)]),
    progress: (name: string) => progress.get(name) ?? null,
  } as unknown as ImageCopies
  const operations = new ThinOperations({
    pools,
    volumes,
    images,
    atBoundary: (volume, action) => {
      boundaries.push(volume)
      return action()
    },
    streamOf: (volume) => streams.get(volume),
    report: ({ code, object }) => told.push([code, object]),
  })
  await operations.createVolume('db', 'p', 4 * MiB)
  const pool = pools.get('p') as FakePool
  return {
    ...{ operations, volumes, pool, streams, incoming, mixtures, boundaries, copies, progress, store, paths, folder },
    told,
  }
}

t.test('a volume is made in a pool that is there, under a name nobody has, in whole sectors', async (t) => {
  const { operations, volumes, paths, folder } = await agent(t)
  await t.rejects(operations.createVolume('db', 'p', MiB), { code: 'ALREADY_EXISTS' })
  await t.rejects(operations.createVolume('a', 'q', MiB), { code: 'NO_SUCH_POOL', hint: /pool list/ })
  await t.rejects(operations.createVolume('a', 'p', 1000), { code: 'BAD_SIZE' })
  await t.rejects(operations.createVolume('a@b', 'p', MiB), { code: 'BAD_NAME' })
  await paths.create('flat', join(folder, 'flat'), MiB, false)
  await t.rejects(operations.createVolume('flat', 'p', MiB), { code: 'ALREADY_EXISTS' })
  await t.rejects(operations.createSnapshot('flat', 's'), { code: 'NOT_THIN', hint: /flat, not in a pool/ })
  t.same(
    volumes.all().map(({ name, kind }) => [name, kind]),
    [
      ['db', 'thin'],
      ['flat', 'file'],
    ],
  )
  t.match(volumes.view(volumes.get('db'), null, null), { kind: 'thin', pool: 'p', path: null, sizeBytes: 4 * MiB })
  t.match(volumes.view(volumes.get('flat'), null, null), { kind: 'file', pool: null, allocatedBytes: null })
})

t.test('a volume that shows no state of its source says so', async (t) => {
  const { volumes, mixtures } = await agent(t)
  const reason = (): string => volumes.view(volumes.get('db'), null, null).reason
  t.equal(reason(), 'not attached')
  mixtures.set('db', 'it is torn')
  t.equal(reason(), 'not attached; it is torn')
})

t.test('a volume that could not be attached again is not rolled back under a host that waits', async (t) => {
  const { operations, volumes, store } = await agent(t)
  await operations.createSnapshot('db', 'noon')
  await store.put({ 'attached/db': { readOnly: false } })
  const refused = { code: 'VOLUME_ATTACHED', hint: /its host may wait.*keeper abort db.*volume detach db/ }
  await t.rejects(operations.rollback('db', 'noon', true), refused)
  await volumes.detach(volumes.get('db'))
  await operations.rollback('db', 'noon', true)
})

t.test('a volume that would lose data says what, and is removed only for certain', async (t) => {
  const { operations, volumes, streams, copies, told } = await agent(t)
  await operations.createSnapshot('db', 'monday')
  await t.rejects(operations.removeVolume('db', true), { code: 'HAS_SNAPSHOTS', hint: /snapshot remove db monday/ })
  await operations.removeSnapshot('db', 'monday')
  await t.rejects(operations.removeVolume('db', false), { code: 'CONFIRMATION_NEEDED', hint: /volume remove db --yes/ })
  streams.set('db', 'The stream gold records it.')
  await t.rejects(operations.removeVolume('db', true), { code: 'VOLUME_IN_USE', hint: /gold records it\. Remove/ })
  streams.clear()
  await operations.removeVolume('db', true)
  t.same(copies, [['forget', 'db']])
  t.same(told, [
    ['SNAPSHOT_REMOVED', 'db@monday'],
    ['VOLUME_DESTROYED', 'db'],
  ])
  t.throws(() => volumes.get('db'), { code: 'NO_SUCH_VOLUME' })
})

t.test('what operators made under the name of an arriving volume is not a copy of its stream', async (t) => {
  const { operations, pool, paths, folder } = await agent(t)
  await pool.createVolume('gold.data', MiB, 'inbound')
  await paths.create('gold.log', join(folder, 'flat'), MiB, false)
  const copies = operations.arriving(['gold.data', 'gold.log', 'db', 'gold.none'])
  t.same(
    copies.map(({ name }) => name),
    ['gold.data'],
  )
  const inbound = {
    list: () => [{ stream: 'gold', volumes: [{ volume: 'gold.data' }, { volume: 'db' }] }] as unknown as InboundView[],
  }
  const using = (name: string) => streamUsing(name, pool, { ofVolume: () => undefined }, inbound)
  t.match(using('gold.data'), /arrives with the stream gold/)
  t.equal(using('db'), undefined, 'and the stream does not keep its operator from it')
  await pool.createVolume('.gold.data.incoming', MiB, 'inbound')
  t.match(using('.gold.data.incoming'), /arrives with the stream gold/)
})

t.test(
  'what a stream that does not arrive here left incomplete is shown, not attached, and can be removed',
  async (t) => {
    const { operations, volumes, pool, incoming } = await agent(t)
    for (const name of ['.gold.data.incoming', '.tin.data.incoming']) await pool.createVolume(name, MiB, 'inbound')
    incoming.add('.gold.data.incoming')
    const shown = (): string[] => volumes.all().map(({ name }) => name)
    t.same(shown(), ['.tin.data.incoming', 'db'], "one that is being made is its stream's business")
    const left = volumes.get('.tin.data.incoming')
    t.match(volumes.view(left, null, null), { state: 'detached', reason: /incomplete/, role: 'inbound' })
    const refused = { code: 'IMAGE_INCOMPLETE', hint: /volume remove \.tin\.data\.incoming --yes/ }
    await t.rejects(volumes.attach(left, true), refused)
    await operations.removeVolume('.tin.data.incoming', true)
    t.same(shown(), ['db'])
  },
)

t.test('hidden snapshots keep nobody from removing a volume, and are named to nobody', async (t) => {
  const { operations, volumes, pool } = await agent(t)
  await pool.createSnapshot('db', '.image:copy:1', { hidden: true })
  t.same(volumes.snapshots('db'), [])
  t.equal(volumes.view(volumes.get('db'), null, null).snapshots, 0)
  await t.rejects(operations.removeSnapshot('db', '.image:copy:1'), { code: 'NO_SUCH_SNAPSHOT' })
  await t.rejects(operations.rollback('db', '.image:copy:1', true), { code: 'NO_SUCH_SNAPSHOT' })
  await t.rejects(operations.clone('db', '.image:copy:1', 'c', false), { code: 'NO_SUCH_SNAPSHOT' })
  await t.rejects(operations.diff('db', '.image:copy:1', null, 0), { code: 'NO_SUCH_SNAPSHOT' })
  await t.rejects(operations.removeVolume('db', true), { code: 'HAS_SNAPSHOTS' }, 'the fake does not take them away')
})

t.test('a volume grows; it shrinks only when told to, and never in a stream', async (t) => {
  const { operations, volumes, streams } = await agent(t)
  await operations.resize('db', 8 * MiB, false)
  t.equal(volumes.get('db').sizeBytes, 8 * MiB)
  await t.rejects(operations.resize('db', 2 * MiB, false), { code: 'CONFIRMATION_NEEDED', hint: /last 6\.0 MiB/ })
  await t.rejects(operations.resize('db', 1000, true), { code: 'BAD_SIZE' })
  await operations.resize('db', 2 * MiB, true)
  t.equal(volumes.get('db').sizeBytes, 2 * MiB)
  streams.set('db', 'The stream gold records it.')
  await t.rejects(operations.resize('db', 8 * MiB, true), { code: 'VOLUME_IN_USE' })
})

t.test('a snapshot of an arriving volume is taken between two epochs; rolling that back is refused', async (t) => {
  const { operations, volumes, pool, boundaries, incoming } = await agent(t)
  await pool.createVolume('gold.data', MiB, 'inbound')
  incoming.add('.gold.data.incoming')
  await pool.createVolume('.gold.data.incoming', MiB, 'inbound')
  const made = await operations.createSnapshot('gold.data', 'monday')
  t.match(volumes.snapshotView(made), { volume: 'gold.data', name: 'monday', pool: 'p', state: 'detached' })
  await operations.clone('gold.data', undefined, 'test', false)
  t.same(boundaries, ['gold.data', 'gold.data'])
  await t.rejects(operations.rollback('gold.data', 'monday', true), { code: 'VOLUME_ARRIVES', hint: /clone create/ })
  t.same(
    volumes.all().map(({ name }) => name),
    ['db', 'gold.data', 'test'],
  )
})

t.test('rolling back says what is lost, and is refused for what a stream records', async (t) => {
  const { operations, streams } = await agent(t)
  await operations.createSnapshot('db', 'monday')
  await t.rejects(operations.createSnapshot('db', 'a@b'), { code: 'BAD_NAME' })
  await t.rejects(operations.createSnapshot('db', 'monday'), { code: 'ALREADY_EXISTS' })
  await t.rejects(operations.rollback('db', 'tuesday', true), { code: 'NO_SUCH_SNAPSHOT', hint: /snapshot list db/ })
  await t.rejects(operations.rollback('db', 'monday', false), { code: 'CONFIRMATION_NEEDED', hint: /--yes/ })
  streams.set('db', 'The stream gold records it.')
  await t.rejects(operations.rollback('db', 'monday', true), { code: 'VOLUME_IN_USE', hint: /clone of db@monday/ })
  streams.clear()
  await operations.rollback('db', 'monday', true)
})

t.test('a snapshot of another volume is none of this one, whatever is asked of it', async (t) => {
  const { operations, volumes, copies } = await agent(t)
  await operations.createVolume('other', 'p', 4 * MiB)
  await operations.createSnapshot('other', 'monday')
  await operations.createSnapshot('db', 'friday')
  for (const snapshot of ['monday', 'other@monday']) {
    const attempts: Record<string, () => Promise<unknown>> = {
      remove: () => operations.removeSnapshot('db', snapshot),
      'roll back': () => operations.rollback('db', snapshot, true),
      discard: () => operations.discardWrites('db', snapshot, true),
      clone: () => operations.clone('db', snapshot, 'c', false),
      copy: () => operations.clone('db', snapshot, 'c', true),
      'compare from': () => operations.diff('db', snapshot, null, 0),
      'compare to': () => operations.diff('db', 'friday', snapshot, 0),
    }
    for (const [what, attempt] of Object.entries(attempts)) {
      await t.rejects(attempt(), { code: 'NO_SUCH_SNAPSHOT' }, `${what} ${snapshot}`)
    }
  }
  t.same(copies, [])
  t.same(
    volumes.snapshots('other').map(({ snapshot }) => snapshot),
    ['monday'],
  )
})

t.test('what was written to a snapshot is discarded for certain only, and costs what its view says', async (t) => {
  const { operations, volumes, pool, told } = await agent(t)
  await operations.createSnapshot('db', 'monday')
  await operations.discardWrites('db', 'monday', false)
  pool.write('db', 'monday', 8 * MiB)
  t.match(volumes.snapshotView(volumes.snapshot('x', 'db', 'monday')), { writtenBytes: 8 * MiB, readOnly: false })
  await t.rejects(operations.discardWrites('db', 'monday', false), {
    code: 'CONFIRMATION_NEEDED',
    hint: /^8\.0 MiB .*snapshot discard db monday --yes/,
  })
  const found = await operations.discardWrites('db', 'monday', true)
  t.match(volumes.snapshotView(found), { name: 'monday', writtenBytes: null })
  t.same(told, [['SNAPSHOT_DISCARDED', 'db@monday']])
  await t.rejects(operations.discardWrites('db', 'tuesday', true), { code: 'NO_SUCH_SNAPSHOT' })
})

t.test('a clone without a snapshot has one made for it, and leaves none when it fails', async (t) => {
  const { operations, volumes, pool, copies } = await agent(t)
  await operations.clone('db', undefined, 'c', false)
  t.equal(pool.volume('c').origin, 'db@for-c')
  await operations.removeVolume('c', true)
  await operations.clone('db', undefined, 'c', false)
  t.equal(pool.volume('c').origin, 'db@for-c-2')
  await operations.clone('db', 'for-c', 'd', false)
  await t.rejects(operations.clone('db', 'for-c', 'd', false), { code: 'ALREADY_EXISTS' })
  const { createClone } = pool
  pool.createClone = async () => {
    throw new StorageError('POOL_NEARLY_FULL', { op: 'clone create', object: 'e', hint: 'Extend it.' })
  }
  await t.rejects(operations.clone('db', undefined, 'e', false), { code: 'POOL_NEARLY_FULL' })
  pool.createClone = createClone
  t.same(
    volumes.snapshots('db').map(({ snapshot }) => snapshot),
    ['for-c', 'for-c-2'],
  )
  const long = 'x'.repeat(63)
  await operations.clone('db', undefined, long, false)
  t.equal(pool.volume(long).origin?.length, 'db@'.length + 63)
  await operations.clone('db', undefined, 'image', true)
  await operations.clone('db', 'for-c', 'image-2', true)
  t.same(copies.slice(1), [
    ['create', 'image', 'db', null],
    ['create', 'image-2', 'db', 'for-c'],
  ])
})

t.test('half an image is neither copied on nor changed, and what it is copied from stays', async (t) => {
  const { operations, volumes, pool, progress, copies } = await agent(t)
  await operations.createSnapshot('db', 'monday')
  await operations.createVolume('copy', 'p', 4 * MiB)
  t.throws(() => volumes.named('copy@x'), { code: 'NO_SUCH_SNAPSHOT' })
  await pool.setImage('copy', { volume: 'db', base: 'monday', own: null, complete: false })
  t.match(operations.imageView('copy'), { complete: false, progress: null, reason: /interrupted/ })
  progress.set('copy', { doneBytes: 1, totalBytes: 2 })
  t.match(operations.imageView('copy'), { volume: 'db', complete: false, progress: { doneBytes: 1, totalBytes: 2 } })
  for (const action of [
    () => operations.createSnapshot('copy', 's'),
    () => operations.clone('copy', undefined, 'c', false),
    () => operations.resize('copy', 8 * MiB, false),
  ]) {
    await t.rejects((action as () => Promise<unknown>)(), { code: 'IMAGE_INCOMPLETE' })
  }
  await t.rejects(operations.removeSnapshot('db', 'monday'), { code: 'SNAPSHOT_IN_USE', hint: /image copy/ })
  progress.clear()
  await pool.setImage('copy', { volume: 'db', base: 'monday', own: '.own', complete: true })
  t.match(operations.imageView('copy'), { complete: true, reason: 'as db was at 2026-01-02T00:00:00.000Z' })
  await t.rejects(operations.refresh('copy', 'tuesday'), { code: 'NO_SUCH_SNAPSHOT' })
  await operations.refresh('copy', null)
  await operations.refresh('copy', 'monday')
  t.same(copies, [
    ['refresh', 'copy', null],
    ['refresh', 'copy', 'monday'],
  ])
  await operations.removeSnapshot('db', 'monday')
  t.match(operations.imageView('copy'), { complete: true, reason: 'as db was' })
  t.equal(operations.imageView('db'), null)
})

t.test('what changed comes in pages that together are all of it', async (t) => {
  const { operations, pool } = await agent(t)
  await operations.createSnapshot('db', 'a')
  await operations.createSnapshot('db', 'b')
  const blockBytes = 65_536
  pool.extents = Array.from({ length: 120_000 }, (_, at) => ({ offset: at * 2 * blockBytes, lengthBytes: blockBytes }))
  const seen: unknown[] = []
  let after: number | null = 0
  let pages = 0
  while (after !== null) {
    const page: Awaited<ReturnType<typeof operations.diff>> = await operations.diff('db', 'a', 'b', after)
    t.equal(page.changedBytes, 120_000 * blockBytes)
    seen.push(...page.extents)
    after = page.next
    pages += 1
  }
  t.equal(pages, 3)
  t.same(seen, pool.extents)
  pool.extents = []
  t.match(await operations.diff('db', 'a', null, 0), { changedBytes: 0, extents: [], next: null, to: null })
})
