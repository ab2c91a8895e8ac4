/** What an acknowledgement may say, and who may have written it: the share it comes over is not trusted. */
import { randomBytes } from 'node:crypto'
import t, { type Test } from 'tap'
import type { StorageError } from '../../src/block/storage-error.js'
import { AcknowledgementReader } from '../../src/replication/acknowledgement-reader.js'
import { nextJournalLsn, StreamState } from '../../src/replication/stream-state.js'
import { beginVerify } from '../../src/replication/verify-state.js'
import {
  type Acknowledgement,
  type Comparison,
  DIFFERING_LIMIT,
  sealAcknowledgement,
} from '../../src/replication-file/acknowledgement.js'
import type { Transport } from '../../src/transport/transport.js'
import { MemoryStore } from '../fixtures/memory-store.js'

const streamId = Buffer.alloc(16, 3)
const secret = randomBytes(32)

/** A stream of generation 2 that has cut and sent ten epochs, of which two were applied. */
class Rig {
  readonly state = new StreamState(new MemoryStore(), 's')
  readonly bad: StorageError[] = []
  readonly wanted: number[] = []
  reports = 0
  applied = 0
  readonly lost: number[] = []
  readonly compared: number[] = []
  /** Generations that the destination was said to have. */
  readonly overtaken: number[] = []
  reads = 0
  bytes: Buffer | undefined
  /** Names that the server lists, whatever is there. */
  listed: string[] = []
  nowMs = 0
  readonly #stop = new AbortController()
  readonly #running: Promise<void>
  readonly #reader: AcknowledgementReader

  private constructor() {
    const read = async (): Promise<Buffer | undefined> => {
      this.reads++
      return this.bytes
    }
    const list = async () => this.listed.map((name) => ({ name, lengthBytes: 1 }))
    this.#reader = new AcknowledgementReader({
      folder: streamId.toString('hex'),
      secret,
      state: this.state,
      transport: { read, list } as Partial<Transport> as Transport,
      onApplied: async () => void this.applied++,
      onReceived: async () => false,
      onComparison: (now) => void this.compared.push(now.comparedBytes),
      onReport: () => void this.reports++,
      onLostThere: (epoch) => void this.lost.push(epoch),
      onOvertaken: (generation) => void this.overtaken.push(generation),
      onWanted: (places) => void this.wanted.push(...places.map(({ epoch }) => epoch)),
      onLink: () => undefined,
      onBadSeal: (error) => void this.bad.push(error),
      now: () => this.nowMs,
    })
    this.#running = this.#reader.run(this.#stop.signal)
  }

  static async start(t: Test): Promise<Rig> {
    const rig = new Rig()
    await rig.state.move({
      ...{ phase: 'running', generation: 2, cutEpoch: 10, sentEpoch: 10, appliedEpoch: 2, acknowledgement: 5 },
    })
    t.teardown(async () => {
      rig.#stop.abort()
      await rig.#running
    })
    return rig
  }

  ask(limitMs: number): Promise<boolean> {
    return this.#reader.ask(limitMs)
  }

  /** The destination, or somebody else, puts these bytes there; resolves when they were read and considered. */
  put(bytes: Buffer): Promise<void> {
    this.bytes = bytes
    return this.look()
  }

  async look(): Promise<void> {
    const from = this.reads
    while (this.reads < from + 2) {
      this.#reader.expect()
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
}

function message(change: Partial<Acknowledgement> = {}): Acknowledgement {
  return {
    ...{ sequence: 6, generation: 2, appliedEpoch: 4, appliedLsn: '4096', state: 'consistent', reason: '', wanted: [] },
    ...change,
  }
}
const sealed = (change: Partial<Acknowledgement> = {}) => sealAcknowledgement(message(change), secret, streamId)

t.test('an acknowledgement moves the stream once, however often it is read', async (t) => {
  const rig = await Rig.start(t)
  const bytes = sealed({ wanted: [{ epoch: 5, part: 0 }] })
  await rig.put(bytes)
  await rig.put(bytes)
  t.match(rig.state.position, { appliedEpoch: 4, acknowledgement: 6 })
  t.equal(rig.applied, 1)
  t.same(rig.wanted, [5])
})

t.test('what was released as received and is asked for again is lost at the destination', async (t) => {
  const rig = await Rig.start(t)
  const part = { name: 'a', lengthBytes: 1 }
  await rig.state.commitEpoch({ epoch: 10, endLsn: '9000', parts: [part], rawBytes: 1, oldestMs: 0 }, {})
  await rig.put(sealed({ wanted: [{ epoch: 10, part: 0 }] }))
  t.same(rig.lost, [], 'what is still here is sent again')
  await rig.put(sealed({ sequence: 7, receivedEpoch: 6, wanted: [{ epoch: 6, part: 0 }] }))
  await rig.put(sealed({ sequence: 8, wanted: [{ epoch: 11, part: 0 }] }))
  t.same(rig.lost, [], 'what it has, or was never sent, is not lost')
  await rig.put(sealed({ sequence: 9, receivedEpoch: 6, wanted: [{ epoch: 7, part: 0 }] }))
  t.same(rig.lost, [7])
})

t.test('R28: what a server lists for ever and the destination never has is sent again, ever more rarely', async (t) => {
  const rig = await Rig.start(t)
  for (const epoch of [3, 10]) {
    const part = { name: `e${epoch}`, lengthBytes: 1 }
    await rig.state.commitEpoch({ epoch, endLsn: '9000', parts: [part], rawBytes: 1, oldestMs: 0 }, {})
    rig.listed.push(part.name)
  }
  /** Seconds from now at which something is sent again; looked at every 40 s. */
  const sentAgain = async (seconds: number, epochs: readonly number[]): Promise<number[]> => {
    const fromMs = rig.nowMs
    const at: number[] = []
    for (let passed = 40; passed <= seconds; passed += 40) {
      rig.nowMs = fromMs + passed * 1000
      await rig.look()
      const wanted = rig.wanted.splice(0)
      if (wanted.length > 0) at.push(passed)
      if (wanted.length > 0) t.same(wanted, epochs, 'each once')
    }
    return at
  }
  await rig.look()
  t.same(await sentAgain(12_280, [3, 10]), [80, 240, 560, 1200, 2480, 5040, 8640, 12_240], 'up to once an hour')
  await rig.put(sealed({ appliedEpoch: 4 }))
  t.same(await sentAgain(160, [10]), [80], 'after progress as in the beginning')
  rig.listed.pop()
  t.same(await sentAgain(80, [10]), [40, 80], 'what is not listed at once')
})

t.test('what the destination has and cannot apply is not taken for lost', async (t) => {
  const rig = await Rig.start(t)
  for (const epoch of [3, 10]) {
    const part = { name: `e${epoch}`, lengthBytes: 1 }
    await rig.state.commitEpoch({ epoch, endLsn: '9000', parts: [part], rawBytes: 1, oldestMs: 0 }, {})
  }
  await rig.put(sealed({ appliedEpoch: 2, receivedEpoch: 10 }))
  rig.nowMs += 21_000
  await rig.look()
  t.same(rig.wanted, [])
  await rig.put(sealed({ sequence: 7, appliedEpoch: 2, receivedEpoch: 3 }))
  rig.nowMs += 21_000
  await rig.look()
  t.same(rig.wanted, [10], 'what it has no more is sent again')
})

t.test('an LSN beyond what was cut is not believed: the next journal begins behind it', async (t) => {
  const rig = await Rig.start(t)
  await rig.state.move({ cutLsn: '9000' })
  await rig.put(sealed({ appliedLsn: '4096' }))
  t.match(rig.state.position, { appliedEpoch: 4, appliedLsn: '4096' })
  await rig.put(sealed({ sequence: 7, appliedEpoch: 5, appliedLsn: '99999999999999999999' }))
  t.match(rig.state.position, { appliedEpoch: 5, appliedLsn: '9000' })
  t.equal(nextJournalLsn(rig.state.position, 4096), 4n * 4096n)
})

t.test('an older acknowledgement put back changes nothing', async (t) => {
  const rig = await Rig.start(t)
  const old = sealed({ sequence: 6, appliedEpoch: 3, wanted: [{ epoch: 4, part: 0 }] })
  const now = sealed({ sequence: 7, appliedEpoch: 8 })
  await rig.put(now)
  await rig.put(old)
  t.match(rig.state.position, { appliedEpoch: 8, acknowledgement: 7 })
  t.same([rig.applied, rig.reports, rig.wanted], [1, 1, []])
})

t.test('one of another key, stream, kind or generation, or a damaged one, is refused', async (t) => {
  const rig = await Rig.start(t)
  const good = sealed()
  const flipped = Buffer.from(good)
  flipped[60]! ^= 1
  const strange = [
    sealAcknowledgement(message(), randomBytes(32), streamId),
    sealAcknowledgement(message(), secret, Buffer.alloc(16, 4)),
    flipped,
    good.subarray(0, 40),
    Buffer.alloc(0),
    Buffer.concat([good, good]),
    sealed({ generation: 1, appliedEpoch: 9 }),
  ]
  for (const bytes of strange) await rig.put(bytes)
  t.match(rig.state.position, { appliedEpoch: 2, acknowledgement: 5 })
  t.equal(rig.applied, 0)
  t.ok(rig.bad.length >= 6, 'each that is not ours is reported')
  await rig.put(good)
  t.equal(rig.state.position.appliedEpoch, 4, 'and the right one is taken')
})

t.test('epochs that lie behind are never taken as applied', async (t) => {
  const rig = await Rig.start(t)
  await rig.put(sealed({ sequence: 8, appliedEpoch: 1 }))
  await rig.put(sealed({ sequence: 9, appliedEpoch: 0 }))
  t.match(rig.state.position, { appliedEpoch: 2, acknowledgement: 9 })
  t.equal(rig.applied, 0)
  t.same(rig.overtaken, [])
})

const ahead: [string, Partial<Acknowledgement>][] = [
  ['an epoch that was never cut', { appliedEpoch: 11 }],
  ['the last number there is', { appliedEpoch: Number.MAX_SAFE_INTEGER }],
  ['an epoch received that was never cut', { receivedEpoch: 11 }],
  ['another epoch of the same number', { appliedEpoch: 10, appliedTag: 'ab'.repeat(16) }],
  ['a generation that was never begun', { generation: 7, appliedEpoch: 9 }],
]
for (const [title, change] of ahead) {
  t.test(`a source put back to an older state hears of ${title}, and believes nothing from then on`, async (t) => {
    const rig = await Rig.start(t)
    await rig.put(sealed(change))
    t.ok(rig.overtaken.length > 0, 'it is told')
    t.ok(rig.overtaken.every((generation) => generation === (change.generation ?? 2)))
    await rig.state.move({ cutEpoch: 20, sentEpoch: 20 })
    const before = rig.overtaken.length
    await rig.put(sealed({ sequence: 7, appliedEpoch: 11, wanted: [{ epoch: 12, part: 0 }] }))
    t.match(rig.state.position, { appliedEpoch: 2, acknowledgement: 5 }, 'also when as many epochs were cut')
    t.same([rig.applied, rig.wanted], [0, []])
    t.ok(rig.overtaken.length > before, 'and told again, until it is recorded')
  })
}

t.test('the last epoch that was cut is the one that was applied, or nobody said which', async (t) => {
  const lastTag = 'cd'.repeat(16)
  for (const tag of [{}, { appliedTag: lastTag }]) {
    const rig = await Rig.start(t)
    await rig.state.move({ lastTag })
    await rig.put(sealed({ appliedEpoch: 9, appliedTag: 'ab'.repeat(16) }))
    t.equal(rig.state.position.appliedEpoch, 9, 'of one before the destination knows')
    rig.bytes = sealed({ sequence: 7, appliedEpoch: 10, ...tag })
    t.ok(await rig.ask(5_000))
    t.match(rig.state.position, { appliedEpoch: 10, acknowledgement: 7 })
    t.same(rig.overtaken, [])
  }
})

t.test('a message that is sealed and makes no sense is refused', async (t) => {
  const rig = await Rig.start(t)
  const nonsense: object[] = [
    { sequence: -1 },
    { sequence: 2 ** 60 },
    { appliedEpoch: 1.5 },
    { appliedEpoch: '4' },
    { appliedLsn: '1e9' },
    { appliedLsn: '9'.repeat(21) },
    { state: 4 },
    { wanted: null },
    { wanted: [null] },
    { wanted: [{ epoch: 2 ** 60, part: 0 }] },
    { wanted: Array.from({ length: 257 }, () => ({ epoch: 3, part: 0 })) },
  ]
  for (const change of nonsense) await rig.put(sealed(change as Partial<Acknowledgement>))
  t.match(rig.state.position, { appliedEpoch: 2, acknowledgement: 5 })
  t.ok(rig.bad.every(({ code }) => code === 'BAD_ACKNOWLEDGEMENT'))
  t.ok(rig.bad.length >= nonsense.length)
})

t.test(
  'what the destination found is recorded with what it applied, said when it has grown, and nonsense is refused',
  async (t) => {
    const rig = await Rig.start(t)
    const verify = beginVerify(null, true, Buffer.alloc(16), 1000)
    await rig.state.move({ verify })
    const differing = [{ volume: 0, offset: 65_536, lengthBytes: 65_536 }]
    const comparison = { run: 1, comparedBytes: 131_072, differingBytes: 65_536, differing }
    const bad: unknown[] = [
      { ...comparison, differing: Array.from({ length: DIFFERING_LIMIT + 1 }, () => differing[0]) },
      { ...comparison, differing: [{ volume: 0, offset: -1, lengthBytes: 1 }] },
      { ...comparison, differing: [null] },
      { ...comparison, comparedBytes: 2 ** 60 },
      { ...comparison, run: '1' },
      7,
    ]
    for (const one of bad) await rig.put(sealed({ comparison: one as Comparison }))
    t.match(rig.state.position, { appliedEpoch: 2, verify: { found: null } })
    t.ok(rig.bad.length >= bad.length)
    await rig.put(sealed({ comparison: { ...comparison, run: 2 } }))
    t.match(rig.state.position.verify, { found: null }, 'of another run')
    await rig.put(sealed({ sequence: 7, comparison }))
    await rig.put(sealed({ sequence: 8, comparison }))
    t.same(rig.state.position.verify?.found, comparison)
    t.same(rig.compared, [131_072], 'said once')
  },
)

t.test(
  'what the destination can read is known as soon as it is asked for, also when nothing is under way',
  async (t) => {
    const rig = await Rig.start(t)
    await rig.state.move({ appliedEpoch: 10 })
    t.equal(rig.state.position.farReads, 1)
    rig.bytes = sealed({ sequence: 5, appliedEpoch: 10, reads: 2 })
    t.ok(await rig.ask(5_000))
    t.equal(rig.state.position.farReads, 2, 'also of one that was read before')
    rig.bytes = sealed({ sequence: 6, appliedEpoch: 10 })
    t.ok(await rig.ask(5_000))
    t.equal(rig.state.position.farReads, 1, 'put back to an older agent')
  },
)
