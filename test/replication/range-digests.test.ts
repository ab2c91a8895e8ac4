import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { KiB, lsn, MiB } from '../../src/block/units.js'
import { type DigestPiece, EPOCH_COPY_LIMIT, type PackJob } from '../../src/replication/pack-job.js'
import { digestPieces, digestRecords } from '../../src/replication/range-digests.js'
import { rangeDigest } from '../../src/replication-file/range-digest.js'
import { bytesOf, journalId, SegmentWriter, segmentBytes } from '../fixtures/journal/segment-writer.js'
import { scratchFolder } from '../fixtures/paths.js'

const block = 64 * KiB
const salt = randomBytes(16)

/** An epoch that ends at `end`, with digests made until `after`. */
function jobOf(directory: string, pieces: readonly DigestPiece[], after: number): PackJob {
  const made = digestPieces({ salt, pieces })
  const digests = { salt, pieces, run: 5, made, after: lsn(BigInt(after)) }
  return { journal: { directory, id: journalId, segmentBytes }, digests } as unknown as PackJob
}

const memory = () => Buffer.allocUnsafeSlow(EPOCH_COPY_LIMIT)

t.test(
  'blocks that hosts wrote between the end of the epoch and the last read are left out, and no others',
  async (t) => {
    const directory = scratchFolder(t, 'digests')
    const path = join(directory, 'volume')
    const content = randomBytes(10 * block + 512)
    writeFileSync(path, content)
    const writer = new SegmentWriter()
    writer.write(bytesOf(4096), { volume: 1, offset: 0 })
    const end = writer.end
    writer.write(bytesOf(8192), { volume: 1, offset: 2 * block - 4096 })
    writer.append({ type: 3, volume: 1, offset: 5 * block, length: block })
    writer.append({ type: 2, volume: 1, offset: 20 * block + 512, length: 512 })
    writer.write(bytesOf(4096), { volume: 2, offset: 4 * block })
    const after = writer.end
    writer.write(bytesOf(4096), { volume: 1, offset: 8 * block })
    writer.flush(directory)
    const pieces = [
      { volume: 1, path, offset: 0, lengthBytes: content.length, isHole: false },
      { volume: 1, path, offset: 16 * block, lengthBytes: 64 * MiB, isHole: true },
    ]
    const job = jobOf(directory, pieces, after)
    const { records, digestedBytes, busy } = digestRecords(job, lsn(BigInt(end)), true, memory)
    t.same(
      busy,
      [
        { volume: 1, offset: block, lengthBytes: 2 * block },
        { volume: 1, offset: 5 * block, lengthBytes: block },
        { volume: 1, offset: 20 * block, lengthBytes: block },
      ].map((range) => range),
    )
    const data = [
      { offset: 0, lengthBytes: block },
      { offset: 3 * block, lengthBytes: 2 * block },
      { offset: 6 * block, lengthBytes: 4 * block + 512 },
    ]
    const zeros = [
      { offset: 16 * block, lengthBytes: 4 * block },
      { offset: 21 * block, lengthBytes: 64 * MiB - 5 * block },
    ]
    t.match(
      records,
      [...data, ...zeros].map((range) => ({ kind: 'digest', volume: 1, run: 5, ...range })),
    )
    for (const [at, { offset, lengthBytes }] of data.entries()) {
      const expected: Buffer[] = []
      for (let from = offset; from < offset + lengthBytes; from += block) {
        expected.push(rangeDigest(salt, content.subarray(from, Math.min(from + block, offset + lengthBytes))))
      }
      const record = records[at]
      t.ok(record?.kind === 'digest' && record.digests.equals(Buffer.concat(expected)), `digests from ${offset} on`)
    }
    t.ok(records.slice(3).every((record) => record.kind === 'digest' && record.digests.length === 0))
    const all = [...data, ...zeros].reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)
    t.equal(digestedBytes, all)
  },
)

t.test('an epoch that is no state has no digests: all of it is taken again', async (t) => {
  const directory = scratchFolder(t, 'digests')
  const path = join(directory, 'volume')
  writeFileSync(path, randomBytes(block))
  const pieces = [
    { volume: 0, path, offset: 0, lengthBytes: block, isHole: false },
    { volume: 0, path, offset: block, lengthBytes: MiB, isHole: true },
  ]
  const made = digestRecords(jobOf(directory, pieces, 4096), lsn(4096n), false, memory)
  t.match(made, { records: [], digestedBytes: 0, busy: [{ offset: 0 }, { offset: block, lengthBytes: MiB }] })
  const none = digestRecords({ digests: null } as PackJob, lsn(4096n), true, memory)
  t.same(none, { records: [], digestedBytes: 0, busy: [] })
})
