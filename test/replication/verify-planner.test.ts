import t from 'tap'
import { KiB, MiB } from '../../src/block/units.js'
import { EPOCH_DIGEST_LIMIT, EPOCH_HOLE_LIMIT, planDigests } from '../../src/replication/verify-planner.js'
import { beginVerify, type VerifyPosition } from '../../src/replication/verify-state.js'
import type { SparseVolume } from '../../src/replication/volume-file.js'

const block = 64 * KiB
const begun = beginVerify(null, true, Buffer.alloc(16), 1)

/** A volume with data in these ranges. */
function source(index: number, sizeBytes: number, data: readonly (readonly [number, number])[]): SparseVolume {
  const nextData = (offset: number) => {
    for (const [from, to] of data) if (offset < to) return Math.max(offset, from)
    return undefined
  }
  return { index, path: `/volume-${index}`, sizeBytes, nextData }
}

/** All pieces to the end, epoch by epoch. */
async function walk(volumes: readonly SparseVolume[], verify: VerifyPosition = begun) {
  const epochs: ReturnType<typeof planDigests>[] = []
  for (let at: VerifyPosition = verify; ; at = { ...at, cursor: epochs.at(-1)!.next }) {
    epochs.push(planDigests(volumes, at))
    if (epochs.at(-1)!.next === null || epochs.length > 200) return epochs
  }
}

t.test(
  'all of all volumes is covered once, in pieces that begin at blocks, within the limits of an epoch',
  async (t) => {
    const volumes = [
      source(0, 100 * MiB + 512, [
        [0, 40 * MiB],
        [70 * MiB + 4096, 100 * MiB + 512],
      ]),
      source(3, 3 * EPOCH_HOLE_LIMIT, [[EPOCH_HOLE_LIMIT + 4096, EPOCH_HOLE_LIMIT + 8192]]),
      source(4, 70_000, []),
    ]
    const epochs = await walk(volumes)
    for (const { index, sizeBytes } of volumes) {
      let at = 0
      for (const piece of epochs.flatMap(({ pieces }) => pieces).filter(({ volume }) => volume === index)) {
        t.equal(piece.offset, at)
        t.equal(piece.offset % block, 0)
        at += piece.lengthBytes
      }
      t.equal(at, sizeBytes)
    }
    for (const { pieces } of epochs) {
      const bytes = (isHole: boolean) =>
        pieces.filter((piece) => piece.isHole === isHole).reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)
      t.ok(bytes(false) <= EPOCH_DIGEST_LIMIT + block, `${bytes(false)} bytes of data`)
      t.ok(bytes(true) <= EPOCH_HOLE_LIMIT + block, `${bytes(true)} bytes of holes`)
    }
    const holes = epochs.flatMap(({ pieces }) => pieces).filter(({ isHole }) => isHole)
    t.same(holes[0], { volume: 0, path: '/volume-0', offset: 40 * MiB, lengthBytes: 30 * MiB, isHole: true })
  },
)

t.test('what has to be taken again comes before anything else, all of it', async (t) => {
  const volumes = [source(0, 100 * MiB, [[0, 100 * MiB]])]
  const retry = [
    { volume: 0, offset: 7 * block, lengthBytes: block },
    { volume: 0, offset: 90 * block, lengthBytes: 2 * block },
  ]
  const cursor = { slot: 0, offset: 32 * MiB }
  const plan = planDigests(volumes, { ...begun, retry, cursor })
  t.match(plan, { isRetry: true, next: null })
  t.same(
    plan.pieces.map(({ offset, lengthBytes }) => ({ volume: 0, offset, lengthBytes })),
    retry,
  )
  const after = planDigests(volumes, { ...begun, cursor })
  t.match(after, { isRetry: false, pieces: [{ offset: 32 * MiB }], next: { slot: 0, offset: 64 * MiB } })
})

t.test('a pass over some ranges reads those alone, as far as the volume goes', async (t) => {
  const volumes = [source(0, 10 * MiB, [[0, 10 * MiB]]), source(1, MiB, [[0, MiB]])]
  const ranges = [
    { volume: 0, offset: 5 * block, lengthBytes: block },
    { volume: 1, offset: 15 * block, lengthBytes: 4 * block },
    { volume: 9, offset: 0, lengthBytes: block },
  ]
  const epochs = await walk(volumes, { ...begun, ranges })
  t.match(
    epochs.flatMap(({ pieces }) => pieces),
    [
      { volume: 0, offset: 5 * block, lengthBytes: block },
      { volume: 1, offset: 15 * block, lengthBytes: block },
    ],
  )
})
