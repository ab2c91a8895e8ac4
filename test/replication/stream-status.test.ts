/** The tables of states in src/replication/DESIGN.md hold. */
import t from 'tap'
import { StorageError } from '../../src/block/storage-error.js'
import {
  mappedFrom,
  newPosition,
  type PositionChange,
  regionsLost,
  type StreamPosition,
} from '../../src/replication/stream-state.js'
import { describeStream, type StreamFacts } from '../../src/replication/stream-status.js'
import { designTable } from '../fixtures/design-table.js'

const document = 'src/replication/DESIGN.md'
const definition = {
  ...{ id: '00', name: 'erp', destination: 'far', epochMs: 1000, paused: false },
  volumes: [{ name: 'v', index: 0, sizeBytes: 1 << 20 }],
} as unknown as StreamFacts['definition']
const fault = new StorageError('SOME_FAULT', { op: 'x', object: 'y', hint: 'Do this.' })
const running = { ...newPosition, phase: 'running', consistentEpoch: 1, cutEpoch: 2, appliedEpoch: 2 } as const
const healthy: StreamFacts = {
  definition,
  position: running,
  health: {
    failure: undefined,
    retryInSeconds: null,
    link: null,
    trouble: null,
    unsynced: null,
    bufferFull: false,
    blocked: undefined,
    farSide: { state: '', reason: '' },
  },
  waitingBytes: 0,
  catchUp: null,
}

type Change = (facts: StreamFacts) => StreamFacts
const health =
  (change: Partial<StreamFacts['health']>): Change =>
  (facts) => ({ ...facts, health: { ...facts.health, ...change } })
const position =
  (change: Partial<StreamPosition>): Change =>
  (facts) => ({ ...facts, position: { ...facts.position, ...change } })
const behind = { reason: 'The journal was full.', doneBytes: 0, totalBytes: 1 << 20 }

/** By what the table calls it: what makes it so, and a word of the reason. */
const causes: Record<string, [Change, RegExp]> = {
  'an invariant broke': [health({ failure: 'It broke.', retryInSeconds: null }), /It broke.*stream resume erp/],
  'a loop ended with an error nobody foresaw, or the journal cannot be replayed': [
    health({ failure: 'Unforeseen.', retryInSeconds: 20 }),
    /Unforeseen\. Tried again in 20 s/,
  ],
  'never initialized': [position({ phase: 'new' }), /stream initialize erp/],
  'nobody knows what the far side lacks': [
    position({ phase: 'diverged', divergedReason: 'Lost.' }),
    /Lost\. .*stream initialize erp/,
  ],
  'there is no journal': [
    (facts) => ({ ...position({ phase: 'mapping' })(facts), catchUp: behind }),
    /The journal was full.*to catch up/,
  ],
  'hosts wait for a journal under the policy strict, or get errors because it must not be given up': [
    health({ blocked: 'Hosts wait.' }),
    /Hosts wait\./,
  ],
  'the disk below a volume failed a sync': [health({ unsynced: fault }), /SOME_FAULT: Do this/],
  'an epoch cannot be cut: buffer, journal or backing fails, or hangs (`DISK_HANGS`)': [
    health({ trouble: fault }),
    /SOME_FAULT: Do this/,
  ],
  'an operator paused it': [(facts) => ({ ...facts, definition: { ...definition, paused: true } }), /paused/],
  'transfers fail': [health({ link: fault }), /SOME_FAULT: Do this/],
  'the destination cannot apply': [
    health({ farSide: { state: 'stalled', reason: 'no room' } }),
    /destination: no room/,
  ],
  'the source buffer is full': [health({ bufferFull: true }), /source buffer is full/],
  'the far side has not had a state of this generation': [position({ consistentEpoch: 0 }), /read/],
  'regions are sent again': [(facts) => ({ ...facts, catchUp: behind }), /The journal was full.*read/],
  'nothing of the above': [(facts) => facts, /up to date/],
}
const rows = designTable(document, '| state | shown when |')

t.test('each row of the table of states is shown, with its reason, and each cause has a row', async (t) => {
  t.same(rows.map((row) => row['shown when']).sort(), Object.keys(causes).sort())
  for (const row of rows) {
    const [change, reason] = causes[row['shown when']!]!
    const shown = describeStream(change(healthy))
    t.equal(shown.state, row.state, row['shown when']!)
    t.match(shown.reason, reason)
  }
})

t.test('of two rows that are true the upper one is shown', async (t) => {
  for (const [upper, row] of rows.entries()) {
    for (const below of rows.slice(upper + 1)) {
      const [change, reason] = causes[row['shown when']!]!
      const shown = describeStream(change(causes[below['shown when']!]![0](healthy)))
      t.match(shown, { state: row.state, reason }, `${row['shown when']}, and ${below['shown when']}`)
    }
  }
})

t.test('each phase becomes what the table of phases says', async (t) => {
  const apply = (before: StreamPosition, change: PositionChange): StreamPosition => ({
    ...before,
    ...(typeof change === 'function' ? change(before) : change),
  })
  const phases = designTable(document, '| phase | initialize |')
  t.same(
    phases.map(({ phase }) => phase),
    ['new', 'running', 'mapping', 'diverged'],
  )
  for (const row of phases) {
    const before = { ...newPosition, phase: row.phase as StreamPosition['phase'] }
    t.equal(apply(before, mappedFrom('full', 1n)).phase, row['the journal ends'], `${row.phase}: journal`)
    t.equal(apply(before, regionsLost('EIO')).phase, row['the record is lost'], `${row.phase}: record`)
    const both = apply(apply(before, mappedFrom('full', 1n)), regionsLost('EIO'))
    t.equal(both.phase, row['both are lost'], `${row.phase}: journal, then record`)
    const other = apply(apply(before, regionsLost('EIO')), mappedFrom('full', 1n))
    t.equal(other.phase, row['both are lost'], `${row.phase}: record, then journal`)
  }
})
