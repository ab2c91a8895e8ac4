import t from 'tap'
import { powerCuts } from './power-cut/run.js'

t.test('R31: a power cut in or behind the recovery from kill -9 loses nothing that was flushed', async (t) => {
  const { cuts, failures } = await powerCuts(t, '--course', 'killed', '--cuts', '90')
  t.ok(cuts >= 90, `${cuts} cuts`)
  t.equal(failures, 0)
})
