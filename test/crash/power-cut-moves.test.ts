import t from 'tap'
import { powerCuts } from './power-cut/run.js'

t.test('a power cut while a source buffer moves loses no epoch, and the move goes on or back', async (t) => {
  const { failures, found, faultsFound } = await powerCuts(t, '--course', 'moves', '--cuts', '42', '--faults')
  t.equal(failures, 0)
  t.ok((found['a move'] ?? 0) > 5, `${found['a move']} cuts in a move`)
  t.ok((found['a move called off'] ?? 0) > 0, `${found['a move called off']} cuts in one that was called off`)
  const seen = faultsFound['ignores-flush'] ?? 0
  t.ok(seen > 0, `the judge is judged: ${seen} cuts find out that the other file system loses what it was told to keep`)
})
