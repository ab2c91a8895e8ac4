import { randomInt } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { crc32c } from '../../src/block/crc32c.js'
import { blockIndex, layerId, logSequence, poolLocation, unitNumber } from '../../src/pool/geometry.js'
import {
  encodeOperation,
  encodeOwn,
  encodeRelease,
  nativeRecords,
  operationTextLimit,
  parseRecords,
  RecordChecksum,
  sealRecords,
  sequenceAfter,
} from '../../src/pool/log-record.js'

const seed = 0x01020304

t.test('each record has these bytes', async (t) => {
  const known: [Buffer, string][] = [
    [
      nativeRecords.map(layerId(7), blockIndex(0x123456), poolLocation(0x3_0000_1234)),
      '07000000000000000000000056341200000000013412000003000000',
    ],
    [
      nativeRecords.hole(layerId(8), blockIndex(2 ** 40), 5),
      '08000000000000000000000000000000000100020500000000000000',
    ],
    [nativeRecords.commit(logSequence(99)), '00000000000000000000000000000000000000036300000000000000'],
    [encodeOwn(unitNumber(0x4_0000_0010), layerId(9)), '09000000000000000000000010000000040000040000000000000000'],
    [encodeRelease(unitNumber(17)), '00000000000000000000000011000000000000050000000000000000'],
  ]
  for (const [bytes, hex] of known) {
    t.equal(bytes.length, 32)
    t.equal(bytes.readUInt32LE(0), 0, 'the checksum is filled in by native code')
    t.equal(bytes.toString('hex', 4), hex)
  }
})

t.test('an operation is a record and its text, padded with zeros', async (t) => {
  const bytes = encodeOperation({ op: 'x' })
  const text = Buffer.from('{"op":"x"}')
  t.equal(bytes.length, 64)
  t.equal(bytes.readUInt32LE(4), text.length)
  t.equal(bytes.readUIntLE(16, 6), crc32c(text))
  t.equal(bytes[23], 6)
  t.strictSame(bytes.subarray(32, 32 + text.length), text)
  t.ok(bytes.subarray(32 + text.length).every((byte) => byte === 0))
  t.equal(encodeOperation('x'.repeat(30)).length, 64)
  t.equal(encodeOperation('x'.repeat(31)).length, 96)
  t.throws(() => encodeOperation('x'.repeat(operationTextLimit)), 'longer than any operation')
})

t.test('sealing fills in the sequence and the checksum over seed and record', async (t) => {
  const bytes = sealRecords([nativeRecords.commit(logSequence(1)), encodeRelease(unitNumber(3))], logSequence(41), seed)
  t.equal(bytes.readBigUInt64LE(8), 41n)
  t.equal(bytes.readBigUInt64LE(32 + 8), 42n)
  const input = Buffer.concat([Buffer.from('04030201', 'hex'), bytes.subarray(36, 64)])
  t.equal(bytes.readUInt32LE(32), crc32c(input))
  t.ok(new RecordChecksum(seed).matches(bytes, 32))
  t.notOk(new RecordChecksum(seed + 1).matches(bytes, 32), 'of another pool')
})

const id = fc.integer({ min: 1, max: 2 ** 32 - 1 }).map(layerId)
const block = fc.maxSafeInteger().map((value) => blockIndex(Math.abs(value)))
const unit = fc.integer({ min: 0, max: 2 ** 37 }).map(unitNumber)
const sample = fc.oneof(
  fc
    .record({ layer: id, block, location: fc.integer({ min: 0, max: 2 ** 40 - 1 }).map(poolLocation) })
    .map((fields) => ({
      record: { kind: 'map' as const, ...fields },
      bytes: nativeRecords.map(fields.layer, fields.block, fields.location),
    })),
  fc.record({ layer: id, block, count: fc.integer({ min: 1, max: 2 ** 44 }) }).map((fields) => ({
    record: { kind: 'hole' as const, ...fields },
    bytes: nativeRecords.hole(fields.layer, fields.block, fields.count),
  })),
  fc.nat().map((covered) => ({
    record: { kind: 'commit' as const, covered },
    bytes: nativeRecords.commit(logSequence(covered)),
  })),
  fc
    .record({ unit, layer: id })
    .map((fields) => ({ record: { kind: 'own' as const, ...fields }, bytes: encodeOwn(fields.unit, fields.layer) })),
  unit.map((number) => ({ record: { kind: 'release' as const, unit: number }, bytes: encodeRelease(number) })),
  fc.string({ maxLength: 300, unit: 'binary' }).map((value) => {
    const bytes = encodeOperation(value)
    return { record: { kind: 'operation' as const, text: JSON.stringify(value), places: bytes.length / 32 }, bytes }
  }),
)

t.test('what goes in comes out, in order', async (t) => {
  const seed = Number(process.env.SEED ?? randomInt(2 ** 31))
  t.comment(`seed ${seed}`)
  fc.assert(
    fc.property(fc.array(sample, { maxLength: 40 }), fc.nat(), (samples, first) => {
      const bytes = sealRecords(
        samples.map((each) => each.bytes),
        logSequence(first),
        5,
      )
      const records = parseRecords(bytes)
      let sequence = first
      for (const [at, record] of records.entries()) {
        if (
          JSON.stringify({ ...samples[at]!.record, sequence }) !== JSON.stringify({ ...samples[at]!.record, ...record })
        )
          return false
        if (Object.keys(record).length !== Object.keys(samples[at]!.record).length + 1) return false
        sequence = sequenceAfter(record)
      }
      return records.length === samples.length && sequence === first + bytes.length / 32
    }),
    { seed },
  )
})
