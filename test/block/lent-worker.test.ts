import t from 'tap'
import { LentWorker } from '../../src/block/lent-worker.js'
import type { WorkerCalls } from '../../src/block/worker-calls.js'

t.test('a worker lasts as long as anybody has it, and the next one is another', async (t) => {
  const closed: number[] = []
  let made = 0
  const lent = new LentWorker(() => {
    const number = ++made
    return { close: async () => void closed.push(number) } as unknown as WorkerCalls
  })
  const [first, second] = [lent.lend(), lent.lend()]
  t.equal(first.worker, second.worker)
  await first.giveBack()
  const third = lent.lend()
  t.equal(third.worker, second.worker, 'whoever comes later has the same')
  await second.giveBack()
  t.same(closed, [], 'not ended under the third')
  const ending = third.giveBack()
  const fourth = lent.lend()
  t.not(fourth.worker, third.worker, 'what is ending is not lent')
  await ending
  t.same(closed, [1])
  await fourth.giveBack()
  t.same([made, closed], [2, [1, 2]])
  await t.rejects(fourth.giveBack(), /twice/)
})
