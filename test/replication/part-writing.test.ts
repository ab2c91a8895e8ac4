import { randomFillSync } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { alignedBuffer } from '../../src/block/aligned-buffer.js'
import { MiB } from '../../src/block/units.js'
import { PART_AREA_COUNT, PackMemory } from '../../src/replication/pack-memory.js'
import { PartWriting } from '../../src/replication/part-writing.js'
import { PART_FILE_LIMIT } from '../../src/replication-file/limits.js'
import { residentBytes } from '../fixtures/page-cache.js'
import { scratchFolder } from '../fixtures/paths.js'

t.test('files are whole under their names, and nothing else is left', async (t) => {
  const folder = scratchFolder(t, 'part-writing')
  const writing = new PartWriting(folder)
  let over = 0
  const count = (): void => {
    over += 1
  }
  writing.begin('a', Buffer.from('onetwo'), count)
  writing.begin('b', Buffer.alloc(9_000_000, 7), count)
  await writing.durable()
  t.same(readdirSync(folder).sort(), ['a', 'b'])
  t.equal(readFileSync(join(folder, 'a'), 'latin1'), 'onetwo')
  t.ok(readFileSync(join(folder, 'b')).equals(Buffer.alloc(9_000_000, 7)))
  t.equal(over, 2, 'their memory is free')
})

t.test('what goes past the page cache is the same, to the byte, and not in memory afterwards', async (t) => {
  const folder = scratchFolder(t, 'part-writing')
  const elsewhere = mkdtempSync('/dev/shm/tidemark-part-writing-')
  t.teardown(() => rmSync(elsewhere, { recursive: true, force: true }))
  const area = alignedBuffer(PART_FILE_LIMIT)
  randomFillSync(area)
  for (const length of [MiB, MiB + 1, 2 * MiB - 1, 5 * MiB + 4096, PART_FILE_LIMIT - 7, PART_FILE_LIMIT]) {
    // A file system of memory takes nothing past it.
    for (const place of [folder, elsewhere]) {
      const writing = new PartWriting(place)
      const bytes = area.subarray(0, length)
      writing.begin('a', bytes, () => {})
      await writing.durable()
      const file = join(place, 'a')
      if (place === folder) t.equal(residentBytes(file), 0, `${length} bytes`)
      t.ok(readFileSync(file).equals(bytes))
      t.equal(statSync(file).size, length)
    }
  }
})

t.test('one file that cannot be written is told when no other is written any more', async (t) => {
  const folder = scratchFolder(t, 'part-writing')
  // A folder in the place of the second file: it cannot be given its name.
  mkdirSync(join(folder, 'b', 'c'), { recursive: true })
  const writing = new PartWriting(folder)
  let over = 0
  const count = (): void => {
    over += 1
  }
  writing.begin('b', Buffer.from('x'), count)
  writing.begin('a', Buffer.alloc(20_000_000, 1), count)
  await t.rejects(writing.durable(), { code: 'BUFFER_UNAVAILABLE', retry: 'later' })
  t.equal(over, 2)
  t.same(readdirSync(folder).sort(), ['a', 'b'], 'no temporary file is left')
  t.equal(readFileSync(join(folder, 'a')).length, 20_000_000)
})

t.test('a folder that cannot be synced is tried again, as a file that cannot be written', async (t) => {
  const folder = join(scratchFolder(t, 'part-writing'), 'gone')
  await t.rejects(new PartWriting(folder).durable(), { code: 'BUFFER_UNAVAILABLE', retry: 'later' })
})

t.test('no more parts are in memory at once than are allowed, and who waits goes on in turn', async (t) => {
  const memory = new PackMemory()
  const areas: Buffer[] = []
  for (let at = 0; at < PART_AREA_COUNT; at++) areas.push(await memory.takePart())
  t.equal(new Set(areas).size, PART_AREA_COUNT)
  for (const { length } of areas) t.equal(length, PART_FILE_LIMIT)
  const got: string[] = []
  const first = memory.takePart().then((area) => {
    got.push('first')
    return area
  })
  const second = memory.takePart().then(() => got.push('second'))
  await new Promise((resolve) => setTimeout(resolve, 20))
  t.same(got, [])
  memory.givePart(areas[0]!)
  t.equal(await first, areas[0], 'the same memory')
  t.same(got, ['first'])
  memory.givePart(areas[1]!)
  await second
  t.same(got, ['first', 'second'])
})
