import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, statfsSync } from 'node:fs'
import { open, readFile, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { SourceFile } from '../../src/transport/source-file.js'
import { scratchFolder } from '../fixtures/paths.js'

const MiB = 2 ** 20
const never = new AbortController().signal

t.test('a file is copied whole, also to another file system, where the kernel copies by way of memory', async (t) => {
  const here = scratchFolder(t, 'source-file')
  const elsewhere = mkdtempSync('/dev/shm/tidemark-source-file-')
  t.teardown(() => rmSync(elsewhere, { recursive: true, force: true }))
  for (const length of [0, 1, 4095, 4 * MiB, 4 * MiB + 1, 9 * MiB + 77]) {
    const content = randomBytes(length)
    await writeFile(join(here, 'from'), content)
    for (const folder of [here, elsewhere]) {
      const source = await SourceFile.open(join(here, 'from'))
      const target = await open(join(folder, 'to'), 'w')
      let told = 0
      await source.copyTo(target, never, (bytes) => {
        told += bytes
      })
      await target.close()
      await source.close()
      t.ok(
        (await readFile(join(folder, 'to'))).equals(content),
        `${length} bytes in ${folder === here ? 'place' : 'memory'}`,
      )
      t.equal(told, length, 'and as many were told of')
    }
  }
})

t.test('a file system that shares blocks is not made to hold the file twice', async (t) => {
  const folder = scratchFolder(t, 'source-file')
  const disk = join(folder, 'disk')
  const image = join(folder, 'image')
  mkdirSync(disk)
  await writeFile(image, '')
  await truncate(image, 400 * MiB)
  execFileSync('mkfs.xfs', ['-q', '-m', 'reflink=1', image])
  execFileSync('mount', ['-o', 'loop', image, disk])
  t.teardown(() => execFileSync('umount', [disk]))
  const content = randomBytes(20 * MiB + 9)
  await writeFile(join(disk, 'from'), content)
  execFileSync('sync', ['-f', disk])
  const freeBytes = (): number => {
    const { bfree, bsize } = statfsSync(disk)
    return bfree * bsize
  }
  const before = freeBytes()
  const source = await SourceFile.open(join(disk, 'from'))
  const target = await open(join(disk, 'to'), 'w')
  await source.copyTo(target, never)
  await target.sync()
  await target.close()
  t.ok((await readFile(join(disk, 'to'))).equals(content))
  t.ok(before - freeBytes() < 2 * MiB, `${before - freeBytes()} bytes less`)
  await truncate(join(disk, 'from'), MiB)
  const again = await open(join(disk, 'to'), 'w')
  await t.rejects(source.copyTo(again, never), { code: 'SOURCE_FILE' }, 'a file that became shorter')
  await again.close()
  await source.close()
})

t.test('whether reading or writing fails is told apart', async (t) => {
  const folder = scratchFolder(t, 'source-file')
  const from = join(folder, 'from')
  await writeFile(from, randomBytes(5 * MiB))
  const source = await SourceFile.open(from)
  t.teardown(() => source.close())
  const readOnly = await open(from, 'r')
  t.teardown(() => readOnly.close())
  await t.rejects(source.copyTo(readOnly, never), { code: 'EBADF', syscall: 'write' })
  const target = await open(join(folder, 'to'), 'w')
  t.teardown(() => target.close())
  await truncate(from, 3 * MiB)
  await t.rejects(source.copyTo(target, never), { code: 'SOURCE_FILE' }, 'a file that became shorter')
  const full = await open('/dev/full', 'w')
  t.teardown(() => full.close())
  await t.rejects(source.copyTo(full, never), { code: 'ENOSPC', syscall: 'write' })
})

t.test('a copy that is called off ends between two pieces', async (t) => {
  const folder = scratchFolder(t, 'source-file')
  await writeFile(join(folder, 'from'), randomBytes(9 * MiB))
  const source = await SourceFile.open(join(folder, 'from'))
  const target = await open(join(folder, 'to'), 'w')
  const stop = new AbortController()
  const copying = source.copyTo(target, stop.signal, () => stop.abort())
  await t.rejects(copying, { name: 'AbortError' })
  t.equal((await target.stat()).size, 4 * MiB)
  await target.close()
  await source.close()
})
