/** The table of states in src/destage/DESIGN.md holds. */
import t from 'tap'
import { describeInbound, type InboundFacts } from '../../src/destage/inbound-status.js'
import { designTable } from '../fixtures/design-table.js'

const healthy: InboundFacts = {
  position: { generation: 1, appliedEpoch: 7, consistent: true, intent: 0, removed: false, torn: false },
  obstacle: null,
  tooNew: undefined,
  wanted: undefined,
  applying: false,
  newest: 1,
}
type Change = (facts: InboundFacts) => InboundFacts
const also =
  (change: Partial<InboundFacts>): Change =>
  (facts) => ({ ...facts, ...change })
const position =
  (change: Partial<InboundFacts['position']>): Change =>
  (facts) => ({ ...facts, position: { ...facts.position, ...change } })

/** By what the table calls it: what makes it so, and a word of the reason. */
const causes: Record<string, [Change, RegExp]> = {
  'what has arrived can never be applied': [
    also({ obstacle: { code: 'SEQUENCE_FORK', hint: 'Initialize.', retry: 'never' } }),
    /SEQUENCE_FORK: Initialize/,
  ],
  'a disk, a pool, an image or the inbox cannot be used': [
    also({ obstacle: { code: 'POOL_FULL', hint: 'Extend.', retry: 'later' } }),
    /POOL_FULL: Extend/,
  ],
  'an operator removed it here': [position({ removed: true }), /STREAM_REMOVED/],
  'the next part was written by a newer agent': [also({ tooNew: { epoch: 8 } }), /FORMAT_TOO_NEW: epoch 8/],
  'a part has not arrived whole': [also({ wanted: { epoch: 8, part: 1 } }), /epoch 8 part 2/],
  'an epoch is being applied': [also({ applying: true }), /epoch 8 is being applied/],
  'no state of this generation is complete, and one before was given up half applied': [
    position({ consistent: false, torn: true }),
    /no state of the source/,
  ],
  'no state of this generation is complete': [position({ consistent: false }), /generation 1/],
  'nothing of the above': [(facts) => facts, /end of epoch 7/],
}
const rows = designTable('src/destage/DESIGN.md', '| state | shown when |')

t.test('each row of the table of states is shown, with its reason, and each cause has a row', async (t) => {
  t.same(rows.map((row) => row['shown when']).sort(), Object.keys(causes).sort())
  for (const row of rows) {
    const [change, reason] = causes[row['shown when']!]!
    t.match(describeInbound(change(healthy)), { state: row.state, reason }, row['shown when']!)
  }
  const anew = { ...position({ removed: true, consistent: false })(healthy), newest: 2 }
  t.match(describeInbound(anew), { state: 'initializing', reason: /generation 2/ }, 'removed, and begun again')
  const stalled = also({ obstacle: { code: 'POOL_FULL', hint: 'Extend.', retry: 'later' } })
  t.match(
    describeInbound(stalled(position({ consistent: false, torn: true })(healthy))),
    { state: 'stalled', reason: /POOL_FULL.*no state of the source/ },
    'whatever else is in the way',
  )
  t.equal(describeInbound(position({ intent: 9 })(healthy)).state, 'applying', 'also after a crash in the middle')
})

t.test('of two rows that are true the upper one is shown', async (t) => {
  for (const [upper, row] of rows.entries()) {
    for (const below of rows.slice(upper + 1)) {
      const [change, reason] = causes[row['shown when']!]!
      const shown = describeInbound(change(causes[below['shown when']!]![0](healthy)))
      t.match(shown, { state: row.state, reason }, `${row['shown when']}, and ${below['shown when']}`)
    }
  }
})
