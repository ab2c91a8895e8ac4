/** The power goes, by the hundred: power-cut/main.ts. What hosts flushed is there, and a stream goes on. */
import t from 'tap'
import { diskFaults } from '../fixtures/power-cut.js'
import { powerCuts } from './power-cut/run.js'

t.test('no flushed write is lost by a power cut, anywhere, and the stream is caught up', async (t) => {
  const { cuts, failures, faultsFound } = await powerCuts(t, '--course', 'steady', '--cuts', '460', '--faults')
  // One in seven is cut once more.
  t.ok(cuts >= 500, `${cuts} cuts`)
  t.equal(failures, 0)
  await t.test('the judge is judged: a bad disk is found out, and a region record that is not there', async (t) => {
    for (const fault of [...diskFaults, 'regions-forgotten'])
      t.ok((faultsFound[fault] ?? 0) > 0, `${fault}: ${faultsFound[fault]} cuts`)
  })
})
