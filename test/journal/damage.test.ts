import { closeSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import t from 'tap'
import { lsn } from '../../src/block/units.js'
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

const seed = Number(process.env.TIDEMARK_SEED ?? Date.now() % 1_000_000)
t.comment(`seed ${seed} (TIDEMARK_SEED=${seed} repeats it)`)

/** A small repeatable source of numbers below `limit` (xorshift). */
function randomNumbers(start: number): (limit: number) => number {
  let state = (start * 2654435761 + 88172645) >>> 0 || 1
  return (limit) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    state >>>= 0
    return state % limit
  }
}

function recover(directory: string, afterPowerCut: boolean, incarnation: number): { applied: string[]; end: number } {
  const applied: string[] = []
  const { endLsn } = recoverJournal({
    directory,
    journalId,
    segmentBytes,
    checkpointLsn: lsn(0n),
    incarnation,
    afterPowerCut,
    apply: (record) => {
      if (record.type === 'marker') throw new Error('none was written')
      const content = record.type === 'write' ? `${record.volume}:${record.payload.toString('hex')}` : record.type
      applied.push(`${content}:${record.offset}`)
    },
  })
  return { applied, end: Number(endLsn) }
}

const isPrefix = (part: readonly string[], whole: readonly string[]) => part.every((item, at) => item === whole[at])

t.test(
  'a flipped bit anywhere in a small journal is refused, ends it after a power cut, or changes nothing',
  async (t) => {
    const directory = scratchFolder(t, 'damage')
    const writer = new SegmentWriter()
    const lsns = [40, 64, 100].map((length, at) => writer.write(bytesOf(length), { volume: at, offset: at * 512 }))
    lsns.push(writer.append({ type: 3, offset: 4096, length: 512 }))
    const image = Buffer.from(writer.segments.get(0)!)
    const file = segmentFile(directory, 0)
    writer.flush(directory)
    const all = recover(directory, false, 2).applied
    const region = image.subarray(0, writer.end + 256)
    const fd = openSync(file, 'r+')
    t.teardown(() => closeSync(fd))
    const lastAt = lsns.at(-1)!
    let refused = 0
    let shorter = 0
    // Every byte of the headers, every fourth of the payloads.
    const records = Array.from({ length: writer.end - 4096 }, (_, index) => 4096 + index)
    const inHeader = (at: number) => lsns.some((lsn) => at >= lsn && at < lsn + 64)
    for (const at of [...Array(48).keys(), ...records.filter((at) => inHeader(at) || at % 4 === seed % 4)]) {
      // One bit of each byte: which one changes with the byte and the seed.
      const bit = (at * 5 + seed) % 8
      const flipped = Buffer.of(image[at]! ^ (1 << bit))
      for (const afterPowerCut of [false, true]) {
        writeSync(fd, region, 0, region.length, 0)
        writeSync(fd, flipped, 0, 1, at)
        let applied: string[] | undefined
        const code = codeOf(() => {
          applied = recover(directory, afterPowerCut, 2).applied
        })
        if (code === 'JOURNAL_DAMAGED' || code === 'FOREIGN_SEGMENT') {
          refused += 1
          if (afterPowerCut && at >= 4096) t.fail(`byte ${at} bit ${bit}: refused after a power cut`)
        } else if (code !== undefined || !applied || !isPrefix(applied, all)) {
          t.fail(`byte ${at} bit ${bit}: ${code ?? 'other content'}`)
        } else if (applied.length < all.length) {
          shorter += 1
          // Nobody can tell the last header, damaged, from one that was not yet written.
          if (!afterPowerCut && at < lastAt) t.fail(`byte ${at} bit ${bit}: an acknowledged write was dropped`)
        }
      }
    }
    t.comment(`${refused} refused, ${shorter} ended early`)
    t.ok(refused > 100 && shorter > 100)
  },
)

t.test('a segment cut at any length is refused', async (t) => {
  const directory = scratchFolder(t, 'damage')
  const writer = new SegmentWriter()
  writer.write(bytesOf(100))
  const image = writer.segments.get(0)!
  const lengths = [
    0,
    1,
    43,
    47,
    48,
    4095,
    4096,
    4100,
    4159,
    4160,
    4200,
    4288,
    65536,
    segmentBytes - 1,
    segmentBytes + 1,
  ]
  for (const length of lengths) {
    writeFileSync(
      segmentFile(directory, 0),
      length > segmentBytes ? Buffer.concat([image, Buffer.of(0)]) : image.subarray(0, length),
    )
    for (const afterPowerCut of [false, true]) {
      const code = codeOf(() => recover(directory, afterPowerCut, 2))
      if (code !== 'JOURNAL_DAMAGED') t.fail(`${length} bytes: ${code}`)
    }
  }
})

t.test('a tail that never reached the disk leaves a prefix, wherever it begins', async (t) => {
  const directory = scratchFolder(t, 'damage')
  const writer = new SegmentWriter()
  for (let index = 0; index < 4; index += 1) writer.write(bytesOf(50 + index * 30), { offset: index * 512 })
  writer.flush(directory)
  const all = recover(directory, false, 2).applied
  const image = Buffer.from(writer.segments.get(0)!)
  const fd = openSync(segmentFile(directory, 0), 'r+')
  t.teardown(() => closeSync(fd))
  for (let at = 4096; at < writer.end; at += 3) {
    const torn = Buffer.from(image.subarray(0, writer.end))
    torn.fill(0, at)
    writeSync(fd, torn, 0, torn.length, 0)
    const { applied } = recover(directory, true, 2)
    if (!isPrefix(applied, all)) t.fail(`from byte ${at}: other content`)
  }
})

t.test('random lives of a journal: what is recovered is what a simple model says', async (t) => {
  const random = randomNumbers(seed)
  for (let life = 0; life < 12; life += 1) {
    const directory = scratchFolder(t, 'model')
    const writer = new SegmentWriter()
    if (random(2) === 0) {
      const junk = bytesOf(segmentBytes)
      writer.filler = (segment) => junk.copy(segment)
    }
    writer.segments.clear()
    writer.segment(0)
    let model: string[] = []
    for (let incarnation = 1; incarnation <= 5; incarnation += 1) {
      writer.incarnation = incarnation
      const afterPowerCut = random(2) === 0
      let firstGap: { lsn: number; records: number } | undefined
      for (let count = random(120); count > 0; count -= 1) {
        const reserved = random(25) === 0
        const offset = random(1000) * 512
        const payload = bytesOf(1 + random(random(10) === 0 ? 300_000 : 5_000))
        const type = 1 + random(3)
        const at =
          type === 1
            ? writer.write(payload, { offset, volume: 7, reserved })
            : writer.append({ type, offset, length: 512, reserved })
        if (reserved) firstGap ??= { lsn: at, records: model.length }
        else model.push(`${type === 1 ? `7:${payload.toString('hex')}` : type === 2 ? 'zero' : 'trim'}:${offset}`)
      }
      writer.flush(directory)
      const found = recover(directory, afterPowerCut, incarnation + 1)
      if (afterPowerCut && firstGap) {
        model = model.slice(0, firstGap.records)
        writer.end = firstGap.lsn
      }
      const same = found.applied.length === model.length && isPrefix(found.applied, model)
      if (!same || found.end !== writer.end) t.fail(`life ${life}, incarnation ${incarnation}`)
      // The next writer goes on in the files as recovery left them; segments beyond its start become new ones.
      for (const base of [...writer.segments.keys()]) {
        const bytes = readFileSync(segmentFile(directory, base))
        if (base <= writer.end) writer.segments.set(base, bytes)
        else {
          writer.segments.delete(base)
          writer.filler = (segment) => bytes.copy(segment)
          rmSync(segmentFile(directory, base))
        }
      }
    }
  }
  t.pass('all lives')
})
