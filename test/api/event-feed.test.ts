import t from 'tap'
import type { AgentEvent } from '../../src/api/agent-operations.js'
import { eventFeed, PENDING_LIMIT } from '../../src/api/event-feed.js'
import { event, FakeOperations } from './fake-operations.js'

async function take(feed: AsyncGenerator<AgentEvent>, count: number): Promise<number[]> {
  const numbers: number[] = []
  while (numbers.length < count) numbers.push((await feed.next()).value.number)
  return numbers
}

const range = (first: number, last: number) => Array.from({ length: last - first + 1 }, (_, index) => first + index)

t.test('the past comes first, over several pages, then each new event, each once and in order', async (t) => {
  const operations = new FakeOperations()
  operations.pastEvents = range(1, 2500).map((number) => event(number))
  const stop = new AbortController()
  const feed = eventFeed(operations, 10, stop.signal)
  t.same(await take(feed, 2490), range(11, 2500))
  const next = take(feed, 3)
  await new Promise((resolve) => setTimeout(resolve, 20))
  for (const number of range(2501, 2503)) operations.emit(event(number))
  t.same(await next, range(2501, 2503))
  stop.abort()
  t.equal((await feed.next()).done, true)
  t.equal(operations.listenerCount, 0)
})

t.test('a reader slower than the events loses none and holds a bounded number', async (t) => {
  const operations = new FakeOperations()
  const stop = new AbortController()
  const feed = eventFeed(operations, 0, stop.signal)
  const first = feed.next()
  operations.emit(event(1))
  t.equal((await first).value.number, 1)
  const last = PENDING_LIMIT * 3 + 7
  for (const number of range(2, last)) operations.emit(event(number))
  t.same(await take(feed, last - 1), range(2, last))
  stop.abort()
  await feed.return(undefined)
})

t.test('an event that happens while the past is read is not delivered twice', async (t) => {
  const operations = new FakeOperations()
  operations.pastEvents = [event(1)]
  const stop = new AbortController()
  const feed = eventFeed(operations, 0, stop.signal)
  await feed.next()
  operations.emit(event(2))
  operations.emit(event(3))
  t.same(await take(feed, 2), [2, 3])
  const idle = feed.next()
  stop.abort()
  t.equal((await idle).done, true)
})
