import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { crc32c } from '../../src/block/crc32c.js'
import {
  MARKER_PAYLOAD_LIMIT_BYTES,
  RECORD_HEADER_BYTES,
  RECORD_MAGIC,
  recordFields,
  recordPlace,
  recordSpace,
  recordType,
  SEGMENT_HEADER_BYTES,
  SEGMENT_MAGIC,
  SEGMENT_VERSION,
  segmentFields,
} from '../../src/journal/format.js'
import { checksumWords } from '../../src/journal/header-checksum.js'
import { repositoryRoot } from '../fixtures/paths.js'

const read = (file: string) => readFileSync(join(repositoryRoot, file), 'utf8')
const document = read('src/journal/FORMAT.md')
const native = read('native/journal/journal_format.h')

/** The named rows of the table under a heading, as { field: { offset, size } }. */
function table(heading: string): Record<string, { offset: number; size: number }> {
  const section = document.slice(document.indexOf(`## ${heading}`)).slice(3)
  const rows = section.slice(0, section.indexOf('\n## ')).matchAll(/^\| (\d+) \| (\d+) \| (\w+) \|/gm)
  return Object.fromEntries([...rows].map(([, offset, size, field]) => [field, { offset: +offset!, size: +size! }]))
}

t.test('the tables of FORMAT.md are the fields of the code', async (t) => {
  t.strictSame(table('Segment header'), segmentFields)
  t.strictSame(table('Record'), recordFields)
})

t.test('the names and numbers of FORMAT.md are those of the code', async (t) => {
  const types = /type \| ([^|]+) \|/.exec(document)![1]!.matchAll(/(\d) ([A-Z]+)/g)
  t.strictSame(Object.fromEntries([...types].map(([, number, name]) => [name!.toLowerCase(), +number!])), recordType)
  t.match(document, `| magic | \`${SEGMENT_MAGIC}\` |`)
  t.match(document, `| magic | \`${RECORD_MAGIC}\` |`)
  t.match(document, `| version | ${SEGMENT_VERSION} |`)
  t.match(document, `| headerLength | ${SEGMENT_HEADER_BYTES} |`)
  t.match(document, `## Record (${RECORD_HEADER_BYTES}-byte header`)
  t.match(document, `${MARKER_PAYLOAD_LIMIT_BYTES / 1024} KiB at the most`)
})

t.test('native code has the same fields and numbers', async (t) => {
  for (const [name, fields] of Object.entries({ SegmentHeader: segmentFields, RecordHeader: recordFields })) {
    const struct = native.slice(native.indexOf(`struct ${name} {`))
    const sizes: Record<string, number> = { uint8_t: 1, uint16_t: 2, uint32_t: 4, uint64_t: 8, JournalId: 16 }
    let offset = 0
    const found: Record<string, { offset: number; size: number }> = {}
    for (const [, type, field] of struct.slice(0, struct.indexOf('};')).matchAll(/^ {2}(\w+) (\w+);/gm)) {
      found[field!] = { offset, size: sizes[type!]! }
      offset += sizes[type!]!
    }
    delete found.zero
    t.strictSame(found, fields)
  }
  const magicOf = (text: string) => `0x${Buffer.from(text).readUInt32LE().toString(16)}`
  t.match(native, `kSegmentMagic = ${magicOf(SEGMENT_MAGIC)}`)
  t.match(native, `kRecordMagic = ${magicOf(RECORD_MAGIC)}`)
  for (const [name, number] of Object.entries(recordType)) t.match(native.toLowerCase(), `k${name} = ${number}`)
})

t.test('space is whole 64 bytes, and no record begins in a segment header', async (t) => {
  t.strictSame(
    [0, 1, 64, 65, 4096].map((bytes) => recordSpace(bytes)),
    [64, 128, 128, 192, 4160],
  )
  t.equal(recordPlace(0, 1 << 20), 4096)
  t.equal(recordPlace(1 << 20, 1 << 20), (1 << 20) + 4096)
  t.equal(recordPlace(4160, 1 << 20), 4160)
})

t.test('the checksum of headers is the CRC-32C of everything else', async (t) => {
  const words = Uint32Array.from({ length: 14 }, (_, index) => (index * 0x9e3779b9) >>> 0)
  const bytes = Buffer.from(words.buffer)
  for (const previous of [0, 1, 0xffffffff, crc32c(Buffer.from('seed'))]) {
    t.equal(checksumWords(words, 0, 14, previous), crc32c(bytes, previous))
    t.equal(checksumWords(words, 12, 2, checksumWords(words, 0, 12, previous)), crc32c(bytes, previous))
  }
  t.equal(checksumWords(words, 0, 0, 5), 5)
})
