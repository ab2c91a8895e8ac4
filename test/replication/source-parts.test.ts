import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { StorageError } from '../../src/block/storage-error.js'
import { Sender } from '../../src/replication/sender.js'
import { SourceBuffer } from '../../src/replication/source-buffer.js'
import { type CutEpoch, StreamState } from '../../src/replication/stream-state.js'
import type { Transport } from '../../src/transport/transport.js'
import { MemoryStore } from '../fixtures/memory-store.js'
import { scratchFolder } from '../fixtures/paths.js'

/** A store whose puts wait until they are let go, or fail. */
class SlowStore extends MemoryStore {
  held: { go: () => void; fail: () => void }[] = []
  slow = false

  override async put(entries: Record<string, unknown>): Promise<void> {
    if (this.slow) {
      await new Promise<void>((resolve, reject) => {
        this.held.push({ go: resolve, fail: () => reject(new Error('disk full')) })
      })
    }
    await super.put(entries)
  }
}

const cut = (epoch: number): CutEpoch => ({
  epoch,
  endLsn: String(epoch * 4096),
  parts: [{ name: `part-${epoch}`, lengthBytes: 4 }],
  rawBytes: 4096,
  oldestMs: 0,
})
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

t.test('an epoch cannot be seen, and so not be sent, before it is durable', async (t) => {
  const store = new SlowStore()
  const state = new StreamState(store, 's')
  store.slow = true
  const committing = state.commitEpoch(cut(1), { cutEpoch: 1, cutLsn: '4096' })
  await turn()
  t.equal(state.position.cutEpoch, 0)
  t.equal(state.epochs.size, 0)
  store.held.shift()!.go()
  await committing
  t.equal(state.position.cutEpoch, 1)
  t.ok(state.epochs.has(1))
})

t.test('a commit that failed has not happened, and what follows does not carry it', async (t) => {
  const store = new SlowStore()
  const state = new StreamState(store, 's')
  store.slow = true
  const committing = state.commitEpoch(cut(1), { cutEpoch: 1 })
  const counting = state.move(({ counters }) => ({ counters: { ...counters, sentBytes: 7 } }))
  await turn()
  store.held.shift()!.fail()
  await t.rejects(committing, { message: 'disk full' })
  await turn()
  store.held.shift()!.go()
  await counting
  t.match(new StreamState(store, 's').position, { cutEpoch: 0, counters: { sentBytes: 7 } })
})

t.test('changes made at the same time lose none of each other', async (t) => {
  const state = new StreamState(new MemoryStore(), 's')
  const add = (): Promise<void> =>
    state.move(({ counters }) => ({ counters: { ...counters, sentBytes: counters.sentBytes + 1 } }))
  await Promise.all(Array.from({ length: 50 }, add))
  t.equal(state.position.counters.sentBytes, 50)
})

t.test('a part that was asked for again and applied meanwhile holds up nothing', async (t) => {
  const folder = scratchFolder(t, 'sender')
  mkdirSync(join(folder, 'files'))
  const state = new StreamState(new MemoryStore(), 's')
  const buffer = new SourceBuffer({ home: join(folder, 'files'), state })
  for (const epoch of [1, 2, 3]) {
    writeFileSync(buffer.file(`part-${epoch}`), 'data')
    await state.commitEpoch(cut(epoch), { cutEpoch: epoch })
  }
  await state.move({ sentEpoch: 2 })
  const sent: string[] = []
  const transport = {
    put: async (_folder: string, name: string) => {
      if (![1, 2, 3].some((epoch) => state.epochs.has(epoch) && name === `part-${epoch}`)) {
        throw new StorageError('SOURCE_FILE', { op: 'put', object: name, retry: 'later', hint: 'It is gone.' })
      }
      sent.push(name)
    },
  } as unknown as Transport
  const stop = new AbortController()
  const done = new Promise<void>((resolve) => {
    const sender = new Sender({
      folder: 'f',
      state,
      buffer,
      transport,
      paused: () => false,
      onLink: (error) => error && t.fail(error.message),
      onSent: () => state.position.sentEpoch === 3 && resolve(),
    })
    sender.again([{ epoch: 1, part: 0 }], 1e12)
    void buffer.release(1).then(() => sender.run(stop.signal))
  })
  await done
  stop.abort()
  t.same(sent, ['part-3'])
})
