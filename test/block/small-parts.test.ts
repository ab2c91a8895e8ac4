import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Changes } from '../../src/block/changes.js'
import { writeDurably } from '../../src/block/durable-file.js'
import { eachOf } from '../../src/block/each.js'
import { Exclusive } from '../../src/block/exclusive.js'
import { isName } from '../../src/block/names.js'
import { Pause } from '../../src/block/pause.js'
import { formatBytes, parseDuration, parseSize } from '../../src/block/size.js'
import { scratchFolder } from '../fixtures/paths.js'

t.test('sizes are multiples of 512, in whatever unit people write them', async (t) => {
  t.equal(parseSize('1GiB'), 1024 ** 3)
  t.equal(parseSize('512'), 512)
  t.equal(parseSize('1.5k'), 1536)
  for (const text of ['0', '-1', '513', '1e9', '', 'GiB', '1 GiB GiB', '99999999PiB', '0.3K']) {
    t.throws(() => parseSize(text), { code: 'BAD_SIZE' }, text)
  }
  t.equal(formatBytes(1536), '1.5 KiB')
})

t.test('durations are positive and at most a day', async (t) => {
  t.equal(parseDuration('250ms'), 250)
  t.equal(parseDuration('2m'), 120_000)
  for (const text of ['0s', '5', '25h', '-1s', '1d'])
    t.throws(() => parseDuration(text), { code: 'BAD_DURATION' }, text)
})

t.test('a name can be a file name, a link and an FTP argument', async (t) => {
  for (const name of ['a', 'db-1', 'A.b_c', 'x'.repeat(63)]) t.ok(isName(name), name)
  const wrong = [
    '',
    '-a',
    '.a',
    '../a',
    'a/b',
    'a\nb',
    'a b',
    'a\0',
    'a..b',
    'x'.repeat(64),
    'vol\r\nDELE x',
    'é',
    '%00',
  ]
  for (const name of wrong) t.notOk(isName(name), JSON.stringify(name))
})

t.test('a durable write replaces a file as a whole, privately, and leaves nothing beside it', async (t) => {
  const folder = scratchFolder(t, 'durable')
  const file = join(folder, 'f')
  await writeDurably(file, Buffer.from('old'))
  await writeDurably(file, [Buffer.from('ne'), Buffer.from('w')])
  t.equal(readFileSync(file, 'utf8'), 'new')
  t.equal(statSync(file).mode & 0o777, 0o600)
  t.same(readdirSync(folder), ['f'])
  await t.rejects(writeDurably(join(folder, 'no/such'), Buffer.from('x')), { code: 'ENOENT' })
})

t.test('a pause that was woken before it began ends at once, and only once', async (t) => {
  const pause = new Pause()
  const signal = new AbortController().signal
  pause.wake()
  const began = performance.now()
  await pause.wait(60_000, signal)
  t.ok(performance.now() - began < 10_000)
  let ended = false
  const second = pause.wait(60_000, signal).then(() => (ended = true))
  await new Promise((resolve) => setTimeout(resolve, 20))
  t.notOk(ended)
  pause.wake()
  await second
})

t.test('exclusive actions never overlap, and a failed one stops none', async (t) => {
  const exclusive = new Exclusive()
  let inside = 0
  const action = async (fail: boolean): Promise<void> => {
    t.equal(++inside, 1)
    await new Promise((resolve) => setTimeout(resolve, 5))
    inside--
    if (fail) throw new Error('no')
  }
  const results = await Promise.allSettled([false, true, false].map((fail) => exclusive.run(() => action(fail))))
  t.same(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled'],
  )
})

t.test('a wait for a condition ends with it, with its error, or with its time', async (t) => {
  const changes = new Changes()
  let value = 0
  const waiting = changes.until(() => value === 2)
  for (value = 1; value < 2; value++) changes.announce()
  changes.announce()
  t.equal(await waiting, true)
  t.equal(await changes.until(() => false, 10), false)
  const failing = changes.until(() => {
    if (value > 2) throw new Error('gone')
    return false
  })
  value = 3
  changes.announce()
  await t.rejects(failing, { message: 'gone' })
})

t.test('work for each item is begun in order, so many at once; after a failure no more is begun', async (t) => {
  const begun: number[] = []
  let [inside, most] = [0, 0]
  const work = async (item: number): Promise<void> => {
    begun.push(item)
    most = Math.max(most, ++inside)
    await new Promise((resolve) => setTimeout(resolve, 5))
    inside--
    if (item === 13) throw new Error('unlucky')
  }
  await eachOf([1, 2, 3, 4, 5, 6, 7], 3, work)
  t.same(begun, [1, 2, 3, 4, 5, 6, 7])
  t.equal(most, 3)
  begun.length = 0
  await t.rejects(eachOf([11, 12, 13, 14, 15, 16, 17, 18, 19], 2, work), { message: 'unlucky' })
  t.equal(inside, 0, 'what had begun has ended')
  t.ok(begun.length <= 5, `${begun.length}`)
})
