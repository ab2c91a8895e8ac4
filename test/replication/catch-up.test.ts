import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { lsn, MiB } from '../../src/block/units.js'
import type { Intercept } from '../../src/intercept/addon.js'
import { RegionMap } from '../../src/journal/region-map.js'
import { Backoff } from '../../src/replication/backoff.js'
import { CatchUp, planRegions } from '../../src/replication/catch-up.js'
import { planCut } from '../../src/replication/cut-planner.js'
import { recordAgainDelays } from '../../src/replication/mapping-stream.js'
import { EPOCH_COPY_LIMIT } from '../../src/replication/pack-job.js'
import { RegionKeeper } from '../../src/replication/region-keeper.js'
import { type CopyCursor, isGathering, newPosition, StreamState } from '../../src/replication/stream-state.js'
import { MemoryStore } from '../fixtures/memory-store.js'
import { scratchFolder } from '../fixtures/paths.js'

const volumeBytes = [100 * MiB, 50 * MiB + 512]
const layout = { regionBytes: MiB, volumeBytes }
const sources = volumeBytes.map((sizeBytes, index) => ({
  index,
  path: `v${index}`,
  sizeBytes,
}))

function keeper(directory: string): RegionKeeper {
  return new RegionKeeper({
    path: join(directory, 'regions'),
    catchUpPath: join(directory, 'catch-up'),
    regionBytes: MiB,
    limitBytes: 100 * MiB,
    streamId: Buffer.alloc(16, 1),
    volumeBytes,
    intercept: {} as Intercept,
    onLimit: () => {},
    onFailed: () => {},
    onDamage: () => {},
  })
}

t.test('a catch-up reads exactly its regions, once, in pieces that fit an epoch', async (t) => {
  const map = new RegionMap(layout)
  map.add(0, 3 * MiB, 1)
  map.add(0, 10 * MiB, 70 * MiB)
  map.add(1, 50 * MiB, 512)
  const read = new RegionMap({ ...layout, regionBytes: 512 })
  let cursor: CopyCursor | null = { slot: 0, offset: 0 }
  let epochs = 0
  let bytes = 0
  while (cursor) {
    const plan: ReturnType<typeof planRegions> = planRegions(sources, cursor, map)
    const size = plan.pieces.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)
    t.ok(size > 0 && size <= EPOCH_COPY_LIMIT)
    for (const { volume, offset, lengthBytes } of plan.pieces) read.add(volume, offset, lengthBytes)
    bytes += size
    epochs += 1
    cursor = plan.next
  }
  t.equal(bytes, map.bytes(), 'nothing twice')
  t.strictSame([...read.runs()], [...map.runs()])
  t.equal(epochs, 3)
})

t.test('a catch-up takes over what an initialisation has not read, and all of a catch-up under way', async (t) => {
  const directory = scratchFolder(t, 'catch-up')
  const state = new StreamState(new MemoryStore(), 's')
  const catchUp = new CatchUp(keeper(directory))
  await state.move({ ...newPosition, phase: 'running', copy: { slot: 0, offset: 95 * MiB } })
  const first = new RegionMap(layout)
  first.add(0, 7 * MiB, 1)
  await catchUp.begin(state, { regions: first, reason: 'once', afterLsn: lsn(9n) }, { cutLsn: '7' })
  t.match(state.position, {
    cutLsn: '7',
    copy: { slot: 0, offset: 0 },
    catchUp: { reason: 'once', totalBytes: (1 + 5 + 50) * MiB + 512, untilEpoch: 0, afterLsn: '9' },
  })
  await state.move({ copy: { slot: 1, offset: 4 * MiB } })
  t.equal(catchUp.doneBytes({ slot: 1, offset: 4 * MiB }), (1 + 5 + 4) * MiB)
  const second = new RegionMap(layout)
  second.add(0, 20 * MiB, 1)
  const again = new CatchUp(keeper(directory))
  t.ok(await again.load(state.position))
  await again.begin(state, { regions: second, reason: 'twice', afterLsn: lsn(9n) })
  t.match(state.position.catchUp, { reason: 'twice', totalBytes: (2 + 5 + 50) * MiB + 512 })
  const { pieces } = again.plan(sources, state.position.copy!)!
  t.match(pieces[0], { volume: 0, offset: 7 * MiB, lengthBytes: MiB })
  t.match(pieces[1], { volume: 0, offset: 20 * MiB, lengthBytes: MiB })
})

t.test('the map of a catch-up that is lost is told', async (t) => {
  const catchUp = new CatchUp(keeper(scratchFolder(t, 'catch-up')))
  const lost = { ...newPosition, copy: { slot: 0, offset: 0 }, catchUp: { reason: '', totalBytes: 1, untilEpoch: 0 } }
  t.notOk(await catchUp.load(lost))
  t.ok(await catchUp.load({ ...lost, copy: null }), 'all was read: it is not needed')
  t.ok(await catchUp.load({ ...lost, catchUp: null }), 'an initialisation has none')
})

t.test('a catch-up is never shown in two steps, however full the source buffer', async (t) => {
  const position = {
    ...newPosition,
    consistentEpoch: 1,
    stateEpoch: 9,
    cutEpoch: 12,
    appliedEpoch: 9,
    cutLsn: '5000',
    copyEndLsn: '4000',
    catchUp: { reason: '', totalBytes: 1, untilEpoch: 0 },
  }
  const quiet = { nowMs: 0, openSinceMs: null, openBytes: 0, epochMs: 1000, flushing: false }
  const full = { ...quiet, bufferBytes: 100, bufferLimitBytes: 100, journalLimitBytes: 1e9 }
  const copy = { slot: 0, offset: 1 }
  t.equal(planCut({ ...full, position: { ...position, copy } }), 'buffer-full')
  t.equal(planCut({ ...full, bufferBytes: 0, position: { ...position, copy } }), 'cut')
  t.equal(planCut({ ...full, position: { ...position, copyEndLsn: '6000' } }), 'buffer-full')
  t.equal(planCut({ ...full, position }), 'cut', 'its end is cut whatever the buffer holds')
  t.ok(isGathering(position))
  t.ok(isGathering({ ...position, catchUp: { ...position.catchUp, untilEpoch: 12 } }))
  t.notOk(isGathering({ appliedEpoch: 12, catchUp: { ...position.catchUp, untilEpoch: 12 } }))
})

t.test('a journal that gives in again and again is tried ever more rarely', async (t) => {
  const backoff = new Backoff(recordAgainDelays)
  const delays = [0, 10_000, 20_000, 30_000].map((nowMs) => backoff.next(nowMs))
  t.strictSame(delays, [1000, 2000, 4000, 8000])
  for (let nowMs = 40_000; nowMs < 300_000; nowMs += 10_000) t.ok(backoff.next(nowMs) <= 300_000)
  t.equal(backoff.next(3_000_000), 1000, 'after a calm time as at first')
})

t.test('the start of a stream that was made without a record begins one with all regions', async (t) => {
  const directory = scratchFolder(t, 'catch-up')
  const regions = keeper(directory)
  t.equal(await regions.load(), undefined)
  t.equal(regions.everything().bytes(), 150 * MiB + 512)
  await regions.saveCatchUp(regions.everything())
  t.equal((await regions.loadCatchUp())?.bytes(), 150 * MiB + 512)
  t.ok(readFileSync(join(directory, 'catch-up')).length > 4096)
})
