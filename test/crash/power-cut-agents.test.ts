import t from 'tap'
import { powerCuts } from './power-cut/run.js'

t.test('with agents at both sites, power cuts at either or both end in two equal sides, without a copy', async (t) => {
  const { cuts, failures } = await powerCuts(t, '--cuts', '0', '--agents', '6')
  t.equal(cuts, 6)
  t.equal(failures, 0)
})
