import t from 'tap'
import { Pause } from '../../src/block/pause.js'
import { StorageError } from '../../src/block/storage-error.js'
import { lsn } from '../../src/block/units.js'
import type { StreamJournal } from '../../src/journal/stream-journal.js'
import type { CatchUp } from '../../src/replication/catch-up.js'
import { EpochCutter } from '../../src/replication/epoch-cutter.js'
import type { PackJob, PackResult } from '../../src/replication/pack-job.js'
import type { Packer as RealPacker } from '../../src/replication/pack-workers.js'
import type { RecordedVolumes } from '../../src/replication/recorded-volumes.js'
import type { SourceBuffer } from '../../src/replication/source-buffer.js'
import {
  newPosition,
  type StreamDefinition,
  type StreamPosition,
  StreamState,
} from '../../src/replication/stream-state.js'
import { MemoryStore } from '../fixtures/memory-store.js'

const pieceBytes = 4096
const epochMs = 1e9
const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5))
async function until(holds: () => boolean): Promise<void> {
  const deadline = performance.now() + 20_000
  while (!holds()) {
    if (performance.now() > deadline) throw new Error('not within 20 s')
    await turn()
  }
}

/** A worker that seals at once, and writes when it is told to. */
class Packer {
  readonly jobs: PackJob[] = []
  readonly writing: { tag: string; done: () => void; fail: (error: Error) => void }[] = []
  sealing: StorageError | undefined

  async call(method: string, argument: PackJob | Uint8Array): Promise<unknown> {
    if (method === 'written') {
      const tag = Buffer.from(argument as Uint8Array).toString('hex')
      return new Promise<void>((done, fail) => this.writing.push({ tag, done, fail }))
    }
    const job = argument as PackJob
    this.jobs.push(job)
    if (this.sealing) throw this.sealing
    return {
      endLsn: job.to,
      initializing: job.consistentFrom === null,
      parts: [{ name: `part-${job.place.epoch}`, lengthBytes: 100 }],
      tag: Buffer.alloc(16, this.jobs.length),
      rawBytes: 0,
      foldedBytes: 0,
      identicalBytes: 0,
      compressedBytes: 0,
      oldestMs: 0,
      digestedBytes: 0,
      busy: [],
    } satisfies PackResult
  }
}

/** A cutter in the middle of an initialisation of so many pieces, one an epoch. */
async function initializing(
  t: Tap,
  pieces: number,
  bufferLimitBytes = 1e6,
  clock = { nowMs: 0 },
  more: Partial<StreamPosition> = {},
) {
  const state = new StreamState(new MemoryStore(), 's')
  await state.move({ ...newPosition, phase: 'running', generation: 1, copy: { slot: 0, offset: 0 }, ...more })
  const packer = new Packer()
  let published = 4096n
  const trimmed: bigint[] = []
  const journal = {
    directory: '/nowhere',
    id: Buffer.alloc(16),
    segmentBytes: 1 << 20,
    limitBytes: 1 << 30,
    counters: () => ({ publishedLsn: lsn(published), appliedLsn: lsn(published) }),
    sync: async () => {
      published += 512n
      return lsn(published)
    },
    trim: (below: bigint) => trimmed.push(below),
  }
  const buffer = {
    get bytes() {
      return 100 * state.epochs.size
    },
    write: <T>(write: (directory: string, placed: () => void) => Promise<T>) => write('/nowhere', () => undefined),
  }
  const catchUp = {
    plan: (_: unknown, { offset }: { offset: number }) => ({
      pieces: [{ volume: 0, path: '/nowhere', offset, lengthBytes: pieceBytes }],
      next: offset / pieceBytes + 1 < pieces ? { slot: 0, offset: offset + pieceBytes } : null,
    }),
  }
  const troubles: (string | null)[] = []
  const cutter = new EpochCutter({
    definition: { id: '00'.repeat(16), name: 's', volumes: [], epochMs } as unknown as StreamDefinition,
    pairingId: Buffer.alloc(16),
    secret: Buffer.alloc(32),
    state,
    buffer: buffer as unknown as SourceBuffer,
    bufferLimitBytes,
    journal: journal as unknown as StreamJournal,
    volumes: { files: () => [] } as unknown as RecordedVolumes,
    catchUp: catchUp as unknown as CatchUp,
    packer: packer as unknown as RealPacker,
    verify: { isDue: false, isWanted: () => false, digests: async () => null, step: async () => undefined },
    pause: new Pause(),
    onCut: () => undefined,
    onBufferFull: () => undefined,
    onLetGo: () => undefined,
    onTrouble: (error) => troubles.push(error?.code ?? null),
    now: () => clock.nowMs,
  })
  const stop = new AbortController()
  let running = true
  const ended = cutter.run(stop.signal).finally(() => {
    running = false
  })
  const end = async (): Promise<void> => {
    stop.abort()
    for (const { done } of packer.writing) done()
    await turn()
    for (const { done } of packer.writing) done()
    await ended
  }
  t.teardown(end)
  const write = (): void => {
    published += 512n
  }
  return { state, packer, trimmed, troubles, stop, end, write, isRunning: () => running }
}
type Tap = { teardown(action: () => Promise<void>): void }

const tagOf = (job: PackJob | undefined): string => Buffer.from(job!.place.previousTag).toString('hex')
const unavailable = new StorageError('BUFFER_UNAVAILABLE', { op: 'write', object: 'x', hint: '', retry: 'later' })

t.test('while the files of one epoch are written the next one is made, and no other', async (t) => {
  const { state, packer, trimmed } = await initializing(t, 4)
  await turn()
  await turn()
  t.equal(packer.jobs.length, 2, 'one ahead')
  t.equal(tagOf(packer.jobs[1]), packer.writing[0]?.tag, 'it follows the first')
  t.equal(packer.jobs[1]?.from, packer.jobs[0]?.to, 'where that ends')
  t.same(
    packer.jobs.map(({ copies }) => copies[0]?.offset),
    [0, pieceBytes],
  )
  t.equal(state.position.cutEpoch, 0, 'neither exists yet')
  packer.writing[1]?.done()
  await turn()
  t.equal(state.position.cutEpoch, 0, 'not before the first, though it is written')
  packer.writing[0]?.done()
  await turn()
  await turn()
  t.equal(state.position.cutEpoch, 2)
  t.same(trimmed, [packer.jobs[0]?.to, packer.jobs[1]?.to])
  t.same(state.position.copy, { slot: 0, offset: 2 * pieceBytes })
})

t.test('when the files of an epoch cannot be written neither it nor what was made on it exists', async (t) => {
  const { state, packer, troubles } = await initializing(t, 4)
  await turn()
  await turn()
  packer.writing[1]?.done()
  packer.writing[0]?.fail(unavailable)
  await turn()
  await turn()
  t.equal(state.position.cutEpoch, 0)
  t.equal(state.epochs.size, 0)
  t.same(state.position.copy, { slot: 0, offset: 0 }, 'the copy stands where it stood')
  t.equal(troubles.at(-1), 'BUFFER_UNAVAILABLE')
  await new Promise((resolve) => setTimeout(resolve, 2_100))
  t.equal(packer.jobs[2]?.place.epoch, 1, 'it is made again')
  t.equal(tagOf(packer.jobs[2]), tagOf(packer.jobs[0]))
  t.equal(packer.jobs[2]?.from, packer.jobs[0]?.from)
  packer.writing[2]?.done()
  await turn()
  t.equal(state.position.cutEpoch, 1)
  t.equal(troubles.at(-1), null, 'and the trouble is over')
})

t.test('an epoch that cannot be sealed does not keep the one before from existing', async (t) => {
  const { state, packer, troubles } = await initializing(t, 4)
  packer.sealing = undefined
  await turn()
  packer.sealing = unavailable
  packer.writing[0]?.done()
  await turn()
  packer.writing[1]?.done()
  await turn()
  await turn()
  t.ok(state.position.cutEpoch >= 1)
  t.equal(state.position.cutEpoch, packer.writing.length, 'all that were sealed')
  t.equal(troubles.at(-1), 'BUFFER_UNAVAILABLE', 'and the trouble shows')
})

t.test('what follows a copy is made when the end of the copy is recorded, and not before', async (t) => {
  const { state, packer } = await initializing(t, 2)
  await turn()
  await turn()
  t.equal(packer.jobs.length, 2)
  packer.writing[0]?.done()
  await turn()
  await turn()
  t.equal(packer.jobs.length, 2, 'the last of the copy is not recorded')
  packer.writing[1]?.done()
  await turn()
  await turn()
  t.equal(state.position.copy, null)
  t.ok(BigInt(state.position.copyEndLsn) >= packer.jobs[1]!.to)
  t.equal(packer.jobs.length, 3)
  t.equal(packer.jobs[2]?.consistentFrom, BigInt(state.position.copyEndLsn), 'it knows where the far side is a state')
})

t.test(
  'what the journal held when a catch-up began is in epochs of its own, before the first that copies',
  async (t) => {
    const catchUp = { reason: '', totalBytes: 2 * pieceBytes, untilEpoch: 0, afterLsn: '5000' }
    const { state, packer } = await initializing(t, 2, 1e6, { nowMs: 0 }, { catchUp })
    for (let epoch = 1; epoch <= 4; epoch += 1) {
      await until(() => packer.writing.length >= epoch)
      packer.writing[epoch - 1]?.done()
    }
    await until(() => state.position.cutEpoch === 4)
    t.same(
      packer.jobs.slice(0, 4).map(({ from, copies }) => [from, copies[0]?.offset]),
      [
        [0n, undefined],
        [4608n, undefined],
        [5120n, 0],
        [5632n, pieceBytes],
      ],
    )
    t.same(
      packer.jobs.slice(0, 4).map(({ consistentFrom }) => consistentFrom),
      [null, null, null, null],
      'none of them is a state',
    )
    t.equal(state.position.copy, null)
  },
)

t.test('an epoch that is sealed counts against the limit of the buffer', async (t) => {
  const { packer } = await initializing(t, 9, 100)
  await turn()
  await turn()
  t.equal(packer.jobs.length, 1)
})

t.test('an epoch is as old as its oldest write; of one from before its journal tells', async (t) => {
  const clock = { nowMs: 70_000 }
  const { state, packer } = await initializing(t, 9, 1e6, clock)
  await turn()
  await turn()
  for (const { done } of packer.writing) done()
  await turn()
  await turn()
  t.ok(state.oldestUnsentMs < 0, 'the first was written in 1970')
  await state.move({ sentEpoch: 1 })
  t.equal(state.oldestUnsentMs, clock.nowMs)
})

t.test('an epoch ends when its time has passed by a clock that never jumps', async (t) => {
  const clock = { nowMs: 0 }
  const { state, packer, write } = await initializing(t, 1, 1e6, clock)
  for (const epoch of [1, 2]) {
    await until(() => packer.writing.length === epoch)
    packer.writing[epoch - 1]?.done()
  }
  await until(() => state.position.consistentEpoch === 2)
  write()
  clock.nowMs = 1
  await new Promise((resolve) => setTimeout(resolve, 500))
  t.equal(packer.jobs.length, 2)
  clock.nowMs += epochMs
  await until(() => packer.writing.length === 3)
  packer.writing[2]?.done()
  await until(() => state.position.cutEpoch === 3)
  await state.move({ sentEpoch: 2 })
  t.equal(state.oldestUnsentMs, 1)
})

t.test('a stop waits for what is being written, and makes nothing of it', async (t) => {
  const { state, packer, stop, end, isRunning } = await initializing(t, 4)
  await turn()
  stop.abort()
  await turn()
  t.ok(isRunning(), 'it waits')
  await end()
  t.notOk(isRunning())
  t.equal(packer.writing.length, packer.jobs.length, 'each that was made was waited for')
  t.equal(state.position.cutEpoch, 0)
})
