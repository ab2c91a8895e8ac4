import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { crc32c } from '../../../src/block/crc32c.js'
import { checkPool } from '../../../src/pool/check.js'
import { blockIndex, type LogSequence, layerId, recordBytes, unitIndex } from '../../../src/pool/geometry.js'
import {
  encodeOperation,
  encodeOwn,
  encodeRelease,
  nativeRecords,
  RecordChecksum,
  recordFields,
  recordType,
  textPlaces,
} from '../../../src/pool/log-record.js'
import { recoverPool } from '../../../src/pool/recovery.js'
import { golden, operations, writeGoldenPool } from '../../fixtures/pool/golden-pool.js'
import { PoolRig } from '../../fixtures/pool/pool-rig.js'
import type { OpenTarget } from '../target.js'

const flag = { seal: 1, sameBoot: 2 } as const
/** Records of one input, at the most: each is read again and again. */
const recordLimit = 256

/**
 * First byte: flags. The rest are records, which lie where the log of a small pool goes on. With `seal` their sequence and
 * checksums are made right. The pool is then recovered, as after a crash or a power cut, and checked.
 */
export const poolLog: OpenTarget = async (folder) => {
  const path = join(folder, 'golden')
  await writeGoldenPool(path)
  const rig = PoolRig.of([path])
  const store = await rig.open({ bootId: golden.bootId })
  const { geometry, seed, logSequence } = store
  await store.close()
  const { logOffset, logRecords } = geometry.head
  const logBefore = rig.read(0, logOffset, logRecords * recordBytes)
  const whole = readFileSync(path)
  const unit = (index: number) => geometry.unitAt(unitIndex(index))
  return {
    words: ['"op":', '"remove-volume"', '"layer":', '"volume":4', '"name":"', '-1', 'null'].map((text) =>
      Buffer.from(text),
    ),
    seeds: () => {
      const records = [
        nativeRecords.map(layerId(3), blockIndex(9), geometry.locationOf(unit(3), 2)),
        nativeRecords.hole(layerId(5), blockIndex(10), 2),
        encodeOperation({ op: 'remove-volume', volume: 4 }),
        encodeOwn(unit(0), layerId(3)),
        encodeRelease(unit(4)),
        nativeRecords.commit((logSequence + 8) as LogSequence),
      ]
      const each = operations.map((operation) => encodeOperation(operation))
      return [
        ...[0, 1, 2, 3].map((flags) => Buffer.concat([Buffer.of(flags), ...records])),
        Buffer.concat([Buffer.of(3), ...each]),
        ...records.map((record) => Buffer.concat([Buffer.of(3), record])),
        ...each.map((record) => Buffer.concat([Buffer.of(3), record])),
      ]
    },
    async run(input) {
      const flags = input[0] ?? 0
      const bytes = Buffer.alloc(
        Math.min(recordLimit, Math.max(0, Math.ceil((input.length - 1) / recordBytes))) * recordBytes,
      )
      input.subarray(1).copy(bytes)
      if ((flags & flag.seal) !== 0) sealRecords(bytes, logSequence, seed)
      const fd = openSync(path, 'r+')
      try {
        writeSync(fd, whole)
        writeSync(fd, logBefore, 0, logBefore.length, logOffset)
        for (let at = 0; at < bytes.length; at += recordBytes) {
          const place = (logSequence + at / recordBytes) % logRecords
          writeSync(fd, bytes, at, recordBytes, logOffset + place * recordBytes)
        }
      } finally {
        closeSync(fd)
      }
      await checkPool([path])
      const opened = await rig.open((flags & flag.sameBoot) !== 0 ? { bootId: golden.bootId } : {})
      try {
        await recoverPool(opened)
      } finally {
        await opened.close()
      }
    },
  }
}

function sealRecords(bytes: Buffer, first: number, seed: number): void {
  const f = recordFields
  const checksum = new RecordChecksum(seed)
  for (let at = 0; at < bytes.length; ) {
    let places = 1
    if (bytes[at + f.type.offset] === recordType.operation) {
      const textBytes = bytes.readUInt32LE(at + f.layer.offset)
      const text = bytes.subarray(at + recordBytes, at + recordBytes + textBytes)
      bytes.writeUInt32LE(crc32c(text), at + f.subject.offset)
      bytes.fill(0, at + f.subject.offset + 4, at + f.type.offset)
      if (text.length === textBytes) places += textPlaces(textBytes)
    }
    bytes.writeBigUInt64LE(BigInt(first + at / recordBytes), at + f.sequence.offset)
    bytes.writeUInt32LE(checksum.of(bytes, at), at)
    at += places * recordBytes
  }
}
