import { rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { lsn } from '../../src/block/units.js'
import { loadEpoch } from '../../src/journal/epoch.js'
import { type JournalRecord, readRecords } from '../../src/journal/reader.js'
import { journalSegments } from '../../src/journal/segment-file.js'
import {
  bytesOf,
  codeOf,
  journalId,
  SegmentWriter,
  segmentBytes,
  segmentFile,
} from '../fixtures/journal/segment-writer.js'
import { scratchFolder } from '../fixtures/paths.js'

const read = (directory: string, from = 0, to?: number): JournalRecord[] => [
  ...readRecords({
    directory,
    journalId,
    segmentBytes,
    from: lsn(BigInt(from)),
    ...(to === undefined ? {} : { to: lsn(BigInt(to)) }),
  }),
]
const load = (directory: string, from: number, to: number, limitBytes?: number) =>
  loadEpoch({
    directory,
    journalId,
    segmentBytes,
    from: lsn(BigInt(from)),
    to: lsn(BigInt(to)),
    ...(limitBytes === undefined ? {} : { limitBytes }),
  })

t.test('every kind of record is read as it was written, PAD and VOID are stepped over', async (t) => {
  const directory = scratchFolder(t, 'reader')
  const writer = new SegmentWriter()
  const payload = bytesOf(4096)
  const lsns = [
    writer.write(payload, { volume: 2, offset: 8192 }),
    writer.append({ type: 2, volume: 1, offset: 512, length: 2 ** 40 }),
    writer.append({ type: 3, volume: 0, offset: 0, length: 65536 }),
    writer.append({ type: 4, volume: 0xffff, payload: Buffer.from('mark') }),
  ]
  writer.append({ type: 6, volume: 0xffff, length: 0, payload: Buffer.alloc(0) })
  writer.flush(directory)
  const [write, zero, trim, marker] = read(directory)
  t.match(write, { type: 'write', volume: 2, offset: 8192, lengthBytes: 4096, lsn: BigInt(lsns[0]!) })
  t.ok(write?.type === 'write' && write.payload.equals(payload))
  t.equal(write?.timeNs, 1_700_000_000_000_000_000n + 4096n)
  t.match(zero, { type: 'zero', volume: 1, offset: 512, lengthBytes: 2 ** 40, lsn: BigInt(lsns[1]!) })
  t.match(trim, { type: 'trim', volume: 0, lengthBytes: 65536 })
  t.ok(marker?.type === 'marker' && marker.payload.toString() === 'mark')
  t.equal(read(directory).length, 4)
  t.equal(read(directory, lsns[1]!, lsns[3]!).length, 2, 'a range begins and ends at records')
})

t.test('a record that fills its segment exactly is followed by the next segment without a PAD', async (t) => {
  const directory = scratchFolder(t, 'reader')
  const writer = new SegmentWriter()
  writer.write(bytesOf(writer.room))
  t.equal(writer.end, segmentBytes + 4096)
  writer.flush(directory)
  t.equal(read(directory).length, 1)
  t.equal(read(directory, 0, segmentBytes).length, 1, 'an end on the boundary')
  writer.write(Buffer.from('next'))
  writer.flush(directory)
  t.equal(read(directory).length, 2)
  t.equal(read(directory, segmentBytes).length, 1, 'a start on the boundary')
  t.equal(load(directory, 0, segmentBytes).count, 1)
  t.equal(load(directory, 0, segmentBytes).endLsn, BigInt(segmentBytes + 4096))
  t.equal(load(directory, segmentBytes, writer.end).count, 1)
  t.equal(load(directory, segmentBytes, segmentBytes).count, 0)
})

t.test('an epoch holds in columns what the reader gives record by record, over several segments', async (t) => {
  const directory = scratchFolder(t, 'epoch')
  const writer = new SegmentWriter()
  for (let index = 0; index < 300; index += 1) {
    writer.write(bytesOf(1 + ((index * 7919) % 30_000)), { volume: index % 5, offset: index * 512 })
    if (index % 10 === 0) writer.append({ type: 2 + (index % 3 === 0 ? 1 : 0), volume: 9, offset: 4096, length: 512 })
  }
  writer.flush(directory)
  t.ok(writer.segments.size > 3)
  const records = read(directory)
  let from = 0
  let at = 0
  for (let round = 0; from < writer.end; round += 1) {
    const epoch = load(directory, from, writer.end, 700_000)
    t.ok(epoch.count > 0 && round < 100)
    for (let index = 0; index < epoch.count; index += 1, at += 1) {
      const record = records[at]!
      if (record.type === 'marker') throw new Error('none was written')
      const same =
        epoch.kind[index] === { write: 1, zero: 2, trim: 3 }[record.type] &&
        epoch.volume[index] === record.volume &&
        epoch.offset[index] === record.offset &&
        epoch.lengthBytes[index] === record.lengthBytes &&
        epoch.lsn[index] === record.lsn &&
        epoch.timeNs[index] === record.timeNs &&
        epoch.payload(index).equals(record.type === 'write' ? record.payload : Buffer.alloc(0))
      if (!same) t.fail(`record ${at} differs`)
    }
    from = Number(epoch.endLsn)
  }
  t.equal(at, records.length, 'nothing is left out at the limit, nothing comes twice')
})

t.test('an epoch of 100,000 records is loaded whole', async (t) => {
  const directory = scratchFolder(t, 'epoch')
  const writer = new SegmentWriter(journalId, 64 * 1024 * 1024)
  const payload = bytesOf(512)
  for (let index = 0; index < 100_000; index += 1) writer.write(payload, { offset: index * 512 })
  writer.flush(directory)
  const options = { directory, journalId, segmentBytes: writer.bytes, from: lsn(0n), to: writer.endLsn }
  const began = performance.now()
  const epoch = loadEpoch(options)
  const tookMs = performance.now() - began
  t.equal(epoch.count, 100_000)
  t.comment(`${tookMs.toFixed(0)} ms`)
})

t.test('published records that are not there are an error, never a shorter result', async (t) => {
  const directory = scratchFolder(t, 'reader')
  const writer = new SegmentWriter()
  const first = writer.write(bytesOf(100))
  const open = writer.append({ type: 1, payload: bytesOf(100), reserved: true })
  const last = writer.write(bytesOf(100))
  writer.flush(directory)
  t.equal(read(directory).length, 1, 'without an end it stops at the open record')
  t.equal(read(directory, first, open).length, 1)
  for (const to of [last, writer.end, writer.end + 128]) {
    t.equal(
      codeOf(() => read(directory, first, to)),
      'JOURNAL_DAMAGED',
    )
    t.equal(
      codeOf(() => load(directory, first, to)),
      'JOURNAL_DAMAGED',
    )
  }
  for (const to of [segmentBytes + 8192, 4 * segmentBytes]) {
    t.equal(
      codeOf(() => load(directory, last, to)),
      'JOURNAL_DAMAGED',
    )
  }
})

t.test('foreign, damaged, cut and missing segments are told apart', async (t) => {
  const directory = scratchFolder(t, 'reader')
  const writer = new SegmentWriter()
  for (let index = 0; index < 5; index += 1) writer.write(bytesOf(600_000))
  writer.flush(directory)
  const both = (code: string, from = 0) => {
    t.equal(
      codeOf(() => read(directory, from)),
      code,
    )
    t.equal(
      codeOf(() => load(directory, from, writer.end)),
      code,
    )
  }
  const second = segmentFile(directory, segmentBytes)
  const content = writer.segments.get(segmentBytes)!
  truncateSync(second, segmentBytes - 1)
  both('JOURNAL_DAMAGED')
  truncateSync(second, 100)
  both('JOURNAL_DAMAGED')
  writeFileSync(second, new SegmentWriter(bytesOf(16, 9)).segment(segmentBytes))
  both('FOREIGN_SEGMENT')
  writeFileSync(second, new SegmentWriter(journalId, 2 * segmentBytes).segment(segmentBytes))
  both('FOREIGN_SEGMENT')
  writeFileSync(second, writer.segments.get(0)!)
  both('FOREIGN_SEGMENT')
  const newer = Buffer.from(content)
  newer.writeUInt16LE(2, 4)
  writeFileSync(second, newer)
  both('JOURNAL_DAMAGED')
  rmSync(second)
  both('JOURNAL_MISSING')
  both('JOURNAL_MISSING', segmentBytes + 8192)
  writeFileSync(second, content)
  t.equal(read(directory).length, 5)
  rmSync(directory, { recursive: true })
  both('JOURNAL_MISSING')
})

t.test('spares and half-made segments are no segments', async (t) => {
  const directory = scratchFolder(t, 'reader')
  const writer = new SegmentWriter()
  writer.write(bytesOf(10))
  writer.flush(directory)
  for (const name of ['spare-0.seg', 'new.tmp', 'notes.txt', '0000000000100000.seg.bak']) {
    writeFileSync(join(directory, name), 'x')
  }
  t.strictSame(
    journalSegments(directory).map(({ baseLsn }) => baseLsn),
    [0n],
  )
  t.equal(read(directory).length, 1)
})
