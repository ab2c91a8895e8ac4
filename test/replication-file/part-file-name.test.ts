import t from 'tap'
import { epochNumber } from '../../src/block/units.js'
import { parsePartFileName, partFileName } from '../../src/replication-file/part-file-name.js'

const place = (generation: number, epoch: number, part: number, partCount: number) => ({
  generation,
  epoch: epochNumber(epoch),
  part,
  partCount,
})

t.test('names sort as parts are applied', async (t) => {
  const places = [
    place(1, 1, 0, 3),
    place(1, 1, 1, 3),
    place(1, 1, 2, 3),
    place(1, 2, 0, 1),
    place(1, 9, 0, 12),
    place(1, 9, 9, 12),
    place(1, 9, 11, 12),
    place(1, 10, 0, 1),
    place(1, Number.MAX_SAFE_INTEGER, 0, 1),
    place(2, 1, 0, 1),
    place(10, 1, 0, 1),
  ]
  const names = places.map(partFileName)
  t.equal(names[0], 'g00000001-e0000000000000001-p0000001-of-0000003.tmr')
  t.same([...names].reverse().sort(), names)
  t.same(names.map(parsePartFileName), places)
})

t.test('no other name is a part', async (t) => {
  const good = partFileName(place(1, 1, 0, 1))
  t.ok(parsePartFileName(good))
  const bad = [
    `${good}.partial`,
    `../${good}`,
    `${good}\n`,
    good.toUpperCase(),
    good.replace('g00000001', 'g00000000'),
    good.replace('e0000000000000001', 'e0000000000000000'),
    good.replace('e0000000000000001', 'e9999999999999999'),
    good.replace('p0000001', 'p0000000'),
    good.replace('p0000001', 'p0000002'),
    good.replace('g00000001', 'g1'),
    'acknowledgement',
    '',
  ]
  for (const name of bad) t.equal(parsePartFileName(name), undefined, JSON.stringify(name))
  t.throws(() => partFileName(place(0, 1, 0, 1)), { code: 'ERR_ASSERTION' })
})
