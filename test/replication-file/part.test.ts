import { randomBytes, randomInt } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { KiB, lsn, MiB, volumeIndex } from '../../src/block/units.js'
import { decodePart } from '../../src/replication-file/decode-part.js'
import { encodePart } from '../../src/replication-file/encode-part.js'
import { PART_FILE_LIMIT, PART_RAW_LIMIT, PART_RECORD_LIMIT } from '../../src/replication-file/limits.js'
import type { PartRecord } from '../../src/replication-file/part.js'
import { peekHeader } from '../../src/replication-file/part-header.js'
import { payloadLength } from '../../src/replication-file/part-index.js'
import { randomWrite, sampleHeader, sampleRecords, streamSecret, write } from './samples.js'

const big = (maximum: bigint) => fc.bigInt({ min: 0n, max: maximum })
const u64 = big(2n ** 64n - 1n)
const name = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9_-]{0,40}$/)
const volume = fc.integer({ min: 0, max: 0xfffe }).map(volumeIndex)
const placed = (lengthBytes: number) =>
  fc.record({
    volume,
    offset: fc.integer({ min: 0, max: 2 ** 43 }).map((sector) => sector * 512),
    lengthBytes: fc.constant(lengthBytes),
    lsn: u64.map(lsn),
    timeNs: u64,
  })
const payload = fc
  .tuple(fc.integer({ min: 1, max: 40 }), fc.boolean())
  .map(([sectors, isText]) => (isText ? Buffer.alloc(sectors * 512, 'tide ') : randomBytes(sectors * 512)))
const record: fc.Arbitrary<PartRecord> = fc.oneof(
  payload.chain((bytes) => placed(bytes.length).map((place) => ({ kind: 'write' as const, ...place, payload: bytes }))),
  fc
    .tuple(fc.constantFrom('zero' as const, 'trim' as const), fc.integer({ min: 1, max: 2 ** 42 }))
    .chain(([kind, sectors]) => placed(sectors * 512).map((place) => ({ kind, ...place }))),
  fc.record({
    kind: fc.constant('marker' as const),
    lsn: u64.map(lsn),
    timeNs: u64,
    payload: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  }),
  fc.tuple(fc.integer({ min: 1, max: 600 }), fc.boolean()).chain(([sectors, isZero]) =>
    fc.record({
      kind: fc.constant('digest' as const),
      volume,
      offset: fc.integer({ min: 0, max: 2 ** 43 }).map((sector) => sector * 512),
      lengthBytes: fc.constant(sectors * 512),
      run: fc.integer({ min: 1, max: 0xffff_ffff }),
      salt: fc.constant(randomBytes(16)),
      digests: fc.constant(isZero ? Buffer.alloc(0) : randomBytes(16 * Math.ceil(sectors / 128))),
    }),
  ),
  fc.record({
    kind: fc.constant('volume' as const),
    volume,
    stream: name,
    name,
    sizeBytes: fc.integer({ min: 1, max: 2 ** 43 }).map((sectors) => sectors * 512),
  }),
)

t.test('what goes in comes out, in order', async (t) => {
  const seed = Number(process.env.SEED ?? randomInt(2 ** 31))
  t.comment(`seed ${seed}`)
  const property = fc.property(fc.array(record, { maxLength: 60 }), fc.boolean(), (records, initializing) => {
    const header = { ...sampleHeader, initializing, previousTag: randomBytes(16) }
    const encoded = encodePart(header, records, streamSecret)
    const decoded = decodePart(encoded.bytes, streamSecret, { expected: header })
    for (const [field, value] of Object.entries(header)) {
      if (!isSame(decoded.header[field as keyof typeof header], value)) return false
    }
    if (encoded.rawBytes !== records.reduce((sum, each) => sum + payloadLength(each), 0)) return false
    return isSame(decoded.records, records) && encoded.tag.equals(decoded.tag)
  })
  fc.assert(property, { seed, numRuns: 400 })
})

function isSame(a: unknown, b: unknown): boolean {
  const text = (value: unknown) =>
    JSON.stringify(value, (_, field) =>
      typeof field === 'bigint' ? `${field}n` : field && typeof field === 'object' ? sorted(field) : field,
    )
  const sorted = (value: object) =>
    Array.isArray(value) ? value : Object.fromEntries(Object.entries(value).sort(([x], [y]) => (x < y ? -1 : 1)))
  return text(a) === text(b)
}

t.test('a part without records is a part', async (t) => {
  const { bytes, compressedBytes } = encodePart(sampleHeader, [], streamSecret)
  t.equal(compressedBytes, 0)
  t.same(decodePart(bytes, streamSecret).records, [])
})

t.test('a part filled to the limits stays below the file limit and comes back', async (t) => {
  const zero = { kind: 'zero', volume: volumeIndex(0), lengthBytes: 512, lsn: lsn(1n), timeNs: 0n } as const
  const records: PartRecord[] = [
    ...Array.from({ length: 128 }, (_, at) => randomWrite(at * MiB, 127 * KiB)),
    ...Array.from({ length: PART_RECORD_LIMIT - 128 }, (_, at) => ({ ...zero, offset: at * 1024 })),
  ]
  const encoded = encodePart(sampleHeader, records, streamSecret)
  t.ok(encoded.bytes.length <= PART_FILE_LIMIT)
  t.equal(decodePart(encoded.bytes, streamSecret).records.length, PART_RECORD_LIMIT)
  t.throws(() => encodePart(sampleHeader, [...records, records[0]!], streamSecret), { code: 'ERR_ASSERTION' })
})

t.test('payloads of 4 MiB, and any mixture of sizes up to the limit, find their frames', async (t) => {
  const large = Array.from({ length: 4 }, (_, at) => randomWrite(at * 4 * MiB, 4 * MiB))
  const encoded = encodePart(sampleHeader, large, streamSecret)
  t.equal(encoded.rawBytes, PART_RAW_LIMIT)
  t.equal(decodePart(encoded.bytes, streamSecret).records.length, 4)
  const worst = Array.from({ length: 32 }, (_, at) => randomWrite(at * MiB, at % 2 ? 512 : MiB - 512))
  const bytes = encodePart(sampleHeader, worst, streamSecret).bytes
  t.equal(decodePart(bytes, streamSecret).records.length, 32)
  t.throws(() => encodePart(sampleHeader, [...large, randomWrite(0, 512)], streamSecret), { code: 'ERR_ASSERTION' })
})

t.test('the encoder refuses what no reader would take', async (t) => {
  const zero = { kind: 'zero', volume: volumeIndex(0), offset: 0, lengthBytes: 512, lsn: lsn(1n), timeNs: 0n } as const
  const refused = (record: PartRecord) =>
    t.throws(() => encodePart(sampleHeader, [record], streamSecret), { code: 'ERR_ASSERTION' })
  refused({ ...zero, lengthBytes: 0 })
  refused({ ...zero, lengthBytes: 513 })
  refused({ ...zero, offset: 100 })
  refused({ ...zero, offset: 2 ** 53 - 512, lengthBytes: 1024 })
  refused({ ...zero, volume: volumeIndex(0xffff) })
  refused({ kind: 'volume', volume: volumeIndex(0), stream: '../x', name: 'y', sizeBytes: 512 })
  refused({ kind: 'marker', lsn: lsn(1n), timeNs: 0n, payload: Buffer.alloc(65 * KiB) })
  t.throws(() => encodePart({ ...sampleHeader, part: 2 }, [], streamSecret), { code: 'ERR_ASSERTION' })
})

t.test('two parts of the same records share no salt, no key and no byte of content', async (t) => {
  const [first, second] = [0, 1].map(() => encodePart(sampleHeader, sampleRecords, streamSecret).bytes)
  t.not(peekHeader(first!).salt.toString('hex'), peekHeader(second!).salt.toString('hex'))
  t.notOk(first!.subarray(256).equals(second!.subarray(256)))
})

t.test('payloads are pieces of their frame, not copies', async (t) => {
  const records = Array.from({ length: 64 }, (_, at) => randomWrite(at * 4096, 4096))
  const decoded = decodePart(encodePart(sampleHeader, records, streamSecret).bytes, streamSecret)
  const memory = new Set(decoded.records.map((found) => (found.kind === 'write' ? found.payload.buffer : undefined)))
  t.equal(memory.size, 1)
})

t.test('the speed of it', async (t) => {
  const text = Buffer.from(
    Array.from({ length: 20_000 }, (_, at) => `line ${at} of ${(at * 7919) % 1013}, mail from host-${at % 17}\n`).join(
      '',
    ),
  )
  const payloads = {
    random: () => randomBytes(4 * KiB),
    text: () => Buffer.from(text.subarray(0, 4 * KiB)),
  }
  const start = (at: number) => (at * 4096) % (text.length - 4096)
  for (const [kind, make] of Object.entries(payloads)) {
    const records = Array.from({ length: 4096 }, (_, at) =>
      write(at * 4096, kind === 'text' ? text.subarray(start(at), start(at) + 4096) : make()),
    )
    let encodeMs = Number.POSITIVE_INFINITY
    let decodeMs = Number.POSITIVE_INFINITY
    let ratio = 0
    for (let round = 0; round < 8; round += 1) {
      const from = performance.now()
      const { bytes, compressedBytes, rawBytes } = encodePart(sampleHeader, records, streamSecret)
      encodeMs = Math.min(encodeMs, performance.now() - from)
      ratio = compressedBytes / rawBytes
      const then = performance.now()
      decodePart(bytes, streamSecret)
      decodeMs = Math.min(decodeMs, performance.now() - then)
    }
    const rate = (milliseconds: number) => (16_000 / milliseconds).toFixed(0)
    t.comment(
      `${kind}, 4 KiB writes: encode ${rate(encodeMs)} MiB/s, decode ${rate(decodeMs)} MiB/s, to ${ratio.toFixed(2)}`,
    )
  }
})
