import t from 'tap'
import { ArrivedFiles } from './arrived-files.js'

const place = { generation: 1, epoch: 7, part: 0, partCount: 2 }

t.test('an epoch is there when all its parts are, in their order, however often one comes', async (t) => {
  const arrived = new ArrivedFiles()
  arrived.add({ ...place, part: 1 }, Buffer.from('behind'))
  t.equal(arrived.files(1, 7), undefined)
  arrived.add(place, Buffer.from('before'))
  arrived.add(place, Buffer.from('before'))
  t.same(arrived.files(1, 7)?.map(String), ['before', 'behind'])
  t.same(arrived.epochs, ['1/7'])
  t.same(arrived.reused, [])
})

t.test(
  'a file number that is used again for other content is told, and of another generation it is another',
  async (t) => {
    const arrived = new ArrivedFiles()
    arrived.add(place, Buffer.from('before'))
    arrived.add({ ...place, generation: 2 }, Buffer.from('another'))
    t.same(arrived.reused, [])
    arrived.add(place, Buffer.from('befora'))
    t.same(arrived.reused, ['epoch 7 part 0 of generation 1 came again with other content'])
    arrived.add({ ...place, part: 1, partCount: 3 }, Buffer.from('behind'))
    t.equal(arrived.reused[1], 'epoch 7 of generation 1 had 2 parts, and has 3')
  },
)
