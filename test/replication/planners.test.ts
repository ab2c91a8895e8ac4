import t from 'tap'
import { copyProgress, planCopy } from '../../src/replication/copy-planner.js'
import { type CutFacts, GROUP_EPOCH_LIMIT, planCut } from '../../src/replication/cut-planner.js'
import { EPOCH_COPY_LIMIT, EPOCH_JOURNAL_LIMIT } from '../../src/replication/pack-job.js'
import { type CopyCursor, newPosition, type StreamPosition } from '../../src/replication/stream-state.js'
import type { SparseVolume } from '../../src/replication/volume-file.js'

const quiet: CutFacts = {
  nowMs: 10_000,
  openSinceMs: null,
  openBytes: 0,
  epochMs: 1000,
  flushing: false,
  bufferBytes: 0,
  bufferLimitBytes: 100,
  journalLimitBytes: 4 * EPOCH_JOURNAL_LIMIT,
  position: { ...newPosition, consistentEpoch: 3, stateEpoch: 9, cutEpoch: 9, appliedEpoch: 8, cutLsn: '5000' },
}
const at = (facts: Partial<CutFacts>, position: Partial<StreamPosition>): CutFacts => ({
  ...quiet,
  ...facts,
  position: { ...quiet.position, ...position },
})

t.test('an epoch ends by time, by size or because somebody waits', async (t) => {
  t.equal(planCut(quiet), 'wait')
  t.equal(planCut({ ...quiet, openSinceMs: 9_001, openBytes: 1 }), 'wait')
  t.equal(planCut({ ...quiet, openSinceMs: 9_000, openBytes: 1 }), 'cut')
  t.equal(planCut({ ...quiet, openSinceMs: 9_999, openBytes: EPOCH_JOURNAL_LIMIT }), 'cut')
  t.equal(planCut({ ...quiet, flushing: true }), 'cut')
  t.equal(planCut(at({}, { copy: { slot: 0, offset: 0 } })), 'cut', 'there is more to copy')
  t.equal(planCut(at({}, { consistentEpoch: 0 })), 'cut', 'the far side is not consistent yet')
})

t.test('a full buffer holds the cut back and says so', async (t) => {
  t.equal(planCut({ ...quiet, flushing: true, bufferBytes: 100 }), 'buffer-full')
  t.equal(planCut({ ...quiet, bufferBytes: 100 }), 'wait', 'but nothing is due')
})

t.test(
  'from half the buffer on epochs end by size, so that neighbours fold into one, or because somebody waits',
  async (t) => {
    const open = { openSinceMs: 1, openBytes: EPOCH_JOURNAL_LIMIT - 1 }
    t.equal(planCut({ ...quiet, ...open, bufferBytes: 49 }), 'cut')
    t.equal(planCut({ ...quiet, ...open, bufferBytes: 50 }), 'wait')
    t.equal(planCut({ ...quiet, ...open, bufferBytes: 50, openBytes: EPOCH_JOURNAL_LIMIT }), 'cut')
    t.equal(planCut({ ...quiet, ...open, bufferBytes: 50, journalLimitBytes: 1 << 20, openBytes: 1 << 18 }), 'cut')
    t.equal(planCut({ ...quiet, ...open, bufferBytes: 50, flushing: true }), 'cut')
    t.equal(planCut({ ...quiet, ...open, bufferBytes: 100 }), 'buffer-full', 'a full one is said to be full')
  },
)

t.test('while an epoch is held only size ends one, and no flush does', async (t) => {
  const open = { openSinceMs: 1, openBytes: EPOCH_JOURNAL_LIMIT - 1, flushing: true }
  t.equal(planCut(at(open, {})), 'cut')
  t.equal(planCut(at(open, { held: true })), 'wait')
  t.equal(planCut(at({ openBytes: EPOCH_JOURNAL_LIMIT }, { held: true })), 'cut')
  t.equal(planCut(at({}, { held: true, copy: { slot: 0, offset: 0 } })), 'cut', 'an initialisation goes on')
})

t.test('what belongs together is closed at once when the hold is over, whatever the buffer holds', async (t) => {
  const open = { cutEpoch: 12, copyEndLsn: '5000' }
  t.equal(planCut(at({ bufferBytes: 100 }, open)), 'cut', 'even without anything to write in it')
  t.equal(planCut(at({}, { ...open, copyEndLsn: '5001' })), 'cut')
  t.equal(planCut(at({ bufferBytes: 100 }, { ...open, copyEndLsn: '5001' })), 'buffer-full', 'earlier ones make room')
  t.equal(planCut(at({}, { ...open, held: true })), 'wait')
})

t.test('what belongs together and does not fit is let go, when nothing else can make room', async (t) => {
  const full = { openBytes: EPOCH_JOURNAL_LIMIT, bufferBytes: 100 }
  t.equal(planCut(at(full, { held: true, cutEpoch: 12, appliedEpoch: 8 })), 'buffer-full', 'epoch 9 is not applied')
  t.equal(planCut(at(full, { held: true, cutEpoch: 12, appliedEpoch: 9 })), 'let-go')
  t.equal(planCut(at(full, { cutEpoch: 12, appliedEpoch: 9, copyEndLsn: '5001' })), 'let-go')
  t.equal(planCut(at(full, { held: true, appliedEpoch: 9 })), 'buffer-full', 'none of it is cut yet')
  const many = { held: true, cutEpoch: 9 + GROUP_EPOCH_LIMIT }
  t.equal(planCut(at({ openBytes: EPOCH_JOURNAL_LIMIT }, many)), 'let-go')
})

const volume = (index: number, sizeBytes: number, nextData: SparseVolume['nextData'] = (offset) => offset) => ({
  index,
  path: '',
  sizeBytes,
  nextData,
})

t.test('a copy walks all volumes once, in pieces no epoch is too small for', async (t) => {
  const volumes = [volume(0, EPOCH_COPY_LIMIT + 512), volume(3, 4096), volume(4, 2 * EPOCH_COPY_LIMIT)]
  const seen = new Map<number, number>()
  let cursor: CopyCursor | null = { slot: 0, offset: 0 }
  while (cursor) {
    const plan: ReturnType<typeof planCopy> = planCopy(volumes, cursor)
    const bytes = plan.pieces.reduce((sum, piece) => sum + piece.lengthBytes, 0)
    t.ok(bytes > 0 && bytes <= EPOCH_COPY_LIMIT)
    for (const piece of plan.pieces) {
      t.equal(piece.offset, seen.get(piece.volume) ?? 0, 'without a gap')
      seen.set(piece.volume, piece.offset + piece.lengthBytes)
    }
    cursor = plan.next
  }
  t.same(
    [...seen],
    [
      [0, EPOCH_COPY_LIMIT + 512],
      [3, 4096],
      [4, 2 * EPOCH_COPY_LIMIT],
    ],
  )
})

t.test('holes are skipped, and an empty volume is nothing to read', async (t) => {
  const mebi = 1024 * 1024
  const volumes = [
    volume(0, 100 * mebi, (offset) => Math.max(offset, 90 * mebi)),
    volume(1, 64 * mebi, () => undefined),
  ]
  const plan = planCopy(volumes, { slot: 0, offset: 0 })
  t.same(
    plan.pieces.map(({ volume, offset, lengthBytes }) => [volume, offset, lengthBytes]),
    [[0, 90 * mebi, 10 * mebi]],
  )
  t.equal(plan.next, null)
})

t.test('an epoch reads from many places that lie far apart, not one place and the holes behind it', async (t) => {
  const gibi = 1024 ** 3
  // 64 KiB of data each 128 MiB, as a fresh file system has them.
  const every = 128 * 1024 * 1024
  const next = (offset: number): number | undefined => {
    const place = Math.floor(offset / every) * every
    return offset < place + 65536 ? offset : place + every
  }
  const plan = planCopy([volume(0, 300 * gibi, next)], { slot: 0, offset: 0 })
  t.equal(plan.pieces.length, 32)
  t.ok(plan.pieces.every(({ offset, lengthBytes }) => offset % every === 0 && lengthBytes === 1024 * 1024))
})

t.test('progress counts what lies before the cursor', async (t) => {
  const volumes = [100, 50].map((sizeBytes, index) => ({ index, name: `v${index}`, sizeBytes }))
  t.same(copyProgress(volumes, { slot: 1, offset: 10 }), { doneBytes: 110, totalBytes: 150 })
  t.same(copyProgress(volumes, null), { doneBytes: 150, totalBytes: 150 })
})
