import { randomInt } from 'node:crypto'
import t from 'tap'
import { type Fold, foldEpoch } from '../../src/replication/fold.js'
import { type FoldInput, foldKind } from '../../src/replication/fold-input.js'

type Row = { kind: number; volume: number; offset: number; lengthBytes: number }

function columns(rows: readonly Row[]): FoldInput {
  return {
    count: rows.length,
    kind: Uint8Array.from(rows, (row) => row.kind),
    volume: Uint16Array.from(rows, (row) => row.volume),
    offset: Float64Array.from(rows, (row) => row.offset),
    lengthBytes: Float64Array.from(rows, (row) => row.lengthBytes),
  }
}

function rowsOf(fold: Fold) {
  return fold.volumes.flatMap((volume) =>
    Array.from({ length: volume.count }, (_, at) => ({
      kind: volume.kind[at]!,
      volume: volume.volume as number,
      offset: volume.offset[at]!,
      lengthBytes: volume.lengthBytes[at]!,
      record: volume.record[at]!,
      payloadOffset: volume.payloadOffset[at]!,
    })),
  )
}

const write = (offset: number, lengthBytes: number, volume = 0): Row => ({
  kind: foldKind.write,
  volume,
  offset,
  lengthBytes,
})

/** mulberry32: small, and the same for the same seed everywhere. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed >>> 0
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

t.test('an epoch of nothing folds to nothing', async (t) => {
  t.same(foldEpoch(columns([])), { volumes: [], rawBytes: 0, foldedBytes: 0 })
})

t.test('1,000 rewrites of one block are one extent of the last', async (t) => {
  const fold = foldEpoch(columns(Array.from({ length: 1000 }, () => write(8192, 4096))))
  t.same(rowsOf(fold), [{ ...write(8192, 4096), record: 999, payloadOffset: 0 }])
  t.equal(fold.rawBytes, 4_096_000)
  t.equal(fold.foldedBytes, 4_091_904)
})

t.test('a write in the middle of an older one leaves its two ends', async (t) => {
  t.same(rowsOf(foldEpoch(columns([write(0, 4096), write(1024, 512)]))), [
    { ...write(0, 1024), record: 0, payloadOffset: 0 },
    { ...write(1024, 512), record: 1, payloadOffset: 0 },
    { ...write(1536, 2560), record: 0, payloadOffset: 1536 },
  ])
})

t.test('an older write under the middle of a newer one is gone and does not split it', async (t) => {
  const rows = rowsOf(foldEpoch(columns([write(1024, 512), write(0, 4096)])))
  t.same(rows, [{ ...write(0, 4096), record: 1, payloadOffset: 0 }])
})

t.test('neighbouring trims become one extent, a trim and a zero stay two', async (t) => {
  const trim = (offset: number, lengthBytes: number): Row => ({ ...write(offset, lengthBytes), kind: foldKind.trim })
  const zero = { ...write(8192, 512), kind: foldKind.zero }
  const fold = foldEpoch(columns([trim(4096, 4096), zero, trim(0, 4096)]))
  t.same(rowsOf(fold), [
    { ...trim(0, 8192), record: 2, payloadOffset: 0 },
    { ...zero, record: 1, payloadOffset: 0 },
  ])
  t.equal(fold.rawBytes, 0)
})

t.test('records that cover no bytes are ignored', async (t) => {
  const marker = { kind: 4, volume: 0xffff, offset: 0, lengthBytes: 17 }
  t.same(rowsOf(foldEpoch(columns([marker, write(512, 512), marker]))), [
    { ...write(512, 512), record: 1, payloadOffset: 0 },
  ])
})

t.test('offsets near the end of what a number holds stay exact', async (t) => {
  const far = 2 ** 53 - 8192
  t.same(rowsOf(foldEpoch(columns([write(far, 4096), write(0, 512), write(far + 512, 512)]))), [
    { ...write(0, 512), record: 1, payloadOffset: 0 },
    { ...write(far, 512), record: 0, payloadOffset: 0 },
    { ...write(far + 512, 512), record: 2, payloadOffset: 0 },
    { ...write(far + 1024, 3072), record: 0, payloadOffset: 1024 },
  ])
})

t.test('every sector ends as in a plain array of sectors', async (t) => {
  const seed = Number(process.env.SEED ?? randomInt(2 ** 31))
  t.comment(`seed ${seed}`)
  const random = randomFrom(seed)
  for (let round = 0; round < 4000; round += 1) {
    const sectors = 1 + random(200)
    const rows: Row[] = Array.from({ length: 1 + random(60) }, () => {
      const start = random(sectors)
      const length = 1 + random(Math.min(sectors - start, 1 + random(40)))
      return { kind: 1 + random(4), volume: random(3) * 300, offset: start * 512, lengthBytes: length * 512 }
    })
    const fault = compareWithModel(rows, foldEpoch(columns(rows)))
    if (fault) {
      t.fail(`round ${round} of seed ${seed}: ${fault}`, { rows })
      return
    }
  }
  t.pass('4,000 epochs')
})

function compareWithModel(rows: readonly Row[], fold: Fold): string | undefined {
  const model = new Map<string, number>()
  let rawBytes = 0
  rows.forEach((row, index) => {
    if (row.kind > 3) return
    if (row.kind === foldKind.write) rawBytes += row.lengthBytes
    for (let at = 0; at < row.lengthBytes; at += 512) model.set(`${row.volume}:${row.offset + at}`, index)
  })
  let keptBytes = 0
  let before: Row | undefined
  for (const extent of rowsOf(fold)) {
    if (before && before.volume > extent.volume) return 'volumes out of order'
    if (before?.volume === extent.volume) {
      const end = before.offset + before.lengthBytes
      if (end > extent.offset) return 'extents overlap or are out of order'
      if (end === extent.offset && before.kind === extent.kind && extent.kind !== foldKind.write) return 'not merged'
    }
    before = extent
    if (extent.kind === foldKind.write) keptBytes += extent.lengthBytes
    let newest = -1
    for (let at = 0; at < extent.lengthBytes; at += 512) {
      const key = `${extent.volume}:${extent.offset + at}`
      const winner = model.get(key)
      if (winner === undefined) return `${key} was never written, or twice in the fold`
      model.delete(key)
      newest = Math.max(newest, winner)
      if (rows[winner]!.kind !== extent.kind) return `${key}: kind`
      if (extent.kind !== foldKind.write) continue
      if (winner !== extent.record) return `${key}: record ${extent.record}, not ${winner}`
      if (rows[winner]!.offset + extent.payloadOffset !== extent.offset) return `${key}: payload offset`
    }
    if (extent.kind !== foldKind.write && extent.record > rows.length) return 'record of a merged extent'
  }
  if (model.size > 0) return `${model.size} sectors are missing`
  if (fold.rawBytes !== rawBytes || fold.foldedBytes !== rawBytes - keptBytes) return 'byte counters'
  return undefined
}

t.test('100,000 records fold, far apart or each inside the one before', async (t) => {
  const random = randomFrom(7)
  const rows = Array.from({ length: 100_000 }, () => write(random(2 ** 28) * 4096, 4096))
  const input = columns(rows)
  const before = performance.now()
  const apart = foldEpoch(input)
  t.comment(`spread over 1 TiB: ${(performance.now() - before).toFixed(1)} ms`)
  t.equal(apart.rawBytes, 100_000 * 4096)
  const nested = columns(Array.from({ length: 100_000 }, (_, at) => write(at * 512, (200_000 - 2 * at) * 512)))
  const from = performance.now()
  const fold = foldEpoch(nested)
  t.comment(`each inside the one before: ${(performance.now() - from).toFixed(1)} ms`)
  t.equal(fold.volumes[0]!.count, 199_999, 'the most extents that so many records can give')
})
