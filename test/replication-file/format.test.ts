import { readFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { ALGORITHM, section, TAG_BYTES } from '../../src/replication-file/aead.js'
import { decodePart } from '../../src/replication-file/decode-part.js'
import { encodePart } from '../../src/replication-file/encode-part.js'
import { formatInspected, inspectPart } from '../../src/replication-file/inspect-part.js'
import { keyId } from '../../src/replication-file/keys.js'
import * as limits from '../../src/replication-file/limits.js'
import { messageHeaderLayout } from '../../src/replication-file/message.js'
import {
  PART_HEADER_BYTES,
  PART_MAGIC,
  PART_VERSION,
  partHeaderLayout,
  peekHeader,
} from '../../src/replication-file/part-header.js'
import { FRAME_ENTRY_BYTES, RECORD_ENTRY_BYTES, recordType } from '../../src/replication-file/part-index.js'
import {
  RANGE_BLOCK_BYTES,
  RANGE_DIGEST_BYTES,
  RANGE_HEADER_BYTES,
  RANGE_SALT_BYTES,
} from '../../src/replication-file/range-digest.js'
import { codeOf, digestRecords, sampleHeader, sampleRecords, streamSecret } from './samples.js'

/** The tests run compiled, in dist/; the repository is where package.json lies. */
const root = findRoot(import.meta.dirname)
const document = readFileSync(path.join(root, 'src/replication-file/FORMAT.md'), 'utf8')
const golden = readFileSync(path.join(root, 'test/fixtures/replication-file/part-v1.tmr'))

function findRoot(folder: string): string {
  try {
    readFileSync(path.join(folder, 'package.json'))
    return folder
  } catch {
    return findRoot(path.dirname(folder))
  }
}

/** Rows `| offset | size | field | meaning |` of the table under a heading. */
function table(heading: string): Record<string, { offset: number; size: number; meaning: string }> {
  const text = document.split(`${heading}\n`)[1]!.split(/\n#/)[0]!
  const rows = [...text.matchAll(/^\| (\d+) \| (\d+) \| (\w+) \| (.*)\|$/gm)]
  return Object.fromEntries(
    rows.map(([, offset, size, field, meaning]) => [
      field,
      { offset: Number(offset), size: Number(size), meaning: meaning!.trim() },
    ]),
  )
}

const places = (rows: ReturnType<typeof table>) =>
  Object.fromEntries(Object.entries(rows).map(([field, { offset, size }]) => [field, { offset, size }]))

t.test('the header table is the code', async (t) => {
  const header = table('## Header')
  t.strictSame(places(header), partHeaderLayout)
  t.equal(header.magic?.meaning, `\`${PART_MAGIC}\``)
  t.equal(header.version?.meaning, `1; ${PART_VERSION} when a record is a DIGEST`)
  t.equal(header.headerLength?.meaning, String(PART_HEADER_BYTES))
  t.match(header.algorithm?.meaning, new RegExp(`^${ALGORITHM}:`))
  t.match(header.recordCount?.meaning, limits.PART_RECORD_LIMIT.toLocaleString('en-US'))
  t.match(header.frameCount?.meaning, `at most ${limits.FRAME_COUNT_LIMIT}`)
  t.match(header.rawLength?.meaning, `${limits.PART_RAW_LIMIT / 2 ** 20} MiB`)
  t.match(header.fileLength?.meaning, `${limits.PART_FILE_LIMIT / 2 ** 20} MiB`)
  t.match(header.indexRawLength?.meaning, `${FRAME_ENTRY_BYTES} * frameCount + ${RECORD_ENTRY_BYTES} * recordCount`)
})

t.test('the tables of the index and of messages are the code', async (t) => {
  const end = (rows: ReturnType<typeof table>) => Math.max(...Object.values(rows).map((row) => row.offset + row.size))
  t.equal(end(table('### Frame entry')), FRAME_ENTRY_BYTES)
  const record = table('### Record')
  t.equal(end(record), RECORD_ENTRY_BYTES)
  const types = Object.entries(recordType).map(([kind, number]) => `${number} ${kind.toUpperCase()}`)
  t.equal(record.type?.meaning, types.join(', '))
  t.strictSame(places(table('## Sealed messages')), messageHeaderLayout)
  t.match(
    document,
    `${section.frame} frame, ${section.index} index, ${section.trailer} trailer, ${section.message} message`,
  )
  t.equal(TAG_BYTES, 16)
})

t.test('the writer version is the one of package.json', async (t) => {
  const { version } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'))
  const [major, minor, patch] = String(version).split('.').map(Number) as [number, number, number]
  t.equal(limits.writerVersion, major * 65536 + minor * 256 + patch)
})

t.test('a file of format 1 reads as it always did', async (t) => {
  const { header, records, tag } = decodePart(golden, streamSecret, { expected: sampleHeader })
  t.strictSame(records, sampleRecords)
  t.match(header, sampleHeader)
  t.equal(tag.toString('hex'), golden.subarray(-16).toString('hex'))
  t.equal(keyId(streamSecret).toString('hex'), header.keyId.toString('hex'))
})

t.test('a file of format 2 reads as it always did', async (t) => {
  const file = readFileSync(path.join(root, 'test/fixtures/replication-file/part-v2.tmr'))
  const { header, records } = decodePart(file, streamSecret, { expected: sampleHeader })
  t.strictSame(records, digestRecords)
  t.match(header, { ...sampleHeader, version: 2 })
  const items = [...inspectPart(file, streamSecret)].slice(-2)
  t.match(items, [
    { type: 'digest', volume: 0, offset: 65_536, lengthBytes: 66_048, run: 7, holds: '2 digests' },
    { type: 'digest', volume: 2, holds: 'zeros' },
  ])
})

t.test('what has no digests is still written as format 1, which every agent reads', async (t) => {
  const versionOf = (records: typeof sampleRecords) =>
    peekHeader(encodePart(sampleHeader, records, streamSecret).bytes).version
  t.equal(versionOf(sampleRecords), 1)
  t.equal(versionOf(digestRecords), 2)
})

t.test('the table of the digest payload is the code', async (t) => {
  const rows = table('### Digest payload')
  t.equal(rows.digests, undefined, 'their number is not fixed')
  t.equal(rows.salt!.offset + rows.salt!.size, RANGE_HEADER_BYTES)
  t.equal(rows.salt!.size, RANGE_SALT_BYTES)
  t.match(document, `| ${RANGE_HEADER_BYTES} | ${RANGE_DIGEST_BYTES} * blocks | digests |`)
  t.match(rows.blockBytes!.meaning, RANGE_BLOCK_BYTES.toLocaleString('en-US'))
})

t.test('inspect shows the header without a key, and says what that is worth', async (t) => {
  const items = [...inspectPart(golden)]
  t.equal(items.length, 2)
  t.match(items[0], { item: 'file', generation: 3, epoch: 41, part: '2 of 2', records: 6, initializing: false })
  t.match(formatInspected(items[1]!), /not authenticated/)
})

t.test('inspect shows every record with the key', async (t) => {
  const items = [...inspectPart(golden, streamSecret)]
  t.equal(items.length, 2 + sampleRecords.length)
  const expected = { item: 'record', type: 'write', lsn: '4096', volume: 0, offset: 0, lengthBytes: 1536 }
  t.match(items[3], { ...expected, time: '2023-11-14T22:13:20.500000000Z', crc32c: /^[0-9a-f]{8}$/ })
  t.match(
    formatInspected(items[3]!),
    /^write {2}lsn=4096 time=2023-11-14T22:13:20\.500000000Z volume=0 offset=0 length/,
  )
  t.doesNotThrow(() => JSON.stringify(items))
  const changed = Buffer.from(golden)
  changed[300]! ^= 1
  t.equal(
    codeOf(() => [...inspectPart(changed, streamSecret)]),
    'SEAL_BROKEN',
  )
})
