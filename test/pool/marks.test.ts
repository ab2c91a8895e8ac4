import t from 'tap'
import { Marks } from '../../src/pool/marks.js'

t.test('each mark is told once on the way up, and again after the pool was well below it', async (t) => {
  const told: string[] = []
  const marks = new Marks('pool', [70, 85, 95], (event) => told.push(`${event.severity} ${event.text.slice(0, 19)}`))
  for (const units of [0, 69, 70, 71, 84, 70, 66, 70]) marks.look(units, 100)
  t.same(told, ['warning The pool is 70 % ful'.slice(0, 27)])
  marks.look(64, 100)
  marks.look(86, 100)
  t.equal(told.length, 2, 'two marks passed at once are one event')
  marks.look(95, 100)
  t.match(told[2], /^error/)
  t.notOk(marks.isNearlyFull(94, 100))
  t.ok(marks.isNearlyFull(95, 100))
})
