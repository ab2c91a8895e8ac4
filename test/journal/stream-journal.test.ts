import t from 'tap'
import { MiB } from '../../src/block/units.js'
import { intercept } from '../../src/intercept/intercept.js'
import { recoverJournal } from '../../src/journal/recovery.js'
import { type RecoveryJob, StreamJournal, type StreamJournalOptions } from '../../src/journal/stream-journal.js'
import { MemoryStore } from '../fixtures/memory-store.js'
import { scratchFolder } from '../fixtures/paths.js'

const stream = 'stream-journal'

function optionsIn(directory: string, state: MemoryStore): StreamJournalOptions {
  const sizes = { segmentBytes: 4 * MiB, limitBytes: 64 * MiB }
  return { stream, directory, state, intercept, ...sizes, onEvent: () => undefined }
}

t.test('a checkpoint never goes beyond what the journal holds durably', async (t) => {
  const journal = await StreamJournal.create(optionsIn(`${scratchFolder(t)}/journal`, new MemoryStore()))
  t.teardown(() => journal.close(false))
  await journal.native.appendMarker(Buffer.from('one'))
  const durable = await journal.sync()
  await journal.native.appendMarker(Buffer.from('two'))
  t.ok(journal.counters().appliedLsn > durable, 'it is applied, and in the page cache alone')
  await journal.checkpoint(async () => {})
  t.equal(journal.checkpointLsn, durable, 'an epoch that begins there finds every record behind it, or the end')
  await journal.sync()
  await journal.checkpoint(async () => {})
  t.equal(journal.checkpointLsn, journal.counters().appliedLsn)
})

t.test('another boot id makes it a power cut, until the consequence is drawn', async (t) => {
  const state = new MemoryStore()
  const options = optionsIn(`${scratchFolder(t)}/journal`, state)
  const first = await StreamJournal.create(options)
  await first.close(false)
  const reopen = async (): Promise<boolean> => {
    let seen: RecoveryJob | undefined
    const { journal } = await StreamJournal.open(options, async (job) => {
      seen = job
      return recoverJournal({ ...job, apply: () => undefined })
    })
    if (accept) await journal.acceptBoot()
    await journal.close(false)
    return seen!.afterPowerCut
  }
  let accept = false
  t.equal(await reopen(), false, 'the process died: gaps are stepped over')
  const key = `journal/${stream}`
  await state.put({ [key]: { ...state.get<object>(key), bootId: 'of another start of the machine' } })
  t.equal(await reopen(), true, 'the machine did: the first gap is the end')
  t.equal(await reopen(), true, 'and it stays so when the start fails half-way')
  accept = true
  t.equal(await reopen(), true)
  t.equal(await reopen(), false)
})
