import t from 'tap'
import { type HeldPart, planSequence, receivedUpTo } from '../../src/destage/sequencer.js'

const limits = { epochs: 16, rawBytes: 64 * 1024 * 1024 }

function held(epoch: number, part = 0, partCount = 1, more: Partial<HeldPart> = {}): HeldPart {
  const name = `${epoch}-${part}`
  return { generation: 1, epoch, part, partCount, initializing: false, rawBytes: 4096, name, ...more }
}

const applied = (plan: ReturnType<typeof planSequence>): number[] => plan.apply.map((parts) => parts[0]!.epoch)

t.test('arrivals 3, 1, 2 are applied as 1, 2, 3, and 2 never before 1', async (t) => {
  const at = { generation: 1, appliedEpoch: 0, consistent: true }
  t.same(applied(planSequence(at, [held(3)], limits)), [])
  t.same(applied(planSequence(at, [held(3), held(2)], limits)), [])
  t.same(applied(planSequence(at, [held(3), held(2), held(1)], limits)), [1, 2, 3])
})

t.test('an epoch waits for all of its parts, and they are applied in order', async (t) => {
  const at = { generation: 1, appliedEpoch: 4, consistent: true }
  const some = [held(5, 2, 3), held(5, 0, 3)]
  t.same(applied(planSequence(at, some, limits)), [])
  const plan = planSequence(at, [...some, held(5, 1, 3)], limits)
  t.same(
    plan.apply[0]!.map(({ part }) => part),
    [0, 1, 2],
  )
})

t.test('a gap names what is missing, parts of a cut epoch included', async (t) => {
  const plan = planSequence({ generation: 1, appliedEpoch: 1, consistent: true }, [held(3, 1, 2), held(5)], limits)
  t.same(plan.missing, [
    { epoch: 2, part: 0 },
    { epoch: 3, part: 0 },
    { epoch: 4, part: 0 },
  ])
})

t.test('nothing is missing when the next epochs are simply not here yet', async (t) => {
  t.same(planSequence({ generation: 1, appliedEpoch: 7, consistent: true }, [], limits).missing, [])
  t.same(planSequence({ generation: 1, appliedEpoch: 7, consistent: true }, [held(8)], limits).missing, [])
})

t.test('a duplicate of what was applied is obsolete, whatever generation is older too', async (t) => {
  const old = held(9, 0, 1, { generation: 1, name: 'old' })
  const twice = held(2, 0, 1, { generation: 2 })
  const plan = planSequence({ generation: 2, appliedEpoch: 2, consistent: true }, [old, twice], limits)
  t.same(new Set(plan.obsolete), new Set([old, twice]))
  t.same(plan.apply, [])
})

t.test('a newer generation begins at its first epoch and leaves the older one behind', async (t) => {
  const plan = planSequence(
    { generation: 1, appliedEpoch: 5, consistent: true },
    [held(6), held(1, 0, 1, { generation: 2 }), held(2, 0, 1, { generation: 2 })],
    limits,
  )
  t.equal(plan.generation, 2)
  t.same(applied(plan), [1, 2])
  t.same(
    plan.obsolete.map(({ epoch }) => epoch),
    [6],
  )
})

t.test('a batch ends at its limits, and where initialisation does', async (t) => {
  const at = { generation: 1, appliedEpoch: 0, consistent: false }
  const parts = [1, 2, 3].map((epoch) => held(epoch, 0, 1, { initializing: epoch < 3, rawBytes: 100 }))
  t.same(applied(planSequence(at, parts, limits)), [1, 2])
  t.same(applied(planSequence(at, parts, { epochs: 1, rawBytes: 1000 })), [1])
  t.same(applied(planSequence(at, parts, { epochs: 9, rawBytes: 150 })), [1])
  t.same(applied(planSequence(at, parts, { epochs: 9, rawBytes: 10 })), [1], 'one epoch at the least')
})

t.test('where a state is shown, epochs that are none wait for the one that is, whatever the limits', async (t) => {
  const at = { generation: 1, appliedEpoch: 4, consistent: true }
  const one = { epochs: 1, rawBytes: 1 }
  const parts = [5, 6, 7, 8].map((epoch) => held(epoch, 0, 1, { initializing: epoch < 8 }))
  t.same(applied(planSequence(at, parts.slice(0, 3), limits)), [], 'the last one is not here')
  t.same(applied(planSequence(at, [parts[0]!, parts[1]!, parts[3]!], limits)), [], 'nor with a gap')
  t.same(planSequence(at, [parts[0]!, parts[1]!, parts[3]!], limits).missing, [{ epoch: 7, part: 0 }])
  t.same(applied(planSequence(at, [...parts, held(9)], one)), [5, 6, 7, 8])
  t.same(applied(planSequence({ ...at, appliedEpoch: 3 }, [held(4), ...parts], limits)), [4], 'what is one goes first')
  t.same(applied(planSequence({ ...at, generation: 0 }, [held(1, 0, 1, { initializing: true })], limits)), [1])
})

t.test('received is what is here whole and without a gap, of the generation that is applied', async (t) => {
  const at = { generation: 2, appliedEpoch: 4, consistent: true }
  const more = { generation: 2, initializing: true }
  t.equal(receivedUpTo(at, []), 4)
  t.equal(receivedUpTo(at, [held(6, 0, 1, more)]), 4)
  t.equal(receivedUpTo(at, [held(5, 0, 1, more), held(6, 1, 2, more), held(7, 0, 1, more)]), 5)
  t.equal(receivedUpTo(at, [held(5, 0, 1, more), held(6, 1, 2, more), held(6, 0, 2, more)]), 6)
  t.equal(receivedUpTo(at, [held(5), held(6)]), 4, 'of another generation')
})

t.test(
  'an epoch with digests is the last of its batch, so that no attempt leaves what is later in the images',
  async (t) => {
    const at = { generation: 1, appliedEpoch: 4, consistent: true }
    const digests = { hasDigests: true }
    const all = [held(5), held(6, 0, 2), held(6, 1, 2, digests), held(7), held(8, 0, 1, digests), held(9)]
    t.same(applied(planSequence(at, all, limits)), [5, 6])
    t.same(applied(planSequence({ ...at, appliedEpoch: 6 }, all.slice(3), limits)), [7, 8])
    t.same(applied(planSequence({ ...at, appliedEpoch: 8 }, all.slice(5), limits)), [9])
  },
)
