import t from 'tap'
import { KiB } from '../../src/block/units.js'
import { newPosition, type StreamPosition } from '../../src/replication/stream-state.js'
import {
  advanceVerify,
  beginVerify,
  compareAgain,
  type DigestedEpoch,
  endVerify,
  hearComparison,
  REPAIR_LIMIT,
  TRY_LIMIT,
  type VerifyPosition,
  verifyStep,
  wantsDigests,
} from '../../src/replication/verify-state.js'
import type { Comparison } from '../../src/replication-file/acknowledgement.js'

const salt = Buffer.alloc(16, 1)
const block = 64 * KiB
const fresh = beginVerify(null, true, salt, 10 * block)
const range = (offset: number, volume = 0) => ({ volume, offset: offset * block, lengthBytes: block })
const calm: StreamPosition = {
  ...newPosition,
  ...{ phase: 'running', generation: 1, consistentEpoch: 3, stateEpoch: 9, cutEpoch: 9, appliedEpoch: 9 },
}
const found = (run: number, comparedBytes: number, differing: Comparison['differing'] = []): Comparison => ({
  ...{ run, comparedBytes, differing, differingBytes: differing.length * block },
})

function made(more: Partial<DigestedEpoch> = {}): DigestedEpoch {
  return { run: 1, isRetry: false, next: null, digestedBytes: 10 * block, busy: [], ...more }
}

/** All sent in epoch 9, and what the destination said of it. */
function heard(differing: Comparison['differing'], over: Partial<VerifyPosition> = {}): StreamPosition {
  const sent = { ...advanceVerify(fresh, 9, made())!, ...over }
  return { ...calm, verify: hearComparison(sent, found(sent.run, 10 * block, differing)) }
}

t.test('a comparison moves from its beginning to its end, and ends when the destination has said all', async (t) => {
  const first = advanceVerify(fresh, 8, made({ next: { slot: 0, offset: 5 * block }, digestedBytes: 5 * block }))!
  t.match(first, { phase: 'comparing', cursor: { slot: 0, offset: 5 * block }, endEpoch: 8 })
  const last = advanceVerify(first, 9, made({ digestedBytes: 5 * block }))!
  t.match(last, { phase: 'confirming', digestedBytes: 10 * block, endEpoch: 9, busyBytes: 0 })
  t.equal(verifyStep({ ...calm, appliedEpoch: 8, verify: last }), null, 'the last of it is not applied')
  t.match(verifyStep({ ...calm, verify: last }), { outcome: 'failed' }, 'applied, and not a word')
  const partly = hearComparison(last, found(1, 9 * block))
  t.match(verifyStep({ ...calm, verify: partly }), { outcome: 'failed' }, 'less was compared than sent')
  t.match(verifyStep(heard([])), { outcome: 'equal', reason: '' })
})

t.test('what hosts write meanwhile is taken again at once, then once more at the end, and then counted', async (t) => {
  let verify = advanceVerify(
    fresh,
    1,
    made({ next: { slot: 0, offset: 5 * block }, digestedBytes: 4 * block, busy: [range(2)] }),
  )!
  t.same(verify.retry, [range(2)])
  const retry = made({ isRetry: true, digestedBytes: 0, busy: [range(2)] })
  for (let count = 1; count < TRY_LIMIT; count++) verify = advanceVerify(verify, 1 + count, retry)!
  t.match(verify, { retry: [range(2)], skipped: [], cursor: { slot: 0, offset: 5 * block } })
  verify = advanceVerify(verify, 10, retry)!
  t.match(
    verify,
    { retry: [], skipped: [range(2)], tries: 0, cursor: { slot: 0, offset: 5 * block } },
    'it goes on without',
  )
  verify = advanceVerify(verify, 11, made({ digestedBytes: 5 * block }))!
  t.match(verify, { phase: 'comparing', ranges: [range(2)], cursor: { slot: 0, offset: 0 }, isLastRound: true })
  const atRest = advanceVerify(verify, 12, made({ digestedBytes: block }))!
  t.match(atRest, { phase: 'confirming', busyBytes: 0, digestedBytes: 10 * block })
  verify = advanceVerify(verify, 12, made({ digestedBytes: 0, busy: [range(2)] }))!
  for (let count = 0; count < TRY_LIMIT; count++) verify = advanceVerify(verify, 13 + count, retry)!
  t.match(verify, { phase: 'confirming', busyBytes: block, digestedBytes: 9 * block, endEpoch: 11 })
})

t.test('what is kept in the position has a limit, and loses nothing of what was busy', async (t) => {
  const busy = Array.from({ length: 5000 }, (_, at) => range(at * 2))
  const { retry } = advanceVerify(fresh, 1, made({ busy }))!
  t.ok(retry.length <= 256)
  t.ok(
    busy.every(({ offset }) =>
      retry.some((one) => one.offset <= offset && offset + block <= one.offset + one.lengthBytes),
    ),
  )
})

t.test('what differs is sent again when that was asked for, and compared again, three times at the most', async (t) => {
  t.match(verifyStep(heard([range(3)], { repair: false })), { outcome: 'differs' })
  t.equal(verifyStep(heard([range(3)])), 'repair')
  const repairing = { ...heard([range(3)]).verify!, phase: 'repairing' } as const
  const catchUp = { reason: '', totalBytes: block, untilEpoch: 0, afresh: true }
  const copying = { ...calm, verify: repairing, copy: { slot: 0, offset: 0 }, catchUp }
  t.equal(verifyStep(copying), null)
  t.equal(verifyStep({ ...copying, copy: null, catchUp: { ...catchUp, untilEpoch: 12 } }), null, 'cut and not applied')
  t.equal(verifyStep({ ...copying, copy: null, catchUp: { ...catchUp, untilEpoch: 9 } }), 'compare-again')
  const again = compareAgain(repairing, Buffer.alloc(16, 2))
  t.match(again, { phase: 'comparing', run: 2, ranges: [range(3)], digestedBytes: 0, found: null, repairs: 1 })
  t.same(again.first?.differing, [range(3)], 'what was found at first stays known')
  t.same(hearComparison(again, found(1, 10 * block)), again, 'what is said of the run before is none of this one')
  t.match(verifyStep(heard([], { repairs: 1 })), { outcome: 'repaired' })
  t.equal(verifyStep(heard([range(3)], { repairs: REPAIR_LIMIT - 1 })), 'repair')
  t.match(verifyStep(heard([range(3)], { repairs: REPAIR_LIMIT })), { outcome: 'failed', reason: /check the disk/ })
})

t.test('epochs carry digests only where their end, and all before it, is a state', async (t) => {
  const at = (position: Partial<StreamPosition>) => wantsDigests({ ...calm, verify: fresh, ...position })
  t.ok(at({}))
  t.notOk(at({ verify: null }))
  t.notOk(at({ verify: endVerify(fresh, 'aborted') }))
  t.notOk(at({ copy: { slot: 0, offset: 0 } }), 'copying')
  t.notOk(at({ held: true }), 'held')
  t.notOk(at({ cutEpoch: 10 }), 'a group is open')
  t.notOk(at({ consistentEpoch: 0 }), 'no state yet')
  t.notOk(at({ catchUp: { reason: '', totalBytes: 1, untilEpoch: 0 } }), 'catching up')
  t.notOk(at({ appliedEpoch: 5 }), 'the destination is behind')
  t.ok(at({ appliedEpoch: 6 }))
})

t.test('an epoch of another run, or of one that was ended, moves nothing', async (t) => {
  t.equal(advanceVerify(fresh, 9, made({ run: 2 })), fresh)
  const ended = endVerify(fresh, 'aborted')
  t.equal(advanceVerify(ended, 9, made()), ended)
  t.equal(hearComparison(ended, found(1, 1)), ended)
  t.equal(advanceVerify(null, 9, made()), null)
  t.equal(beginVerify(ended, true, salt, 1).run, 2, 'the next one has a number of its own')
})
