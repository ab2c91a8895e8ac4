import { randomInt } from 'node:crypto'
import t from 'tap'
import { DeviceFile } from '../../src/pool/device-file.js'
import {
  blockIndex,
  type LogSequence,
  layerId,
  logSequence,
  poolLocation,
  unitNumber,
} from '../../src/pool/geometry.js'
import { findBeyond, findLogEnd, type LogRing, readLog } from '../../src/pool/log-reader.js'
import { encodeOperation, encodeRelease, type LogRecord, nativeRecords } from '../../src/pool/log-record.js'
import type { MetadataStore } from '../../src/pool/metadata-store.js'
import { PoolRig, seededRandom, type Test } from '../fixtures/pool/pool-rig.js'

async function rigWithRing(t: Test): Promise<{ rig: PoolRig; store: MetadataStore; ring: LogRing }> {
  const rig = await PoolRig.create(t)
  const store = await rig.open()
  const file = await DeviceFile.open(rig.paths[0]!, 'read', false)
  t.teardown(async () => {
    await file.close()
    await store.close()
  })
  return { rig, store, ring: { file, layout: store.geometry.head, seed: store.seed } }
}

async function readAll(ring: LogRing, from: LogSequence, before?: LogSequence): Promise<LogRecord[]> {
  const records: LogRecord[] = []
  await readLog(ring, from, before, (some) => {
    records.push(...some)
  })
  return records
}

const map = (block: number) => nativeRecords.map(layerId(1), blockIndex(block), poolLocation(block + 100))

t.test('an empty log has no records', async (t) => {
  const { ring } = await rigWithRing(t)
  t.strictSame(await readAll(ring, logSequence(0)), [])
  t.strictSame(await findLogEnd(ring, logSequence(0)), { end: 0, committed: 0 })
})

t.test('records are read in order, wherever the ring and its pieces begin and end', async (t) => {
  const { rig, store, ring } = await rigWithRing(t)
  const capacity = ring.layout.logRecords
  const seed = Number(process.env.SEED ?? randomInt(2 ** 31))
  t.comment(`seed ${seed}`)
  const random = seededRandom(seed)
  for (let round = 0; round < 8; round += 1) {
    // Far behind the round before: a record of that one could follow by chance.
    const from = logSequence((round * 20 + random(10)) * capacity + random(capacity))
    const records: Buffer[] = []
    const texts: string[] = []
    for (let places = 0; places < capacity - 200; ) {
      const bytes = random(4) === 0 ? encodeOperation('é'.repeat(random(900))) : map(random(1000))
      if (bytes.length > 32) texts.push(bytes.toString('utf8', 32, 32 + bytes.readUInt32LE(4)))
      records.push(bytes)
      places += bytes.length / 32
    }
    const end = rig.appendLog(store, from, records)
    const found = await readAll(ring, from)
    t.equal(found.length, records.length)
    t.strictSame(
      found.filter((record) => record.kind === 'operation').map((record) => record.text),
      texts,
    )
    t.strictSame(await findLogEnd(ring, from), { end, committed: from })
    const middle = found[Math.floor(found.length / 2)]!
    t.strictSame(await readAll(ring, from, middle.sequence), found.slice(0, Math.floor(found.length / 2)))
    t.strictSame(await readAll(ring, middle.sequence), found.slice(Math.floor(found.length / 2)))
  }
})

t.test('a ring that is full to the last place is read once', async (t) => {
  const { rig, store, ring } = await rigWithRing(t)
  const capacity = ring.layout.logRecords
  rig.appendLog(
    store,
    logSequence(77),
    Array.from({ length: capacity }, (_, at) => map(at)),
  )
  t.equal((await readAll(ring, logSequence(77))).length, capacity)
  t.equal((await readAll(ring, logSequence(78))).length, capacity - 1)
})

t.test('the log ends at a record that is older, of another pool, of no type, or damaged in any bit', async (t) => {
  const { rig, store, ring } = await rigWithRing(t)
  const offset = ring.layout.logOffset
  rig.appendLog(store, logSequence(4096), [map(1), map(2), map(3)])
  t.equal((await readAll(ring, logSequence(4096))).length, 3)
  t.equal((await readAll(ring, logSequence(0))).length, 0, 'another round of the ring')
  for (let bit = 0; bit < 32 * 8; bit += 1) {
    rig.flipBit(0, offset + 32 + (bit >> 3), bit & 7)
    const found = await findLogEnd(ring, logSequence(4096))
    if (found.end !== 4097) t.fail(`bit ${bit} is not noticed`)
    rig.flipBit(0, offset + 32 + (bit >> 3), bit & 7)
  }
  const unknown = encodeRelease(unitNumber(1))
  unknown[23] = 7
  rig.appendLog(store, logSequence(4099), [unknown])
  t.equal((await findLogEnd(ring, logSequence(4096))).end, 4099)
  t.equal((await findLogEnd({ ...ring, seed: 1 }, logSequence(4096))).end, 4096)
})

t.test('an operation whose text is damaged in any bit is none', async (t) => {
  const { rig, store, ring } = await rigWithRing(t)
  const bytes = encodeOperation({ op: 'remove-volume', volume: 7, padding: 'x'.repeat(20) })
  rig.appendLog(store, logSequence(1), [bytes, map(1)])
  t.equal((await findLogEnd(ring, logSequence(1))).end, 1 + bytes.length / 32 + 1)
  const text = bytes.readUInt32LE(4)
  for (let bit = 0; bit < text * 8; bit += 5) {
    rig.flipBit(0, ring.layout.logOffset + 64 + (bit >> 3), bit & 7)
    if ((await findLogEnd(ring, logSequence(1))).end !== 1) t.fail(`bit ${bit} is not noticed`)
    rig.flipBit(0, ring.layout.logOffset + 64 + (bit >> 3), bit & 7)
  }
})

t.test('what a COMMIT covers is what counts after a power cut', async (t) => {
  const { rig, store, ring } = await rigWithRing(t)
  rig.appendLog(store, logSequence(10), [map(1), map(2), nativeRecords.commit(logSequence(12)), map(3)])
  t.strictSame(await findLogEnd(ring, logSequence(10)), { end: 14, committed: 12 })
  rig.appendLog(store, logSequence(14), [nativeRecords.commit(logSequence(14))])
  t.strictSame(await findLogEnd(ring, logSequence(10)), { end: 15, committed: 14 })
})

t.test('records behind the end are found: a damaged one is not the end of the log', async (t) => {
  const { rig, store, ring } = await rigWithRing(t)
  const from = logSequence(5000)
  rig.appendLog(
    store,
    logSequence(5000 - 4096),
    Array.from({ length: 4096 }, (_, at) => map(at)),
  )
  const end = rig.appendLog(store, from, [map(1), map(2), map(3), nativeRecords.commit(logSequence(5003)), map(4)])
  t.equal(await findBeyond(ring, from, end), undefined, 'older records are nothing')
  rig.flipBit(0, ring.layout.logOffset + ((5001 % 4096) + 0.5) * 32, 0)
  t.strictSame(await findLogEnd(ring, from), { end: 5001, committed: 5000 })
  t.strictSame(await findBeyond(ring, from, logSequence(5001)), { count: 3, first: 5002, last: 5004, committed: 5003 })
})
