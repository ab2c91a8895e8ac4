import t from 'tap'
import { powerCuts } from './power-cut/run.js'

t.test('what arrives in a thin pool is a state of its source after power cuts, and nothing is lost', async (t) => {
  const { cuts, failures } = await powerCuts(t, '--cuts', '0', '--agents', '3', '--inbound-pool')
  t.equal(cuts, 3)
  t.equal(failures, 0)
})

t.test('with agents at both sites, power cuts at either or both, in copies too, end in two equal sides', async (t) => {
  const { cuts, failures } = await powerCuts(t, '--cuts', '0', '--agents', '9')
  t.equal(cuts, 9)
  t.equal(failures, 0)
})
