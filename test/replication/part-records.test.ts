import t from 'tap'
import { lsn, volumeIndex } from '../../src/block/units.js'
import type { EpochRecords } from '../../src/replication/epoch-records.js'
import { foldEpoch, foldKind } from '../../src/replication/fold.js'
import { partRecords, splitParts } from '../../src/replication/part-records.js'
import { SentContent } from '../../src/replication/sent-content.js'
import { PART_RAW_LIMIT } from '../../src/replication-file/limits.js'
import type { PartRecord } from '../../src/replication-file/part.js'

interface Given {
  readonly kind?: 'write' | 'zero' | 'trim'
  readonly offset: number
  readonly bytes: Buffer
  readonly copy?: boolean
}

function epoch(given: readonly Given[]): EpochRecords {
  return {
    count: given.length,
    kind: Uint8Array.from(given, ({ kind }) => foldKind[kind ?? 'write']),
    volume: new Uint16Array(given.length),
    offset: Float64Array.from(given, ({ offset }) => offset),
    lengthBytes: Float64Array.from(given, ({ bytes }) => bytes.length),
    lsn: BigUint64Array.from(given, (_, at) => BigInt(at)),
    timeNs: new BigUint64Array(given.length),
    oldestNs: 0n,
    newestNs: 0n,
    payload: (record) => given[record]!.bytes,
    isCopy: (record) => given[record]!.copy ?? false,
  }
}

function pack(
  given: readonly Given[],
  content = new SentContent(1024),
  ontoZeros = true,
): ReturnType<typeof partRecords> {
  const records = epoch(given)
  return partRecords(foldEpoch(records), records, content, ontoZeros)
}

const data = (fill: number, length = 4096): Buffer => Buffer.alloc(length, fill)

t.test('1,000 rewrites of one block are one record', async (t) => {
  const rewrites = Array.from({ length: 1000 }, (_, at) => ({ offset: 8192, bytes: data((at % 255) + 1) }))
  const { kept, foldedBytes } = pack(rewrites)
  t.equal(foldedBytes, 999 * 4096)
  t.equal(kept.length, 1)
  t.ok(kept[0]!.kind === 'write' && kept[0]!.payload.equals(rewrites.at(-1)!.bytes))
})

t.test('the same content again does not cross, and is counted', async (t) => {
  const content = new SentContent(1024)
  pack([{ offset: 0, bytes: data(7, 8192) }], content)
  const again = pack([{ offset: 0, bytes: data(7, 8192) }], content)
  t.same(again, { kept: [], rawBytes: 8192, foldedBytes: 0, identicalBytes: 8192 })
  const other = pack([{ offset: 4096, bytes: data(8) }], content)
  t.equal(other.kept.length, 1)
})

t.test('content that was zeroed or trimmed in between crosses again', async (t) => {
  for (const kind of ['zero', 'trim'] as const) {
    const content = new SentContent(1024)
    pack([{ offset: 0, bytes: data(7) }], content)
    pack([{ offset: 0, bytes: data(0), kind }], content)
    t.equal(pack([{ offset: 0, bytes: data(7) }], content).kept.length, 1, kind)
  }
})

t.test('zeros written by a host cross as zeros; zeros found by a copy do not cross', async (t) => {
  const written = pack([{ offset: 0, bytes: data(0, 8192) }])
  t.match(written.kept, [{ kind: 'zero', offset: 0, lengthBytes: 8192 }])
  t.same(pack([{ offset: 0, bytes: data(0, 8192), copy: true }]).kept, [])
  const caughtUp = pack([{ offset: 0, bytes: data(0, 8192), copy: true }], new SentContent(1024), false)
  t.match(caughtUp.kept, [{ kind: 'zero', offset: 0, lengthBytes: 8192 }], 'but those of a catch-up do')
})

t.test('a journaled write lies over the copy of an initialisation', async (t) => {
  const { kept } = pack([
    { offset: 0, bytes: data(1, 8192), copy: true },
    { offset: 4096, bytes: data(2) },
  ])
  t.match(kept, [
    { offset: 0, lengthBytes: 4096 },
    { offset: 4096, lengthBytes: 4096 },
  ])
  t.ok(kept[1]!.kind === 'write' && kept[1]!.payload[0] === 2)
})

t.test('an epoch that changes nothing is still one part, and no part is too large', async (t) => {
  t.same(splitParts([]), [[]])
  const record: PartRecord = {
    kind: 'write',
    volume: volumeIndex(0),
    offset: 0,
    lengthBytes: 4 * 1024 * 1024,
    lsn: lsn(0n),
    timeNs: 0n,
    payload: Buffer.alloc(4 * 1024 * 1024),
  }
  const declared: PartRecord = { kind: 'volume', volume: volumeIndex(0), stream: 's', name: 'v', sizeBytes: 512 }
  const groups = splitParts([declared, ...Array<PartRecord>(PART_RAW_LIMIT / record.lengthBytes).fill(record)])
  t.same(
    groups.map((group) => group.length),
    [4, 1],
    'the names of a declaration count',
  )
})
