import { existsSync, mkdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { AgentEvent } from '../../src/block/event-log.js'
import { Exclusive } from '../../src/block/exclusive.js'
import { StorageError } from '../../src/block/storage-error.js'
import { Pools } from '../../src/daemon/pools.js'
import { MemoryStore } from '../fixtures/memory-store.js'
import { scratchFolder } from '../fixtures/paths.js'
import { FakeEngine, type FakePool } from './fake-pool.js'

type Reported = Omit<AgentEvent, 'number' | 'time'>
type Test = Parameters<typeof scratchFolder>[0]

/** Pools of one agent on fake devices; more agents may share the engine, as controllers share a shelf. */
function agent(test: Test, engine = new FakeEngine(), store = new MemoryStore()) {
  const folder = scratchFolder(test, 'pools')
  const state = join(folder, 'state')
  mkdirSync(state)
  const events: Reported[] = []
  const users: string[] = []
  const taken = new Set<string>()
  const closed: (readonly string[])[] = []
  const pools = new Pools({
    store,
    engine,
    report: (event) => events.push(event),
    forbidden: [state],
    marks: [70, 85, 95],
    volumeAt: (path) => (path.endsWith('volume.img') ? 'the volume v' : undefined),
    nameTaken: (name) => (taken.has(name) ? 'it is taken' : undefined),
    users: () => users,
    onClose: async (_pool, volumes) => {
      closed.push(volumes)
    },
  })
  const file = (name: string) => join(folder, name)
  const create = (name: string, ...files: string[]) =>
    pools.create({ name, devices: files.map((path) => ({ path: file(path), kind: 'file', sizeBytes: 1024 ** 3 })) })
  return { pools, engine, store, folder, state, events, users, taken, closed, file, create }
}

t.test('a pool is found again by the next agent of the state, with its volumes', async (t) => {
  const { pools, engine, store, create, file } = agent(t)
  t.match(await create('p', 'a', 'b'), {
    name: 'p',
    state: 'online',
    devices: [{ path: file('a') }, { path: file('b') }],
  })
  await pools.get('p').createVolume('v', 512)
  await pools.close()
  const next = agent(t, engine, store)
  await next.pools.open()
  t.match(next.pools.list(), [{ name: 'p', volumes: ['v'] }])
  t.equal(next.pools.ofVolume('v')?.name, 'p')
})

t.test('a pool that cannot be opened says why, and keeps no other from its volumes', async (t) => {
  const { pools, engine, store, create, file } = agent(t)
  await create('gone', 'a')
  await create('here', 'b')
  await pools.close()
  renameSync(file('a'), file('moved'))
  const next = agent(t, engine, store)
  await next.pools.open()
  t.match(next.pools.view('gone'), { state: 'failed', reason: /NOT_A_POOL_DEVICE.*pool import/, sizeBytes: 0 })
  t.match(next.events, [{ severity: 'error', code: 'POOL_UNUSABLE', object: 'gone' }])
  t.throws(() => next.pools.get('gone'), { code: 'POOL_FAILED', hint: /NOT_A_POOL_DEVICE/ })
  t.equal(next.pools.get('here').name, 'here')
  // Its devices have other names now.
  t.match(await next.pools.import([file('moved')]), { name: 'gone', state: 'online' })
  t.match(next.pools.list(), [
    { name: 'gone', devices: [{ path: file('moved') }] },
    { name: 'here', state: 'online' },
  ])
})

t.test('that a pool failed is remembered until it has been opened again', async (t) => {
  const { pools, engine, store, create } = agent(t)
  const { id } = await create('p', 'a')
  t.equal(engine.opened?.afterFailure, false)
  engine.opened!.onFailed(id)
  await pools.close()
  const next = agent(t, engine, store)
  engine.failNext = new Error('its disk is still broken')
  await next.pools.open()
  await next.pools.check('p', false, (inner) => inner())
  t.match(engine.checks, [{ afterFailure: true }], 'a check knows it, too')
  t.equal(engine.opened!.afterFailure, true, 'and it is opened as after a power cut')
  await next.pools.close()
  const third = agent(t, engine, store)
  await third.pools.open()
  t.equal(engine.opened!.afterFailure, false, 'once')
})

t.test('another pool under the paths of one is not taken for it', async (t) => {
  const { pools, engine, store, create, file } = agent(t)
  await create('p', 'a')
  await create('q', 'b')
  await pools.close()
  renameSync(file('b'), file('a'))
  const next = agent(t, engine, store)
  await next.pools.open()
  t.match(next.pools.view('p'), { state: 'failed', reason: /OTHER_POOL/ })
})

t.test('what lies at a path is not overwritten, unless that is wanted', async (t) => {
  const { pools, state, file, create } = agent(t)
  writeFileSync(file('precious'), 'x'.repeat(4096))
  await t.rejects(create('p', 'precious'), { code: 'ALREADY_EXISTS', hint: /--force/ })
  t.equal(readFileSync(file('precious'), 'utf8'), 'x'.repeat(4096))
  const wanted = { path: file('precious'), kind: 'file' as const, sizeBytes: 1024 ** 3 }
  t.match(await pools.create({ name: 'p', devices: [wanted], force: true }), { name: 'p' })
  // What is in use is not for anybody, by no name.
  symlinkSync(file('precious'), file('link'))
  writeFileSync(file('volume.img'), Buffer.alloc(512))
  for (const [name, object] of [
    ['precious', 'the pool p'],
    ['link', 'the pool p'],
    ['volume.img', 'the volume v'],
  ]) {
    const again = { ...wanted, path: file(name!) }
    await t.rejects(pools.create({ name: 'q', devices: [again], force: true }), {
      code: 'ALREADY_IN_USE',
      hint: `It belongs to ${object}.`,
    })
  }
  await t.rejects(create('q', 'state/inside'), { code: 'PATH_IN_BUFFER' })
  await t.rejects(create('q', 'no/such/folder'), { code: 'NOT_FOUND' })
  await t.rejects(create('q', 'x', 'x'), { code: 'BAD_REQUEST' })
  await t.rejects(create('p', 'y'), { code: 'ALREADY_EXISTS', hint: /pool export p/ })
  await t.rejects(create('../p', 'y'), { code: 'BAD_NAME' })
  await t.rejects(pools.create({ name: 'q', devices: [{ path: file('y'), kind: 'file' }] }), { code: 'BAD_SIZE' })
  await t.rejects(pools.create({ name: 'q', devices: [{ path: file('precious'), kind: 'raw' }] }), {
    code: /NOT_A_BLOCK_DEVICE|BAD_SIZE/,
  })
  for (const name of ['x', 'y', 'state/inside']) t.notOk(existsSync(join(state, '..', name)), name)
  t.match(pools.list(), [{ name: 'p' }])
})

t.test('a creation that fails leaves no file', async (t) => {
  const { pools, engine, file, create } = agent(t)
  engine.failNext = new StorageError('DISK_FULL', { op: 'pool create', object: 'a', hint: 'Free space.' })
  await t.rejects(create('p', 'a', 'b'), { code: 'DISK_FULL' })
  t.notOk(existsSync(file('a')) || existsSync(file('b')))
  t.same(pools.list(), [])
})

t.test('a pool is extended, and the next agent knows all of its devices', async (t) => {
  const { pools, engine, store, create, file } = agent(t)
  await create('p', 'a')
  const more = { kind: 'file' as const, sizeBytes: 1024 ** 3 }
  await t.rejects(pools.extend('p', { ...more, path: file('bad') }), { code: 'DEVICE_FAILED' })
  t.match(await pools.extend('p', { ...more, path: file('b') }), { devices: [{}, { path: file('b') }] })
  await t.rejects(pools.extend('p', { ...more, path: file('b'), force: true }), { code: 'ALREADY_IN_USE' })
  await t.rejects(pools.extend('nobody', { ...more, path: file('c') }), { code: 'NO_SUCH_POOL' })
  await pools.close()
  const next = agent(t, engine, store)
  await next.pools.open()
  t.match(next.pools.view('p'), { state: 'online', devices: [{}, {}] })
})

t.test('a pool goes to another agent; in use it stays', async (t) => {
  const { pools, engine, users, closed, create, file } = agent(t)
  await create('p', 'a', 'b')
  await pools.get('p').createVolume('v', 512)
  users.push('v is attached.')
  await t.rejects(pools.export('p'), { code: 'POOL_IN_USE', hint: /v is attached/ })
  users.length = 0
  t.same(await pools.export('p'), { name: 'p', paths: [file('a'), file('b')] })
  t.same(pools.list(), [])
  t.same(closed, [['v']])
  const other = agent(t, engine)
  await t.rejects(other.pools.import([file('a')]), { code: 'DEVICE_MISSING' })
  await t.rejects(other.pools.import([file('nothing')]), { code: 'NOT_FOUND' })
  t.match(await other.pools.import([file('b'), file('a')]), { name: 'p', volumes: ['v'] })
  await t.rejects(other.pools.import([file('b'), file('a')]), { code: 'ALREADY_IN_USE' })
})

t.test(
  'whoever opens a pool that it did not have last makes a holder of its own, before anybody else has it',
  async (t) => {
    const { pools, engine, store, create, file } = agent(t)
    const { id } = await create('p', 'a')
    const first = engine.pools.get(id)!.holder
    t.match(first, /^[0-9a-f]{32}$/)
    await pools.close()
    const next = agent(t, engine, store)
    await next.pools.open()
    t.equal(next.pools.get('p').holder, first, 'the next agent of the state is the same holder')
    await next.pools.close()
    const elsewhere = agent(t, engine)
    await elsewhere.pools.import([file('a')])
    const second = elsewhere.pools.get('p').holder
    t.match(second, /^[0-9a-f]{32}$/)
    t.not(second, first)
    t.notOk(
      elsewhere.events.some(({ code }) => code === 'POOL_WAS_ELSEWHERE'),
      'it had no stream there',
    )
    await elsewhere.pools.export('p')
    const back = agent(t, engine, store)
    await back.pools.open()
    const third = back.pools.get('p').holder
    t.notOk(third === first || third === second, 'back where it was it is not what it was')
    t.match(back.events, [{ severity: 'warning', code: 'POOL_WAS_ELSEWHERE', object: 'p' }])
    await back.pools.close()
    const again = agent(t, engine, store)
    await again.pools.open()
    t.equal(again.pools.get('p').holder, third)
    t.same(again.events, [])
  },
)

t.test(
  'an import says what the pool may lack: where it was not closed, and another agent had its volumes in a stream',
  async (t) => {
    const { engine, create, file, pools } = agent(t)
    const { id } = await create('p', 'a')
    const pool = engine.pools.get(id)!
    for (const name of ['v', 'w', 'x']) await pool.createVolume(name, 512)
    await pools.close()
    for (const [afterCrash, streams, lacks] of [
      [true, { v: 'gold', w: 'gold' }, true],
      [false, { v: 'gold', w: null }, false],
      [true, { v: null, w: null }, false],
    ] as const) {
      for (const [name, stream] of Object.entries(streams)) await pool.setStream(name, stream)
      pool.afterCrash = afterCrash
      const elsewhere = agent(t, engine)
      const { reason } = await elsewhere.pools.import([file('a')])
      const said = elsewhere.events.filter(({ code }) => code === 'POOL_LACKS_WRITES')
      if (lacks) {
        t.match(
          reason,
          /flushes of v \(stream gold\), w \(stream gold\): of these volumes flushed writes may be missing/,
        )
        t.strictSame(said, [{ severity: 'warning', code: 'POOL_LACKS_WRITES', object: 'p', text: reason }])
      } else {
        t.equal(reason, 'all is well')
        t.strictSame(said, [])
      }
      t.strictSame(
        pool.volumes().map(({ stream }) => stream),
        [null, null, null],
        'streams are those of the holder',
      )
      await elsewhere.pools.export('p')
    }
  },
)

t.test('an agent whose own pool was not closed lacks nothing: it has the journals', async (t) => {
  const { engine, create, file, pools, store } = agent(t)
  const { id } = await create('p', 'a')
  const pool = engine.pools.get(id)!
  await pool.createVolume('v', 512)
  await pool.setStream('v', 'gold')
  await pools.close()
  pool.afterCrash = true
  renameSync(file('a'), file('away'))
  const next = agent(t, engine, store)
  await next.pools.open()
  t.equal((await next.pools.import([file('away')])).reason, 'all is well')
  t.equal(pool.volume('v').stream, 'gold')
})

t.test('an agent that dies before it has recorded that it holds a pool is no holder of it', async (t) => {
  const { pools, engine, store, create, file } = agent(t)
  const { id } = await create('p', 'a')
  await pools.close()
  const dying = agent(t, engine)
  engine.pools.get(id)!.holdFails = true
  await t.rejects(dying.pools.import([file('a')]), { code: 'POOL_FAILED' })
  t.same(dying.pools.list(), [], 'it is not taken without a holder')
  engine.pools.get(id)!.holdFails = false
  await engine.pools.get(id)!.hold('of nobody who knows')
  const back = agent(t, engine, store)
  await back.pools.open()
  t.not(back.pools.get('p').holder, 'of nobody who knows')
  t.match(back.events, [{ code: 'POOL_WAS_ELSEWHERE' }])
})

t.test('a pool from before there were holders stays as it is with its agent, and is held by the next', async (t) => {
  const { pools, engine, store, create, file } = agent(t)
  const { id } = await create('p', 'a')
  await pools.close()
  const pool = engine.pools.get(id)!
  pool.holder = null
  await store.remove([`held-pool/${id}`])
  const upgraded = agent(t, engine, store)
  await upgraded.pools.open()
  t.equal(pool.holder, null)
  t.same(upgraded.events, [])
  // Its devices are away for a while, and it is given up and imported again.
  await upgraded.pools.close()
  renameSync(file('a'), file('away'))
  const without = agent(t, engine, store)
  await without.pools.open()
  await without.pools.export('p')
  await without.pools.import([file('away')])
  t.equal(pool.holder, null, 'still its own')
  await without.pools.close()
  await agent(t, engine).pools.import([file('away')])
  t.match(pool.holder, /^[0-9a-f]{32}$/)
})

t.test('an import whose names are taken is refused, and lets go of the pool', async (t) => {
  const { pools, engine, create, file } = agent(t)
  await create('p', 'a')
  await pools.get('p').createVolume('v', 512)
  await pools.export('p')
  const sameVolume = agent(t, engine)
  sameVolume.taken.add('v')
  await t.rejects(sameVolume.pools.import([file('a')]), { code: 'NAME_IN_USE', hint: /volume v,/ })
  const inPool = agent(t, engine)
  await inPool.create('q', 'q')
  await inPool.pools.get('q').createVolume('v', 512)
  await t.rejects(inPool.pools.import([file('a')]), { code: 'NAME_IN_USE', hint: /volume v,/ })
  const samePool = agent(t, engine)
  await samePool.create('p', 'another')
  await t.rejects(samePool.pools.import([file('a')]), { code: 'ALREADY_EXISTS', hint: /pool export p/ })
  const [pool] = [...engine.pools.values()] as FakePool[]
  t.ok(pool!.closed)
  t.match(await pools.import([file('a')]), { volumes: ['v'] }, 'and who can have it has it')
})

t.test('a pool with volumes is removed only for certain; its files go, what is not its own stays', async (t) => {
  const { pools, create, file, users } = agent(t)
  await create('p', 'a', 'b')
  await pools.get('p').createVolume('v', 512)
  await t.rejects(pools.remove('p', false), { code: 'CONFIRMATION_NEEDED', hint: /1 volumes \(v\).*--yes/ })
  users.push('v is attached.')
  await t.rejects(pools.remove('p', true), { code: 'POOL_IN_USE' })
  users.length = 0
  writeFileSync(file('b'), 'something else by now')
  await pools.remove('p', true)
  t.notOk(existsSync(file('a')))
  t.ok(existsSync(file('b')))
  t.same(pools.list(), [])
  await create('empty', 'c')
  await pools.remove('empty', false)
})

t.test('a check has the pool for itself, other commands go on, and it is open again afterwards', async (t) => {
  const { pools, engine, users, create, file } = agent(t)
  await create('p', 'a')
  const changes = new Exclusive()
  const exclusive = <T>(action: () => Promise<T>): Promise<T> => changes.run(action)
  users.push('v is attached.')
  await t.rejects(pools.check('p', false, exclusive), { code: 'POOL_IN_USE', hint: 'v is attached.' })
  t.equal(pools.get('p').name, 'p')
  users.length = 0
  let end = () => {}
  engine.checking = new Promise((resolve) => {
    end = resolve
  })
  const checked = pools.check('p', true, exclusive)
  while (engine.checks.length === 0) await new Promise((resolve) => setImmediate(resolve))
  t.throws(() => pools.get('p'), { code: 'POOL_FAILED', hint: /being checked/ })
  t.match(pools.view('p'), { state: 'failed', check: { donePages: 3, totalPages: 4 } }, 'how far it is')
  await exclusive(() => create('q', 'q'))
  for (const action of [
    () => pools.export('p'),
    () => pools.remove('p', true),
    () => pools.import([file('a')]),
    () => pools.check('p', false, (inner) => inner()),
  ]) {
    await t.rejects(exclusive<unknown>(action), { code: /POOL_BUSY|ALREADY_EXISTS/ })
  }
  end()
  t.match(await checked, { clean: true })
  t.same(engine.checks, [{ paths: [file('a')], repair: true, afterFailure: false }])
  t.equal(pools.view('p').check, null)
  t.equal(pools.get('p').name, 'p')
})
