import t from 'tap'
import { powerCuts } from './power-cut/run.js'

t.test(
  'a power cut in an initialisation, a mapping or a catch-up: no flushed write and no epoch is lost',
  async (t) => {
    const { failures, found } = await powerCuts(t, '--course', 'copies', '--cuts', '70')
    t.equal(failures, 0)
    for (const state of [
      'in an initialisation',
      'phase mapping',
      'in epochs that appear at once',
      'an epoch not committed',
    ])
      t.ok((found[state] ?? 0) > 0, `${state}: ${found[state]} cuts`)
  },
)
