/** The judge itself: what it takes for possible, and what it tells apart. */
import t from 'tap'
import { Clock, Content } from './model/content.js'
import { explain, fillWithGarbage, readStamp, sectorBytes, stamp } from './model/stamps.js'

function written(content: Content, clock: Clock, sector: number, serial: number): void {
  const write = content.issue(sector, 1, () => serial)
  write.acked = clock.tick()
}

t.test('an acknowledged write is the only candidate, and one in flight may be there or not', async (t) => {
  const [content, clock] = [new Content(4), new Clock()]
  written(content, clock, 1, 7)
  t.strictSame(content.candidates(1), [7])
  content.issue(1, 2, () => 8)
  t.strictSame(
    [0, 1, 2].map((sector) => content.candidates(sector)),
    [[0], [7, 8], [0, 8]],
  )
})

t.test('a reader that began before an acknowledgement may see what was there', async (t) => {
  const [content, clock] = [new Content(1), new Clock()]
  const since = clock.tick()
  written(content, clock, 0, 3)
  t.strictSame(content.candidates(0, since), [0, 3])
  t.strictSame(content.candidates(0, clock.tick()), [3])
})

t.test('after a power cut everything since the last flush is possible, and nothing before it', async (t) => {
  const [content, clock] = [new Content(1), new Clock()]
  written(content, clock, 0, 1)
  written(content, clock, 0, 2)
  const flushed = clock.tick()
  written(content, clock, 0, 3)
  content.commit(flushed)
  t.strictSame(content.survivors(0), [2, 3])
  content.commit(clock.tick())
  t.strictSame(content.survivors(0), [3])
})

t.test('a frozen copy stays what it was, with the doubts of that moment', async (t) => {
  const [content, clock] = [new Content(2), new Clock()]
  written(content, clock, 0, 1)
  content.issue(1, 1, () => 2)
  const copy = content.freeze(clock.tick())
  written(content, clock, 0, 3)
  t.strictSame([copy.candidates(0), copy.candidates(1)], [[1], [0, 2]])
  copy.observe(1, 0, clock.tick())
  t.strictSame(copy.candidates(1), [0])
})

t.test('what was cut off by a shrink does not come back', async (t) => {
  const [content, clock] = [new Content(2), new Clock()]
  written(content, clock, 1, 9)
  content.resize(1)
  content.resize(3)
  t.strictSame(
    [1, 2].map((sector) => content.candidates(sector)),
    [[0], [0]],
  )
})

t.test('a stamped sector is known in its place alone', async (t) => {
  const bytes = Buffer.alloc(4 * sectorBytes)
  stamp(bytes, 10, (index) => [5, 0, 6, 7][index]!)
  t.strictSame(
    [0, 1, 2, 3].map((index) => readStamp(bytes, index, 10 + index)),
    [5, 0, 6, 7],
  )
  t.equal(readStamp(bytes, 0, 11), -1)
  t.match(explain(bytes, 0, String), /^sector 10 of 5, in the wrong place/)
  bytes.fill(0, 2 * sectorBytes + 256, 3 * sectorBytes)
  t.equal(readStamp(bytes, 2, 12), -1)
  t.match(explain(bytes, 2, String), /^torn/)
  fillWithGarbage(bytes)
  t.equal(readStamp(bytes, 3, 13), -1)
  t.equal(explain(bytes, 3, String), 'bytes of a free block')
})
