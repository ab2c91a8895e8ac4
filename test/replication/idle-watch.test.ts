import t from 'tap'
import { Pause } from '../../src/block/pause.js'
import { IdleWatch } from '../../src/replication/idle-watch.js'

t.test('news ends the wait of the one that has it, soon, and of no other', async (t) => {
  const watch = new IdleWatch()
  const signal = new AbortController()
  const ended: number[] = []
  let news = -1
  const pauses = [0, 1, 2].map(() => new Pause())
  const waits = pauses.map(async (pause, index) => {
    await watch.wait(() => news === index, pause, signal.signal)
    ended.push(index)
  })
  await new Promise((resolve) => setTimeout(resolve, 500))
  t.same(ended, [])
  news = 1
  const from = performance.now()
  await waits[1]
  t.ok(performance.now() - from < 1000)
  t.same(ended, [1])
  pauses[2]!.wake()
  await waits[2]
  t.same(ended, [1, 2], 'woken by somebody else')
  signal.abort()
  await waits[0]
  const broken = (): boolean => {
    throw new Error('closed')
  }
  await watch.wait(broken, new Pause(), new AbortController().signal)
  t.pass('what cannot be asked ends its wait')
  const timers = process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length
  t.ok(timers <= 1, 'its timer is gone; that of the test stays')
})
