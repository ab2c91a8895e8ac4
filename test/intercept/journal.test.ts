import { randomBytes } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import t from 'tap'
import { KiB, MiB, volumeIndex } from '../../src/block/units.js'
import { intercept } from '../../src/intercept/intercept.js'
import { delay } from '../fixtures/agent.js'
import { fio, startFio } from '../fixtures/fio.js'
import { mountFreezableDisk } from '../fixtures/freezable-disk.js'
import { Rig, readAt, run, until, writeDevice } from './rig.js'

interface JournalRecord {
  readonly type: 'WRITE' | 'ZERO' | 'TRIM' | 'MARKER'
  readonly volume: number
  readonly offset: number
  readonly length: number
  readonly payload: Buffer
}

const types = { 1: 'WRITE', 2: 'ZERO', 3: 'TRIM', 4: 'MARKER' } as const

/** Every record of a journal's segments, in order: just enough of FORMAT.md for records known to be sound. */
async function readJournal(directory: string): Promise<JournalRecord[]> {
  const records: JournalRecord[] = []
  const names = (await readdir(directory)).filter((name) => /^[0-9a-f]{16}\.seg$/.test(name)).sort()
  for (const name of names) {
    const segment = await readFile(path.join(directory, name))
    const base = BigInt(`0x${name.slice(0, 16)}`)
    for (let at = 4096; at + 64 <= segment.length && segment.toString('latin1', at, at + 4) === 'TMJR'; ) {
      if (segment.readBigUInt64LE(at + 8) !== base + BigInt(at)) break
      const payloadBytes = segment.readUInt32LE(at + 40)
      const type = types[segment.readUInt8(at + 4) as keyof typeof types]
      if (type) {
        records.push({
          type,
          volume: segment.readUInt16LE(at + 6),
          offset: Number(segment.readBigUInt64LE(at + 16)),
          length: Number(segment.readBigUInt64LE(at + 24)),
          payload: segment.subarray(at + 64, at + 64 + payloadBytes),
        })
      }
      at += 64 + Math.ceil(payloadBytes / 64) * 64
    }
  }
  return records
}

function replay(records: readonly JournalRecord[], image: Buffer): Buffer {
  for (const { type, offset, length, payload } of records) {
    if (type === 'WRITE') payload.copy(image, offset)
    else if (type !== 'MARKER') image.fill(0, offset, offset + length)
  }
  return image
}

t.test('writes, trims and zeros of a volume are in its journal, in order', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const volume = rig.volume(await rig.backing('backing', 16 * MiB))
  const journal = await rig.journal()
  const device = await rig.attach(volume)
  await writeDevice(device, 0, Buffer.alloc(4096, 1), rig.folder)
  await volume.setJournal(journal, volumeIndex(3))
  const large = randomBytes(3 * MiB)
  await writeDevice(device, MiB, large, rig.folder)
  await run('blkdiscard', '--offset', String(2 * MiB), '--length', '65536', device)
  await run('blkdiscard', '--zeroout', '--offset', String(3 * MiB), '--length', '8192', device)
  const marker = await journal.appendMarker(Buffer.from('here'))
  await writeDevice(device, 512, Buffer.alloc(512, 2), rig.folder)
  await run('sync', device)
  const flushed = journal.counters()
  t.equal(flushed.durableLsn, flushed.publishedLsn, "a host's flush makes the journal durable")
  const durable = await journal.sync()
  await volume.setJournal(null, volumeIndex(0))
  await writeDevice(device, 8192, Buffer.alloc(512, 3), rig.folder)

  const counters = journal.counters()
  t.ok(durable > marker)
  t.equal(counters.durableLsn, counters.publishedLsn)
  t.equal(counters.appliedLsn, counters.publishedLsn)
  const records = await readJournal(rig.file('journal-0'))
  t.ok(records.every((record) => record.volume === (record.type === 'MARKER' ? 0xffff : 3)))
  t.strictSame(
    records.filter((record) => record.type !== 'WRITE').map(({ type, offset, length }) => [type, offset, length]),
    [
      ['TRIM', 2 * MiB, 65536],
      ['ZERO', 3 * MiB, 8192],
      ['MARKER', 0, 4],
    ],
  )
  const image = Buffer.alloc(16 * MiB)
  image.fill(1, 0, 4096)
  replay(records, image)
  image.fill(3, 8192, 8192 + 512)
  t.ok(image.equals(await readAt(rig.file('backing'), 0, image.length)))
})

t.test('overlapping writes in flight end the same in the journal and on the backing', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const volume = rig.volume(await rig.backing('backing', MiB), { threads: 4 })
  const journal = await rig.journal()
  const device = await rig.attach(volume)
  await volume.setJournal(journal, volumeIndex(0))
  const before = intercept.javascriptCalls()
  const result = await fio(device, {
    rw: 'randwrite',
    bssplit: '512/30:4k/30:12k/30:64k/10',
    blockalign: 512,
    norandommap: true,
    size: '128k',
    io_size: '24m',
    numjobs: 4,
    iodepth: 16,
    refill_buffers: true,
    fsync: 100,
  })
  t.equal(result.errors, 0, 'fio saw no error')
  t.equal(intercept.javascriptCalls(), before, 'journaling never enters JavaScript')
  await volume.detach()
  await volume.setJournal(null, volumeIndex(0))
  await journal.sync()
  const records = await readJournal(rig.file('journal-0'))
  t.ok(records.length > 1000, `${records.length} records`)
  t.ok(replay(records, Buffer.alloc(MiB)).equals(await readAt(rig.file('backing'), 0, MiB)))
})

t.test('a journal is set only when the writes before it are on the backing, and has none of them', async (t) => {
  const rig = await Rig.open()
  const disk = await mountFreezableDisk(rig.folder, 64 * MiB)
  t.teardown(async () => {
    await disk.thaw()
    await rig.close()
  })
  const backing = await rig.backing('freezable/backing', 8 * MiB)
  const volume = rig.volume(backing, { threads: 3 })
  const device = await rig.attach(volume)
  const journal = await rig.journal()
  const [before, after] = [randomBytes(512), randomBytes(512)]

  await disk.freeze()
  const early = writeDevice(device, 0, before, rig.folder)
  await until(() => volume.counters().inFlight > 0)
  let isSet = false
  const set = volume.setJournal(journal, volumeIndex(0)).then(() => {
    isSet = true
  })
  const late = writeDevice(device, MiB, after, rig.folder)
  await delay(300)
  t.equal(isSet, false, 'it waits')
  await disk.thaw()
  await Promise.all([early, set, late])
  t.ok((await readAt(backing, 0, before.length)).equals(before))

  const [first, ...others] = await readJournal(rig.file('journal-0'))
  t.match(first, { type: 'WRITE', offset: MiB, length: 512 }, 'what comes later is in it')
  t.ok(first?.payload.equals(after))
  t.strictSame(others, [], 'what was on its way is not')

  await disk.freeze()
  const last = writeDevice(device, 2 * MiB, after, rig.folder)
  await until(() => volume.counters().inFlight > 0)
  const unset = volume.setJournal(null, volumeIndex(0))
  await delay(300)
  const held = journal.counters()
  t.ok(held.appliedLsn < held.publishedLsn, 'it is in the journal, and not on the backing')
  await t.rejects(journal.close(), { code: 'JOURNAL_IN_USE' }, 'and the volume still has the journal')
  await disk.thaw()
  await Promise.all([last, unset])
  const done = journal.counters()
  t.equal(done.appliedLsn, done.publishedLsn)
  t.ok((await readAt(backing, 2 * MiB, after.length)).equals(after))
})

t.test('under load a journal set at any moment, over what the backing holds then, gives the backing', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const backing = await rig.backing('backing', MiB)
  const volume = rig.volume(backing, { threads: 4 })
  const device = await rig.attach(volume)
  const writes = () => volume.counters().writes
  const someWrites = async () => {
    const from = writes()
    await until(() => writes() > from + 20)
  }
  for (let round = 0; round < 3; round++) {
    // Overlapping writes, so that one that comes late, or is in the journal only in part, is seen.
    const load = startFio(device, {
      rw: 'randwrite',
      bssplit: '512/30:4k/40:64k/30',
      blockalign: 512,
      norandommap: true,
      size: '256k',
      time_based: true,
      runtime: 600,
      rate_iops: 2000,
      refill_buffers: true,
    })
    const short = await rig.journal(() => {}, 2 * MiB)
    for (let turn = 0; turn < 3; turn++) {
      await someWrites()
      await volume.setJournal(short, volumeIndex(0))
      await someWrites()
      await volume.setJournal(null, volumeIndex(0))
    }
    const journal = await rig.journal(() => {}, 2 * MiB)
    await someWrites()
    await volume.setJournal(journal, volumeIndex(0))
    const copy = await readAt(backing, 0, MiB)
    await someWrites()
    const result = await load.stop()
    t.equal(result.code, 128, 'fio ran until it was told to stop')
    t.equal(result.errors, 0, 'fio saw no error')
    await volume.setJournal(null, volumeIndex(0))
    const { publishedLsn, appliedLsn } = journal.counters()
    t.equal(appliedLsn, publishedLsn)
    const records = await readJournal(rig.file(`journal-${round * 2 + 1}`))
    t.ok(records.length > 10, `${records.length} records`)
    t.ok(replay(records, copy).equals(await readAt(backing, 0, MiB)), 'journal and backing agree')
  }
})

t.test('a journal in use is not closed, and a full one lets writes go on once it is given up', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const events: string[] = []
  const volume = rig.volume(await rig.backing('backing', 64 * MiB))
  const journal = await rig.journal((event) => events.push(event.kind), 2 * MiB)
  const device = await rig.attach(volume)
  await volume.setJournal(journal, volumeIndex(0))
  await t.rejects(journal.close(), { code: 'JOURNAL_IN_USE' })
  const large = randomBytes(32 * MiB)
  const load = (async () => {
    for (let i = 0; i < 6; i++) await writeDevice(device, 0, large, rig.folder)
  })()
  await until(() => events.length > 0)
  t.strictSame(events, ['full'])
  journal.abandon()
  await load
  await run('dd', 'if=/dev/zero', `of=${device}`, 'bs=64K', 'count=1', 'conv=fsync', 'status=none')
  large.fill(0, 0, 64 * KiB)
  t.ok((await readAt(rig.file('backing'), 0, large.length)).equals(large))
  await t.rejects(journal.sync(), { code: 'JOURNAL_ABANDONED' })
})

t.test('a journal whose segments cannot take the largest write is refused', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const volume = rig.volume(await rig.backing('backing', MiB))
  const journal = await rig.journal(() => {}, MiB)
  await t.rejects(volume.setJournal(journal, volumeIndex(0)), { code: 'INVALID_ARGUMENT' })
})
