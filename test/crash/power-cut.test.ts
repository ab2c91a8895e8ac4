/** The power goes, by the hundred: power-cut/main.ts. What hosts flushed is there, and a stream goes on. */
import t from 'tap'
import { diskFaults } from '../fixtures/power-cut.js'
import { powerCuts } from './power-cut/run.js'

t.test('no flushed write is lost by a power cut, anywhere, and the stream is caught up', async (t) => {
  const { cuts, failures, faultsFound } = await powerCuts(t, '--cuts', '500', '--faults')
  t.ok(cuts >= 500, `${cuts} cuts`)
  t.equal(failures, 0)
  await t.test('the judge is judged: a disk that is bad is found out', async (t) => {
    for (const fault of diskFaults) t.ok((faultsFound[fault] ?? 0) > 0, `${fault}: ${faultsFound[fault]} cuts`)
  })
})
