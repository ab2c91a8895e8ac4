import t from 'tap'
import { copyProgress, planCopy } from '../../src/replication/copy-planner.js'
import { type CutFacts, planCut } from '../../src/replication/cut-planner.js'
import { EPOCH_COPY_LIMIT, EPOCH_JOURNAL_LIMIT } from '../../src/replication/pack-job.js'
import type { CopyCursor, StreamVolume } from '../../src/replication/stream-state.js'

const quiet: CutFacts = {
  nowMs: 10_000,
  openSinceMs: null,
  openBytes: 0,
  epochMs: 1000,
  wanted: false,
  bufferBytes: 0,
  bufferLimitBytes: 100,
}

t.test('an epoch ends by time, by size or because somebody waits', async (t) => {
  t.equal(planCut(quiet), 'wait')
  t.equal(planCut({ ...quiet, openSinceMs: 9_001, openBytes: 1 }), 'wait')
  t.equal(planCut({ ...quiet, openSinceMs: 9_000, openBytes: 1 }), 'cut')
  t.equal(planCut({ ...quiet, openSinceMs: 9_999, openBytes: EPOCH_JOURNAL_LIMIT }), 'cut')
  t.equal(planCut({ ...quiet, wanted: true }), 'cut')
})

t.test('a full buffer holds the cut back and says so', async (t) => {
  t.equal(planCut({ ...quiet, wanted: true, bufferBytes: 100 }), 'buffer-full')
  t.equal(planCut({ ...quiet, bufferBytes: 100 }), 'wait', 'but nothing is due')
})

const volume = (index: number, sizeBytes: number): StreamVolume => ({ index, name: `v${index}`, path: '', sizeBytes })

t.test('a copy walks all volumes once, in pieces no epoch is too small for', async (t) => {
  const volumes = [volume(0, EPOCH_COPY_LIMIT + 512), volume(3, 4096), volume(4, 2 * EPOCH_COPY_LIMIT)]
  const seen = new Map<number, number>()
  let cursor: CopyCursor | null = { slot: 0, offset: 0 }
  while (cursor) {
    const plan = planCopy(volumes, cursor, (_volume, offset) => offset)
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
  const volumes = [volume(0, 100 * mebi), volume(1, 64 * mebi)]
  const plan = planCopy(volumes, { slot: 0, offset: 0 }, ({ index }, offset) =>
    index === 1 ? undefined : Math.max(offset, 90 * mebi),
  )
  t.same(
    plan.pieces.map(({ volume, offset, lengthBytes }) => [volume, offset, lengthBytes]),
    [[0, 90 * mebi, 10 * mebi]],
  )
  t.equal(plan.next, null)
})

t.test('progress counts what lies before the cursor', async (t) => {
  const volumes = [volume(0, 100), volume(1, 50)]
  t.same(copyProgress(volumes, { slot: 1, offset: 10 }), { doneBytes: 110, totalBytes: 150 })
  t.same(copyProgress(volumes, null), { doneBytes: 150, totalBytes: 150 })
})
