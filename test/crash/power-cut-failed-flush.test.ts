import t from 'tap'
import { powerCuts } from './power-cut/run.js'

t.test('a flush fails, then the power goes: nothing that hosts were told is flushed is missing', async (t) => {
  const { cuts, failures } = await powerCuts(t, '--course', 'failed-flush', '--cuts', '24')
  t.ok(cuts >= 24, `${cuts} cuts`)
  t.equal(failures, 0)
})
