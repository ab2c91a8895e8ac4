import { randomBytes, randomInt } from 'node:crypto'
import t from 'tap'
import { MiB, volumeIndex } from '../../src/block/units.js'
import { decodePart } from '../../src/replication-file/decode-part.js'
import { encodePart, sealPart } from '../../src/replication-file/encode-part.js'
import { deriveStreamSecret, keyId } from '../../src/replication-file/keys.js'
import { shrink } from '../../src/replication-file/lz4.js'
import type { PartPlace } from '../../src/replication-file/part.js'
import {
  type PartHeaderLayout,
  partHeaderLayout,
  peekHeader,
  writeHeader,
} from '../../src/replication-file/part-header.js'
import { writeIndex } from '../../src/replication-file/part-index.js'
import { writeRangeDigest } from '../../src/replication-file/range-digest.js'
import { codeOf, pairingSecret, randomWrite, sampleHeader, sampleRecords, streamSecret, write } from './samples.js'

const sample = encodePart(sampleHeader, sampleRecords, streamSecret).bytes
const decode = (bytes: Buffer, expected: Partial<PartPlace> = {}) => decodePart(bytes, streamSecret, { expected })

t.test('a file cut at any length is refused (R5)', async (t) => {
  for (let length = 0; length < sample.length; length += 1) {
    const code = codeOf(() => decode(sample.subarray(0, length)))
    if (code !== (length < 256 ? 'NOT_A_REPLICATION_FILE' : 'SEAL_BROKEN')) t.fail(`${length} bytes: ${code}`)
  }
  t.equal(
    codeOf(() => decode(Buffer.concat([sample, Buffer.alloc(1)]))),
    'SEAL_BROKEN',
    'a byte more',
  )
  t.equal(decode(sample).records.length, sampleRecords.length, 'the whole file')
})

t.test('any single bit flipped is refused (R6)', async (t) => {
  const codes: Record<string, number> = {}
  for (let bit = 0; bit < sample.length * 8; bit += 1) {
    sample[bit >> 3]! ^= 1 << (bit & 7)
    const code = codeOf(() => decode(sample))
    sample[bit >> 3]! ^= 1 << (bit & 7)
    codes[code] = (codes[code] ?? 0) + 1
  }
  t.comment(JSON.stringify(codes))
  t.strictSame(Object.keys(codes).sort(), ['FORMAT_TOO_NEW', 'NOT_A_REPLICATION_FILE', 'SEAL_BROKEN', 'WRONG_KEY'])
})

t.test('a sound file in the wrong place is refused (R7)', async (t) => {
  t.equal(decode(sample, sampleHeader).header.epoch, 41)
  const wrong: Partial<PartPlace>[] = [
    { pairingId: Buffer.alloc(16) },
    { streamId: Buffer.alloc(16) },
    { generation: 4 },
    { epoch: 42 as PartPlace['epoch'] },
    { part: 0 },
    { partCount: 3 },
    { previousTag: Buffer.alloc(16) },
  ]
  for (const expected of wrong)
    t.equal(
      codeOf(() => decode(sample, expected)),
      'WRONG_PLACE',
      Object.keys(expected).join(),
    )
})

t.test('a file of another stream or pairing is told by its key', async (t) => {
  const others = [deriveStreamSecret(pairingSecret, Buffer.alloc(16, 9)), randomBytes(32)]
  for (const secret of others)
    t.equal(
      codeOf(() => decodePart(sample, secret)),
      'WRONG_KEY',
    )
})

t.test('a place rewritten by somebody without the key breaks the seal', async (t) => {
  const fields = ['pairingId', 'streamId', 'generation', 'epoch', 'part', 'previousTag', 'firstLsn', 'flags'] as const
  for (const field of fields) {
    const forged = Buffer.from(sample)
    forged[partHeaderLayout[field].offset]! ^= field === 'part' ? 1 : 0x40
    t.equal(
      codeOf(() => decode(forged)),
      'SEAL_BROKEN',
      field,
    )
  }
})

t.test("another stream's content under this header breaks the seal", async (t) => {
  const other = encodePart({ ...sampleHeader, generation: 2 }, sampleRecords, streamSecret).bytes
  const mixed = Buffer.concat([sample.subarray(0, 256), other.subarray(256)])
  t.equal(
    codeOf(() => decode(mixed)),
    'SEAL_BROKEN',
  )
})

t.test('frames swapped, dropped or doubled break the seal', async (t) => {
  const records = Array.from({ length: 3 }, (_, at) => randomWrite(at * MiB, MiB))
  const file = encodePart(sampleHeader, records, streamSecret).bytes
  const { frameCount, indexLength } = peekHeader(file)
  t.equal(frameCount, 3)
  const frame = (at: number) => file.subarray(256 + at * MiB, 256 + (at + 1) * MiB)
  const tail = file.subarray(256 + 3 * MiB)
  const tag = (at: number) => tail.subarray(indexLength + at * 16, indexLength + (at + 1) * 16)
  const rebuilt = (order: number[], tags: number[] = [0, 1, 2]) =>
    Buffer.concat([
      file.subarray(0, 256),
      ...order.map(frame),
      tail.subarray(0, indexLength),
      ...tags.map(tag),
      tail.subarray(indexLength + 48),
    ])
  t.ok(rebuilt([0, 1, 2]).equals(file))
  t.equal(
    codeOf(() => decode(rebuilt([1, 0, 2]))),
    'SEAL_BROKEN',
    'frames swapped',
  )
  t.equal(
    codeOf(() => decode(rebuilt([1, 0, 2], [1, 0, 2]))),
    'SEAL_BROKEN',
    'swapped with their tags',
  )
  t.equal(
    codeOf(() => decode(rebuilt([0, 0, 2], [0, 0, 2]))),
    'SEAL_BROKEN',
    'one doubled over another',
  )
  t.equal(
    codeOf(() => decode(rebuilt([0, 1], [0, 1]))),
    'SEAL_BROKEN',
    'one dropped',
  )
  t.equal(
    codeOf(() => decode(rebuilt([0, 1, 2, 2], [0, 1, 2, 2]))),
    'SEAL_BROKEN',
    'one added',
  )
})

t.test('no algorithm but the one is taken, sealed or not', async (t) => {
  for (const algorithm of [0, 2, 255]) {
    const bytes = Buffer.from(sample)
    bytes[partHeaderLayout.algorithm.offset] = algorithm
    t.equal(
      codeOf(() => decode(bytes)),
      'SEAL_BROKEN',
    )
    t.equal(
      codeOf(() => decode(forge({ header: { algorithm } }))),
      'SEAL_BROKEN',
    )
  }
})

t.test('a digest that is none, or one in a file of format 1, is refused', async (t) => {
  const sound = writeRangeDigest({ lengthBytes: 65_536, run: 1, salt: Buffer.alloc(16), digests: Buffer.alloc(16) })
  const payload = Buffer.concat([sound, Buffer.alloc(4096 - sound.length)])
  const damage: Record<string, (payload: Buffer) => void> = {
    'as it is: more digests than blocks': () => undefined,
    'run 0': (bytes) => bytes.writeUInt32LE(0, 8),
    'other blocks': (bytes) => bytes.writeUInt32LE(4096, 12),
    'zeros with digests': (bytes) => bytes.writeUInt32LE(0, 12),
    'length 0': (bytes) => bytes.writeBigUInt64LE(0n, 0),
    'length 2^60': (bytes) => bytes.writeBigUInt64LE(2n ** 60n, 0),
    'half a sector': (bytes) => bytes.writeBigUInt64LE(254n * 65_536n - 256n, 0),
  }
  const change = (index: Buffer) => {
    index.writeUInt8(6, 12)
    index.fill(0, 12 + 24, 12 + 40)
  }
  const right = Buffer.from(payload)
  right.writeBigUInt64LE(254n * 65_536n, 0)
  t.equal(
    codeOf(() => decode(forge({ payload: right, change, header: { version: 2 } }))),
    'nothing thrown',
  )
  t.equal(
    codeOf(() => decode(forge({ payload: right, change }))),
    'PART_DAMAGED',
    'format 1',
  )
  for (const [name, spoil] of Object.entries(damage)) {
    const bytes = Buffer.from(name === 'half a sector' ? right : payload)
    spoil(bytes)
    t.equal(
      codeOf(() => decode(forge({ payload: bytes, change, header: { version: 2 } }))),
      'PART_DAMAGED',
      name,
    )
  }
})

t.test('a newer format is kept for a newer agent', async (t) => {
  t.equal(
    codeOf(() => decode(forge({ header: { version: 3 } }))),
    'FORMAT_TOO_NEW',
  )
  t.equal(
    codeOf(() => decode(forge({ header: { version: 0 } }))),
    'SEAL_BROKEN',
  )
})

t.test('huge counts and sizes are refused before anything of that size is made', async (t) => {
  const before = process.memoryUsage().rss
  const claims: Forgery['header'][] = [
    { recordCount: 0xffff_ffff },
    { frameCount: 0xffff_ffff },
    { rawLength: 2n ** 60n },
    { dataLength: 2n ** 60n },
    { indexLength: 0xffff_ffff },
    { indexRawLength: 0xffff_ffff },
    { fileLength: 2n ** 60n },
    { rawLength: 2n ** 40n },
    { recordCount: 0xffff_ffff, indexRawLength: 0xffff_ffff },
    { generation: 2n ** 63n },
  ]
  for (const header of claims) {
    t.match(
      codeOf(() => decode(forge({ header }))),
      /^(SEAL_BROKEN|PART_DAMAGED)$/,
      Object.keys(header!).join(),
    )
  }
  t.ok(process.memoryUsage().rss - before < 64 * MiB)
})

t.test('a compressed bomb is refused by its authenticated size', async (t) => {
  const bomb = shrink(Buffer.alloc(64 * MiB)).stored
  const from = performance.now()
  t.equal(
    codeOf(() => decode(forge({ frames: [bomb], frame: { rawLength: 4096 } }))),
    'PART_DAMAGED',
  )
  const claim = Buffer.from(bomb.subarray(0, 27))
  claim.writeUInt32LE(0xffff_ffff)
  t.equal(
    codeOf(() => decode(forge({ frames: [claim], frame: { rawLength: 4096 } }))),
    'PART_DAMAGED',
  )
  claim.writeUInt32LE(4096)
  t.equal(
    codeOf(() => decode(forge({ frames: [claim], frame: { rawLength: 4096 } }))),
    'PART_DAMAGED',
    'it tells less',
  )
  t.equal(
    codeOf(() => decode(forge({ frames: [bomb], frame: { rawLength: 0xffff_ffff } }))),
    'PART_DAMAGED',
  )
  t.equal(
    codeOf(() => decode(forge({ index: claim, header: { indexEncoding: 1 } }))),
    'PART_DAMAGED',
    'the index',
  )
  t.ok(performance.now() - from < 6000, 'without the 8 s that a believed claim takes')
})

t.test('a sealed index that makes no sense is refused', async (t) => {
  t.equal(
    codeOf(() => decode(forge({}))),
    'nothing thrown',
    'the forgery without a fault',
  )
  const record = 12
  const damage: Record<string, (index: Buffer) => void> = {
    'type 0': (index) => index.writeUInt8(0, record),
    'type 6': (index) => index.writeUInt8(6, record),
    'reserved byte': (index) => index.writeUInt8(1, record + 1),
    'no volume': (index) => index.writeUInt16LE(0xffff, record + 2),
    checksum: (index) => index.writeUInt32LE(index.readUInt32LE(record + 4) ^ 1, record + 4),
    'unaligned offset': (index) => index.writeBigUInt64LE(511n, record + 8),
    'offset beyond 2^53': (index) => index.writeBigUInt64LE(2n ** 53n, record + 8),
    'end beyond 2^53': (index) => index.writeBigUInt64LE(2n ** 53n - 512n, record + 8),
    'offset 2^64 - 512': (index) => index.writeBigUInt64LE(2n ** 64n - 512n, record + 8),
    'length 0': (index) => index.writeBigUInt64LE(0n, record + 16),
    'unaligned length': (index) => index.writeBigUInt64LE(4095n, record + 16),
    'length beyond its frame': (index) => index.writeBigUInt64LE(8192n, record + 16),
    'length short of its frame': (index) => index.writeBigUInt64LE(512n, record + 16),
    'length 2^60': (index) => index.writeBigUInt64LE(2n ** 60n, record + 16),
    'a marker of 1 MiB': (index) => {
      index.writeUInt8(4, record)
      index.writeUInt16LE(0xffff, record + 2)
      index.writeBigUInt64LE(1n << 20n, record + 16)
    },
    'a zero with payload': (index) => index.writeUInt8(2, record),
    'a volume of no names': (index) => {
      index.writeUInt8(5, record)
      index.writeBigUInt64LE(4096n, record + 8)
    },
    'frame longer in the file': (index) => index.writeUInt32LE(4097, 0),
    'frame raw length': (index) => index.writeUInt32LE(4608, 4),
    'frame encoding': (index) => index.writeUInt8(2, 8),
    'frame reserved': (index) => index.writeUInt8(1, 10),
  }
  for (const [name, change] of Object.entries(damage)) {
    t.equal(
      codeOf(() => decode(forge({ change }))),
      'PART_DAMAGED',
      name,
    )
  }
  const headers: Record<string, Forgery['header']> = {
    'epoch 0': { epoch: 0 },
    'generation 0': { generation: 0 },
    'part beyond count': { part: 2 },
    'unknown flag': { flags: 2 },
    'reserved byte': { reserved: 1 },
    'LSN range': { firstLsn: 2n ** 61n },
    'index encoding': { indexEncoding: 7 },
    'fewer records': { recordCount: 0 },
  }
  for (const [name, header] of Object.entries(headers)) {
    t.equal(
      codeOf(() => decode(forge({ header }))),
      'PART_DAMAGED',
      name,
    )
  }
})

t.test('whatever is sealed or not, only a StorageError is thrown (fuzz)', async (t) => {
  const seed = Number(process.env.SEED ?? randomInt(2 ** 31))
  t.comment(`seed ${seed}`)
  let state = seed
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  const mutate = (bytes: Buffer) => {
    for (let count = 1 + random(4); count > 0; count -= 1) {
      const at = random(bytes.length)
      if (random(3) === 0) bytes.subarray(at, at + 1 + random(8)).fill(random(2) * 255)
      else bytes[at] = random(256)
    }
  }
  const codes: Record<string, number> = {}
  const end = Date.now() + 3000
  let rounds = 0
  for (; Date.now() < end; rounds += 1) {
    const round = random(3)
    const bytes = round === 0 ? Buffer.from(sample) : forge(round === 1 ? { change: mutate } : { changeHeader: mutate })
    if (round === 0) mutate(bytes)
    const code = codeOf(() => decode(bytes))
    codes[code] = (codes[code] ?? 0) + 1
  }
  t.comment(`${rounds} files: ${JSON.stringify(codes)}`)
  t.ok(rounds > 100)
})

interface Forgery {
  /** 4 KiB. */
  readonly payload?: Buffer
  readonly header?: Partial<Record<keyof PartHeaderLayout, number | bigint>> | undefined
  readonly changeHeader?: (header: Buffer) => void
  readonly frames?: Buffer[]
  readonly frame?: { readonly rawLength: number }
  readonly index?: Buffer
  readonly change?: (index: Buffer) => void
}

/** What a peer who has the key, and no scruples, could seal: one write of 4 KiB, changed at will. */
function forge(forgery: Forgery): Buffer {
  const payload = forgery.payload ?? Buffer.alloc(4096, 0x77)
  const frames = forgery.frames ?? [payload]
  const rawLength = forgery.frame?.rawLength ?? 4096
  const entries = frames.map(({ length }) => ({ encoding: forgery.frames ? 1 : 0, storedLength: length, rawLength }))
  const records = [{ ...write(0, payload), volume: volumeIndex(1) }] as Parameters<typeof writeIndex>[1]
  const index = forgery.index ?? writeIndex(entries, records, [payload])
  forgery.change?.(index)
  const header = writeHeader(sampleHeader, {
    version: 1,
    writerVersion: 1,
    indexEncoding: 0,
    keyId: keyId(streamSecret),
    recordCount: 1,
    frameCount: frames.length,
    rawLength,
    dataLength: frames.reduce((sum, { length }) => sum + length, 0),
    indexLength: index.length,
    indexRawLength: 12 * frames.length + 40,
  })
  randomBytes(32).copy(header, partHeaderLayout.salt.offset)
  for (const [field, value] of Object.entries(forgery.header ?? {})) {
    const { offset, size } = partHeaderLayout[field as keyof PartHeaderLayout]
    if (size === 8) header.writeBigUInt64LE(BigInt(value), offset)
    else header.writeUIntLE(Number(value), offset, size)
  }
  forgery.changeHeader?.(header)
  return sealPart(header, frames, index, streamSecret).bytes
}
