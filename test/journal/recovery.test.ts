import { readFileSync, writeFileSync } from 'node:fs'
import t from 'tap'
import { lsn } from '../../src/block/units.js'
import type { JournalRecord } from '../../src/journal/reader.js'
import { recoverJournal } from '../../src/journal/recovery.js'
import {
  bytesOf,
  codeOf,
  journalId,
  SegmentWriter,
  segmentBytes,
  segmentFile,
} from '../fixtures/journal/segment-writer.js'
import { scratchFolder } from '../fixtures/paths.js'

interface Outcome {
  readonly end: number
  readonly voids: number
  readonly records: number
  readonly applied: string[]
}

/** Recovers; payloads of applied WRITEs as text. */
function recover(
  directory: string,
  afterPowerCut: boolean,
  incarnation = 2,
  checkpoint = 0,
  leastIncarnation = 0,
): Outcome {
  const applied: string[] = []
  const found = recoverJournal({
    directory,
    journalId,
    segmentBytes,
    checkpointLsn: lsn(BigInt(checkpoint)),
    incarnation,
    leastIncarnation,
    afterPowerCut,
    apply: (record: JournalRecord) => applied.push(record.type === 'write' ? record.payload.toString() : record.type),
  })
  return { end: Number(found.endLsn), voids: found.voids, records: found.records, applied }
}

const text = (content: string, options = {}) => ({ type: 1, payload: Buffer.from(content), ...options })

t.test('after a process crash an open record becomes VOID and what lies behind it is applied', async (t) => {
  const directory = scratchFolder(t, 'recovery')
  const writer = new SegmentWriter()
  writer.append(text('one'))
  const open = writer.append(text('half', { reserved: true }))
  writer.append({ type: 3, length: 512 })
  writer.append({ type: 4, volume: 0xffff, payload: Buffer.from('mark') })
  writer.append(text('three'))
  const tail = writer.append(text('half again', { reserved: true }))
  writer.flush(directory)
  const found = recover(directory, false)
  t.match(found, { voids: 2, records: 4, end: writer.end })
  t.strictSame(found.applied, ['one', 'trim', 'three'])
  const after = readFileSync(segmentFile(directory, 0))
  for (const at of [open, tail]) {
    t.equal(after[at + 4], 6)
    t.equal(after.readUInt32LE(at + 44), 1, 'a VOID keeps the incarnation, or the records behind it would be lost')
  }
  t.strictSame(recover(directory, false, 3), { ...found, voids: 0 }, 'a second recovery finds the same')
  t.strictSame(recover(directory, true, 3), { ...found, voids: 0 }, 'and so it does after a power cut')
})

t.test('after a power cut the journal ends at the first gap, for good', async (t) => {
  const directory = scratchFolder(t, 'recovery')
  const writer = new SegmentWriter()
  writer.append(text('one'))
  const gap = writer.append(text('half', { reserved: true }))
  writer.append(text('torn away'))
  writer.flush(directory)
  t.match(recover(directory, true), { end: gap, voids: 0, applied: ['one'] })
  t.match(
    recover(directory, false, 3),
    { end: gap, voids: 0, applied: ['one'] },
    'a process crash before the next writer’s first record does not bring back what was given up',
  )
  // The next writer's first record ends exactly where the record given up begins.
  const next = new SegmentWriter()
  next.segments.set(0, readFileSync(segmentFile(directory, 0)))
  next.end = gap
  next.incarnation = 3
  next.append(text('new!'))
  next.flush(directory)
  t.match(recover(directory, false, 4), { end: next.end, applied: ['one', 'new!'] })
})

t.test(
  'a complete record with other bytes in its payload ends the journal after a power cut, else is refused',
  async (t) => {
    const directory = scratchFolder(t, 'recovery')
    const writer = new SegmentWriter()
    writer.append(text('one'))
    const bad = writer.append(text('two'))
    writer.append(text('three'))
    writer.segments.get(0)![bad + 64]! ^= 1
    writer.flush(directory)
    t.equal(
      codeOf(() => recover(directory, false)),
      'JOURNAL_DAMAGED',
    )
    t.ok(readFileSync(segmentFile(directory, 0)).equals(writer.segments.get(0)!), 'a refused journal is not changed')
    t.match(recover(directory, true), { end: bad, applied: ['one'] })
  },
)

t.test('a payload that was written in part, under a cleared commit, is never applied', async (t) => {
  for (const afterPowerCut of [false, true]) {
    const directory = scratchFolder(t, 'recovery')
    const writer = new SegmentWriter()
    const at = writer.append(text('a whole payload'))
    const segment = writer.segments.get(0)!
    segment.fill(0, at + 70, at + 80)
    segment.fill(0, at + 56, at + 60)
    writer.flush(directory)
    t.match(recover(directory, afterPowerCut), { applied: [], voids: afterPowerCut ? 0 : 1 })
  }
})

t.test('old records behind the end of a recycled segment are not believed', async (t) => {
  const directory = scratchFolder(t, 'recovery')
  // As if segment 0 had been given back and come again as segment 1, its records lying where new ones would.
  const old = new SegmentWriter()
  for (let index = 0; index < 100; index += 1) old.append(text(`old ${index}`))
  const writer = new SegmentWriter()
  writer.write(bytesOf(writer.room))
  writer.segments.delete(segmentBytes)
  writer.filler = (segment) => old.segments.get(0)!.copy(segment)
  writer.segment(segmentBytes)
  writer.flush(directory)
  t.match(recover(directory, false), { end: segmentBytes + 4096, records: 1 })
  writer.append(text('new 1'))
  writer.flush(directory)
  const found = recover(directory, false)
  t.match(found, { end: writer.end, records: 2 })
  t.equal(found.applied[1], 'new 1')
})

/** Two records of a second writer, over ten of the first that have the same sizes. */
function overwritten(t: Parameters<typeof scratchFolder>[0]): { directory: string; next: SegmentWriter } {
  const directory = scratchFolder(t, 'recovery')
  const writer = new SegmentWriter()
  for (let index = 0; index < 10; index += 1) writer.append(text(`old ${index}`))
  const stale = Buffer.from(writer.segments.get(0)!)
  const next = new SegmentWriter()
  next.incarnation = 2
  next.filler = (segment) => stale.copy(segment)
  next.segments.clear()
  next.append(text('new 0'))
  next.append(text('new 1'))
  next.flush(directory)
  return { directory, next }
}

t.test('records of an earlier writer under the same LSN are not believed behind a newer one', async (t) => {
  const { directory, next } = overwritten(t)
  t.match(recover(directory, false, 3), { end: next.end, applied: ['new 0', 'new 1'] })
})

t.test('records of an earlier writer are not believed behind a checkpoint at the end either', async (t) => {
  const { directory, next } = overwritten(t)
  t.match(recover(directory, false, 3, next.end, 2), { end: next.end, records: 0, applied: [] })
})

t.test('a header damaged in the middle is refused after a process crash, also across segments', async (t) => {
  const directory = scratchFolder(t, 'recovery')
  const writer = new SegmentWriter()
  writer.append(text('one'))
  const second = writer.append(text('two'))
  writer.append(text('three'))
  const segment = writer.segments.get(0)!
  segment[second + 20]! ^= 4
  writer.flush(directory)
  t.equal(
    codeOf(() => recover(directory, false)),
    'JOURNAL_DAMAGED',
  )
  t.match(recover(directory, true), { end: second, applied: ['one'] })

  const over = scratchFolder(t, 'recovery')
  const rolling = new SegmentWriter()
  const only = rolling.write(bytesOf(rolling.room))
  rolling.append(text('next segment'))
  rolling.segments.get(0)![only + 20]! ^= 4
  rolling.flush(over)
  t.equal(
    codeOf(() => recover(over, false)),
    'JOURNAL_DAMAGED',
  )
})

t.test('what no writer makes is refused although its checksums are right', async (t) => {
  const impossible = [
    { type: 1, payload: Buffer.from('x'), length: 2 },
    { type: 2, payload: Buffer.from('x') },
    { type: 3, length: 2 ** 53, offset: 2 ** 52 },
    { type: 5, payloadBytes: 64 },
    { type: 4, payload: Buffer.alloc(65 * 1024) },
  ]
  for (const options of impossible) {
    const directory = scratchFolder(t, 'recovery')
    const writer = new SegmentWriter()
    writer.append(options)
    writer.flush(directory)
    for (const afterPowerCut of [false, true]) {
      t.equal(
        codeOf(() => recover(directory, afterPowerCut)),
        'JOURNAL_DAMAGED',
        JSON.stringify({ ...options, payload: undefined }),
      )
    }
  }
})

t.test('unknown types, lengths beyond the segment and other addresses end the journal', async (t) => {
  for (const options of [{ type: 7 }, { type: 0 }, { payloadBytes: 0xffffffff }, { lsn: 8192 }]) {
    const directory = scratchFolder(t, 'recovery')
    const writer = new SegmentWriter()
    writer.append(text('one'))
    const at = writer.append({ length: 0, ...options })
    writer.flush(directory)
    t.match(recover(directory, true), { end: at, applied: ['one'] })
  }
})

t.test('a journal newer than the state it is opened with is refused', async (t) => {
  const directory = scratchFolder(t, 'recovery')
  const writer = new SegmentWriter()
  writer.incarnation = 5
  writer.append(text('one'))
  writer.flush(directory)
  t.equal(
    codeOf(() => recover(directory, false, 5)),
    'JOURNAL_DAMAGED',
  )
  t.match(recover(directory, false, 6), { applied: ['one'] })
})

t.test('recovery begins at the checkpoint, also at a boundary or where nothing is', async (t) => {
  const directory = scratchFolder(t, 'recovery')
  const writer = new SegmentWriter()
  t.match(recover(directory, false), { end: 4096, records: 0 }, 'no segment was made yet')
  writer.write(bytesOf(writer.room))
  const second = writer.append(text('two'))
  writer.flush(directory)
  t.match(recover(directory, false, 2, segmentBytes), { applied: ['two'] })
  t.match(recover(directory, false, 2, second), { applied: ['two'] })
  t.match(recover(directory, false, 2, writer.end), { applied: [], end: writer.end })
  t.equal(
    codeOf(() => recover(directory, false, 2, segmentBytes * 3 + 8192)),
    'JOURNAL_MISSING',
  )
})

t.test('a segment that was prepared and not begun is where the journal ends, whatever it holds', async (t) => {
  const directory = scratchFolder(t, 'recovery')
  const writer = new SegmentWriter()
  writer.write(bytesOf(writer.room))
  writer.segments.get(segmentBytes)!.fill(0xa5, 4096)
  writer.flush(directory)
  t.match(recover(directory, false), { end: segmentBytes + 4096, records: 1 })
  const fenced = readFileSync(segmentFile(directory, segmentBytes))
  t.ok(
    fenced.subarray(4096, 4160).every((byte) => byte === 0),
    'the end is fenced',
  )
  writeFileSync(segmentFile(directory, segmentBytes * 2), new SegmentWriter().segment(segmentBytes * 2))
  t.match(recover(directory, true), { end: segmentBytes + 4096, records: 1 })
})
