import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import t from 'tap'
import { lsn } from '../../src/block/units.js'
import { inspectSegment } from '../../src/journal/inspect.js'
import { recoverJournal } from '../../src/journal/recovery.js'
import { journalId, segmentBytes, segmentFile } from '../fixtures/journal/segment-writer.js'
import { repositoryRoot, scratchFolder } from '../fixtures/paths.js'

const golden = gunzipSync(readFileSync(join(repositoryRoot, 'test/fixtures/journal/golden-v1.seg.gz')))

/** What make-golden.cc wrote. */
const expected = [
  { type: 'write', volume: 0, offset: 0, lengthBytes: 512 },
  { type: 'write', volume: 3, offset: 1 << 20, lengthBytes: 4096 },
  { type: 'zero', volume: 1, offset: 512, lengthBytes: 2 ** 33 },
  { type: 'trim', volume: 2, offset: 65536, lengthBytes: 131072 },
  { type: 'write', volume: 5, offset: 4096, lengthBytes: 20000 },
]

t.test('the golden segment of native code is recovered, its open record made VOID', async (t) => {
  const directory = scratchFolder(t, 'golden')
  writeFileSync(segmentFile(directory, 0), golden)
  const found: unknown[] = []
  const recovered = recoverJournal({
    directory,
    journalId,
    segmentBytes,
    checkpointLsn: lsn(0n),
    incarnation: 8,
    afterPowerCut: false,
    apply: (record) => {
      if (record.type === 'marker') throw new Error('markers are not applied')
      found.push({
        type: record.type,
        volume: record.volume,
        offset: record.offset,
        lengthBytes: record.lengthBytes,
      })
      if (record.type === 'write') t.ok(record.payload.every((byte, at) => byte === at % 251))
    },
  })
  t.strictSame(found, expected)
  t.equal(recovered.records, 6)
  t.equal(recovered.voids, 1)
})

t.test('the golden segment is inspected record by record', async (t) => {
  const directory = scratchFolder(t, 'golden')
  const file = join(directory, 'anything')
  writeFileSync(file, golden)
  const items = [...inspectSegment(file)]
  t.match(items[0], { kind: 'segment', baseLsn: '0', journalId: journalId.toString('hex'), segmentBytes })
  t.strictSame(
    items.slice(1, -1).map((item) => item.kind === 'record' && [item.lsn, item.type, item.state]),
    [
      ['4096', 'write', 'complete'],
      ['4672', 'write', 'complete'],
      ['8832', 'zero', 'complete'],
      ['8896', 'trim', 'complete'],
      ['8960', 'marker', 'complete'],
      ['9088', 'write', 'reserved'],
      ['10688', 'write', 'complete'],
    ],
  )
  t.match(items.at(-1), { kind: 'end', lsn: '30784', reason: 'nothing was written here' })
  for (const item of items) t.type(JSON.stringify(item), 'string')
  t.match(items[2]?.text, /4672 {2}20\d\d-.*Z {2}WRITE {3}volume 3 {2}offset 1048576 {2}length 4096 {2}crc [0-9a-f]{8}/)
})
