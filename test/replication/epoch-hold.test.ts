import { mock } from 'node:test'
import t from 'tap'
import { type Lsn, lsn } from '../../src/block/units.js'
import { EpochHold } from '../../src/replication/epoch-hold.js'
import { StreamState } from '../../src/replication/stream-state.js'
import { MemoryStore } from '../fixtures/memory-store.js'

async function runningState(store = new MemoryStore()): Promise<StreamState> {
  const state = new StreamState(store, 's')
  await state.move({ phase: 'running', copyEndLsn: '100' })
  return state
}

t.test('a hold is durable before anything that belongs to it, and its end says where the next state is', async (t) => {
  const store = new MemoryStore()
  const state = await runningState(store)
  const hold = new EpochHold(state, async () => lsn(500n))
  await hold.begin()
  t.match(new StreamState(store, 's').position, { held: true, copyEndLsn: '100' })
  await hold.begin()
  await hold.end()
  t.equal(state.position.held, true, 'another one holds it still')
  await hold.end()
  t.match(new StreamState(store, 's').position, { held: false, copyEndLsn: '500' })
})

t.test('the next state is never moved back', async (t) => {
  const state = await runningState()
  const hold = new EpochHold(state, async () => lsn(50n))
  await hold.begin()
  await hold.end()
  t.match(state.position, { held: false, copyEndLsn: '100' })
})

t.test('what was given up meanwhile is not held again by its end', async (t) => {
  const state = await runningState()
  const hold = new EpochHold(state, async () => t.fail('nothing to sync') as never)
  await hold.begin()
  await state.move({ held: false })
  await hold.end()
  t.match(state.position, { held: false, copyEndLsn: '100' })
})

t.test('a stream that does not run holds nothing, but knows of it when it begins', async (t) => {
  const state = new StreamState(new MemoryStore(), 's')
  const hold = new EpochHold(state, async () => undefined)
  await hold.begin()
  t.match([state.position.held, hold.active], [false, true])
  await hold.end()
  t.equal(hold.active, false)
})

t.test('a hold that ends while nothing is journaled stays for the next life of the stream', async (t) => {
  const state = await runningState()
  let end: Lsn | undefined
  const hold = new EpochHold(state, async () => end)
  await hold.begin()
  await hold.end()
  t.equal(state.position.held, true)
  end = lsn(900n)
  await hold.begin()
  await hold.end()
  t.match(state.position, { held: false, copyEndLsn: '900' })
})

t.test('after a crash whoever held it has a minute to come back', async (t) => {
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => mock.timers.reset())
  const settle = async (): Promise<void> => {
    for (let turn = 0; turn < 10; turn++) await Promise.resolve()
  }
  const state = await runningState()
  await state.move({ held: true })
  const kept = new EpochHold(state, async () => lsn(700n))
  kept.resume()
  mock.timers.tick(59_000)
  await kept.begin()
  mock.timers.tick(120_000)
  await settle()
  t.equal(state.position.held, true, 'it came back')

  const left = new EpochHold(state, async () => lsn(800n))
  left.resume()
  mock.timers.tick(59_000)
  await settle()
  t.equal(state.position.held, true)
  mock.timers.tick(2_000)
  await settle()
  t.match(state.position, { held: false, copyEndLsn: '800' })
})

t.test('a position that was recorded before there were holds is completed', async (t) => {
  const store = new MemoryStore()
  const { held: _held, stateEpoch: _stateEpoch, ...old } = (await runningState()).position
  await store.put({ 'position/s': { ...old, cutEpoch: 12, consistentEpoch: 4 } })
  t.match(new StreamState(store, 's').position, { held: false, stateEpoch: 12, cutEpoch: 12 })
  await store.put({ 'position/s': { ...old, cutEpoch: 2, consistentEpoch: 0 } })
  t.match(new StreamState(store, 's').position, { held: false, stateEpoch: 0 })
})
