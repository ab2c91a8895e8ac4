import t from 'tap'
import { powerCuts } from './power-cut/run.js'

t.test(
  'a power cut in an initialisation, a mapping or a catch-up: no flushed write and no epoch is lost',
  async (t) => {
    const { failures, found } = await powerCuts(t, '--course', 'copies', '--cuts', '56')
    t.equal(failures, 0)
    // How many of each depends on how fast the disks of this machine are.
    const states = [
      ['before an initialisation', 'in an initialisation', 'all copied, and no state'],
      ['phase mapping'],
      ['before a catch-up', 'in a catch-up', 'in epochs that appear at once'],
      ['an epoch not committed'],
    ]
    for (const some of states) {
      const cuts = some.reduce((sum, state) => sum + (found[state] ?? 0), 0)
      t.ok(cuts > 0, `${some.join(', ')}: ${cuts} cuts`)
    }
  },
)
