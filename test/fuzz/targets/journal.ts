import assert from 'node:assert/strict'
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import { crc32c } from '../../../src/block/crc32c.js'
import { StorageError } from '../../../src/block/storage-error.js'
import { lsn } from '../../../src/block/units.js'
import { loadEpoch } from '../../../src/journal/epoch.js'
import { recordFields, segmentFields } from '../../../src/journal/format.js'
import { inspectSegment } from '../../../src/journal/inspect.js'
import { recoverJournal } from '../../../src/journal/recovery.js'
import { journalId, SegmentWriter, segmentBytes, segmentFile } from '../../fixtures/journal/segment-writer.js'
import { INPUT_LIMIT, type OpenTarget } from '../target.js'

const flag = { sealRecords: 1, powerCut: 2, header: 4 } as const
const headerBytes = 48

/**
 * First byte: flags. The rest is what lies behind the segment's header; with `header` its first 48 bytes are the header.
 * With `sealRecords` the checksums are made right: a checksum is no seal, whoever writes a record can write that too.
 */
export const journal: OpenTarget = (directory) => {
  const empty = Buffer.from(new SegmentWriter().segment(0).subarray(0, 4096))
  const file = segmentFile(directory, 0)
  return {
    words: [Buffer.from('TMJR'), Buffer.from('TMSG')],
    seeds: () => {
      const writer = new SegmentWriter()
      writer.write(Buffer.alloc(512, 1), { offset: 4096 })
      writer.append({ type: 2, offset: 8192, length: 4096 })
      writer.append({ type: 4, volume: 0xffff, payload: Buffer.from('{"name":"m"}') })
      writer.append({ type: 3, offset: 0, length: 1 << 20 })
      writer.write(Buffer.alloc(100, 2), { reserved: true })
      writer.write(Buffer.alloc(4096, 3), { volume: 3 })
      const content = writer.segment(0).subarray(4096, writer.end)
      const header = Buffer.concat([empty.subarray(0, headerBytes), content])
      const both = [0, flag.sealRecords, flag.powerCut, flag.sealRecords | flag.powerCut]
      return [
        ...both.map((flags) => Buffer.concat([Buffer.of(flags), content])),
        ...both.map((flags) => Buffer.concat([Buffer.of(flags | flag.header), header])),
      ]
    },
    run(input) {
      const flags = input[0] ?? 0
      writeSegment(file, empty, input.subarray(1), flags)
      let first: unknown
      try {
        for (const item of inspectSegment(file)) JSON.stringify(item)
      } catch (error) {
        if (!(error instanceof StorageError)) throw error
        first = error
      }
      const place = { directory, journalId, segmentBytes }
      let applied = 0
      const { endLsn, records } = recoverJournal({
        ...place,
        ...{ checkpointLsn: lsn(0n), incarnation: 2, afterPowerCut: (flags & flag.powerCut) !== 0 },
        apply: () => (applied += 1),
      })
      assert(applied <= records)
      // What was recovered once is all there is: a second recovery and an epoch see the same.
      const again = recoverJournal({
        ...place,
        ...{ checkpointLsn: lsn(0n), incarnation: 2, afterPowerCut: true, apply: () => undefined },
      })
      assert.deepEqual([again.endLsn, again.records, again.voids], [endLsn, records, 0])
      assert.equal(loadEpoch({ ...place, from: lsn(4096n), to: endLsn }).count, records)
      if (first) throw first
    },
  }
}

function writeSegment(file: string, empty: Buffer, content: Buffer, flags: number): void {
  const bytes = Buffer.alloc(4096 + INPUT_LIMIT)
  empty.copy(bytes)
  const ownHeader = (flags & flag.header) !== 0
  content.subarray(ownHeader ? headerBytes : 0).copy(bytes, 4096)
  if (ownHeader) {
    content.subarray(0, headerBytes).copy(bytes)
    if ((flags & flag.sealRecords) !== 0) {
      bytes.writeUInt32LE(crc32c(bytes.subarray(0, segmentFields.crc.offset)), segmentFields.crc.offset)
    }
  }
  if ((flags & flag.sealRecords) !== 0) sealRecords(bytes)
  const fd = openSync(file, 'w+', 0o600)
  try {
    writeSync(fd, bytes)
    ftruncateSync(fd, segmentBytes)
  } finally {
    closeSync(fd)
  }
}

/** Each record that the lengths lead to has the checksums it should have; one whose commit is 0 stays reserved. */
function sealRecords(bytes: Buffer): void {
  const seed = crc32c(journalId)
  const f = recordFields
  let at = 4096
  while (at + 64 <= bytes.length && bytes.toString('latin1', at, at + 4) === 'TMJR') {
    const record = bytes.subarray(at)
    const payloadBytes = record.readUInt32LE(f.payloadBytes.offset)
    const type = record[f.type.offset]!
    record.writeUInt32LE(crc32c(record.subarray(0, f.headerCrc.offset), seed), f.headerCrc.offset)
    if (record.readUInt32LE(f.commit.offset) !== 0) {
      const hasPayload = payloadBytes > 0 && type !== 5 && type !== 6 && 64 + payloadBytes <= record.length
      const sum = hasPayload ? crc32c(record.subarray(64, 64 + payloadBytes)) : 0
      record.writeUInt32LE(sum, f.payloadCrc.offset)
      record.writeUInt32LE(crc32c(record.subarray(0, f.commit.offset), seed), f.commit.offset)
    }
    at += 64 + Math.ceil(payloadBytes / 64) * 64
  }
}
