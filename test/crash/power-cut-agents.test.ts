import t from 'tap'
import { powerCuts } from './power-cut/run.js'

t.test('with agents at both sites, power cuts at either or both, in copies too, end in two equal sides', async (t) => {
  const { cuts, failures } = await powerCuts(t, '--cuts', '0', '--agents', '9')
  t.equal(cuts, 9)
  t.equal(failures, 0)
})
