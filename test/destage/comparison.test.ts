import { randomBytes } from 'node:crypto'
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { StorageError } from '../../src/block/storage-error.js'
import { KiB, MiB, volumeIndex } from '../../src/block/units.js'
import { compareDigests, type DigestRecord, type Readable } from '../../src/destage/compare-digests.js'
import { addComparison, isWorthSaying } from '../../src/destage/comparison.js'
import { DIFFERING_LIMIT } from '../../src/replication-file/acknowledgement.js'
import { rangeDigest } from '../../src/replication-file/range-digest.js'
import { fewRanges, rangesText } from '../../src/replication-file/volume-range.js'
import { Backing } from '../../src/volume/backing.js'
import { scratchFolder } from '../fixtures/paths.js'
import { newSeed, Random } from '../pool/model/random.js'

const block = 64 * KiB
const salt = randomBytes(16)
const seed = newSeed()
t.comment(`seed ${seed}`)

function digestsOf(content: Buffer, offset = 0, volume = 0): DigestRecord {
  const digests: Buffer[] = []
  for (let at = 0; at < content.length; at += block) digests.push(rangeDigest(salt, content.subarray(at, at + block)))
  const place = { kind: 'digest', volume: volumeIndex(volume), offset, lengthBytes: content.length } as const
  return { ...place, run: 3, salt, digests: Buffer.concat(digests) }
}

const zeros = (offset: number, lengthBytes: number): DigestRecord => ({
  ...{ kind: 'digest', volume: volumeIndex(0), offset, lengthBytes, run: 3, salt, digests: Buffer.alloc(0) },
})

function image(t: Parameters<typeof scratchFolder>[0], sizeBytes: number) {
  const path = join(scratchFolder(t, 'comparison'), 'image')
  const fd = openSync(path, 'w+')
  ftruncateSync(fd, sizeBytes)
  t.teardown(() => closeSync(fd))
  const put = (at: number, bytes: Buffer) => writeSync(fd, bytes, 0, bytes.length, at)
  const compare = (...records: DigestRecord[]) => {
    const backing = new Backing(path, 'read')
    try {
      return compareDigests(records, [{ index: 0, path, sizeBytes, disks: [path] }], new Map([[0, backing]]))
    } finally {
      backing.close()
    }
  }
  return { put, compare }
}

t.test('each single bit that differs is found in its block, and nothing else is', async (t) => {
  const random = new Random(seed)
  const content = randomBytes(5 * MiB + 1536)
  const { put, compare } = image(t, 8 * MiB)
  put(MiB, content)
  const all = digestsOf(content, MiB)
  t.match(compare(all), { run: 3, comparedBytes: content.length, differingBytes: 0, differing: [] })
  for (let round = 0; round < 40; round++) {
    const at = round === 0 ? content.length - 1 : random.below(content.length)
    const wrong = Buffer.of(content[at]! ^ (1 << random.below(8)))
    put(MiB + at, wrong)
    const offset = at - (at % block)
    const lengthBytes = Math.min(block, content.length - offset)
    t.match(compare(all), {
      differingBytes: lengthBytes,
      differing: [{ volume: 0, offset: MiB + offset, lengthBytes }],
    })
    put(MiB + at, content.subarray(at, at + 1))
  }
})

t.test('what shall be zeros is found where it is not, holes and all', async (t) => {
  const { put, compare } = image(t, 64 * MiB)
  t.match(compare(zeros(0, 64 * MiB)), { comparedBytes: 64 * MiB, differing: [] })
  put(3 * MiB, Buffer.alloc(MiB))
  t.match(compare(zeros(0, 64 * MiB)), { differing: [] }, 'zeros that take room')
  put(40 * MiB + 777, Buffer.of(1))
  put(64 * MiB - 1, Buffer.of(1))
  t.same(compare(zeros(512, 64 * MiB - 512))!.differing, [
    { volume: 0, offset: 40 * MiB + 512, lengthBytes: block },
    { volume: 0, offset: 64 * MiB - block + 512, lengthBytes: block - 512 },
  ])
})

t.test('neighbours are one range, and what cannot be read differs without an end to the rest', async (t) => {
  const content = randomBytes(8 * block)
  const broken: Readable = {
    nextData: (offset) => offset,
    read: (offset, into) => {
      const end = offset + into.length
      if (offset < 4 * block && end > 2 * block) {
        throw new StorageError('BACKING_UNAVAILABLE', { op: 'read', object: 'disk', retry: 'later', hint: '-' })
      }
      content.copy(into, 0, offset, end)
    },
  }
  const result = compareDigests([digestsOf(content)], [], new Map([[0, broken]]))
  t.same(result, {
    ...{ run: 3, comparedBytes: 8 * block, differingBytes: 2 * block },
    differing: [{ volume: 0, offset: 2 * block, lengthBytes: 2 * block }],
  })
  t.equal(compareDigests([], [], new Map()), null)
})

t.test('what is known of a run grows with each epoch, and a new run begins anew', async (t) => {
  const one = { run: 1, comparedBytes: 10, differingBytes: 4, differing: [{ volume: 0, offset: 8, lengthBytes: 4 }] }
  const two = { run: 1, comparedBytes: 5, differingBytes: 4, differing: [{ volume: 0, offset: 0, lengthBytes: 4 }] }
  const both = addComparison(addComparison(null, one), two)
  t.match(both, { comparedBytes: 15, differingBytes: 8, differing: [{ offset: 0 }, { offset: 8 }] })
  const next = { ...two, run: 2 }
  t.same(addComparison(both, next), next)
  t.ok(isWorthSaying(null, one))
  t.notOk(isWorthSaying(null, { ...one, differing: [] }))
  const much = Array.from({ length: 70 }, (_, at) => ({ volume: 0, offset: at * 8, lengthBytes: 4 }))
  t.notOk(isWorthSaying({ ...one, differing: much }, one), 'enough was said')
})

t.test('however much differs, as many ranges as there may be name all of it', async (t) => {
  const random = new Random(seed + 1)
  for (let round = 0; round < 50; round++) {
    const limit = random.between(4, DIFFERING_LIMIT)
    const ranges = Array.from({ length: random.between(1, 600) }, () => ({
      ...{ volume: random.below(4), offset: random.below(10_000) * 512, lengthBytes: random.between(1, 40) * 512 },
    }))
    const few = fewRanges(ranges, limit)
    t.ok(few.length <= limit, `${few.length} of ${limit}`)
    t.ok(
      ranges.every(({ volume, offset, lengthBytes }) =>
        few.some(
          (one) =>
            one.volume === volume && one.offset <= offset && offset + lengthBytes <= one.offset + one.lengthBytes,
        ),
      ),
      'all are in them',
    )
    const apart = few.every((one, at) => {
      const next = few[at + 1]
      return next?.volume !== one.volume || next.offset > one.offset + one.lengthBytes
    })
    t.ok(apart, 'in order, none touching another')
  }
  t.equal(
    rangesText([{ volume: 1, offset: 512, lengthBytes: 1024 }], [{ index: 1, name: 'log' }]),
    'log at byte 512, 1024 long',
  )
  t.match(
    rangesText(
      Array.from({ length: 12 }, () => ({ volume: 0, offset: 0, lengthBytes: 1 })),
      [],
    ),
    /; and 4 more$/,
  )
})
