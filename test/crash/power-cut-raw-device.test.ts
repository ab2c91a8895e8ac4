import t from 'tap'
import { powerCuts } from './power-cut/run.js'

t.test('a raw device has every flushed write after a power cut, also by itself without any journal', async (t) => {
  const { cuts, failures, faultsFound } = await powerCuts(t, '--course', 'raw-device', '--cuts', '40', '--faults')
  t.ok(cuts >= 40, `${cuts} cuts`)
  t.equal(failures, 0)
  const seen = faultsFound['ignores-flush'] ?? 0
  t.ok(seen > 0, `the judge is judged: on the device alone ${seen} cuts find out that it ignores flushes`)
})
