import { randomBytes } from 'node:crypto'
import { mkdir, readdir, symlink, truncate, writeFile } from 'node:fs/promises'
import path from 'node:path'
import t from 'tap'
import { folderTransport } from '../../src/transport/folder-transport.js'
import { mountFreezableDisk } from '../fixtures/freezable-disk.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { residentBytes } from '../fixtures/page-cache.js'
import { scratchFolder } from '../fixtures/paths.js'
import { command } from '../fixtures/sites.js'
import { mountSmallDisk } from '../fixtures/small-disk.js'
import { transportContract } from './transport-contract.js'

const never = new AbortController().signal
const folder = 'ab'.repeat(16)

await transportContract('folder', async (scratch) => {
  const directory = path.join(scratch, 'disk')
  await mkdir(directory)
  const id = randomBytes(16)
  return {
    open: () => folderTransport({ kind: 'folder', directory }, id),
    arrivals: path.join(directory, id.toString('hex')),
    close: async () => undefined,
  }
})

await t.test('what is large is not in the page cache once it was put, neither here nor there', async (t) => {
  const scratch = scratchFolder(t, 'folder-transport')
  const directory = path.join(scratch, 'disk')
  await mkdir(directory)
  const id = randomBytes(16)
  const transport = folderTransport({ kind: 'folder', directory }, id)
  const local = path.join(scratch, 'local')
  await writeFile(local, randomBytes(9_000_001), { flush: true })
  t.ok(residentBytes(local) >= 9_000_001, 'it was')
  await transport.put(folder, 'a', local, { signal: never })
  const there = path.join(directory, id.toString('hex'), folder)
  t.equal(residentBytes(local) + residentBytes(path.join(there, 'a')), 0)
  await truncate(local, 1_000_001)
  await transport.put(folder, 'b', local, { signal: never })
  t.ok(residentBytes(path.join(there, 'b')) >= 1_000_001, 'a small one may be read a moment later')
  await transport.close()
})

await t.test('a directory that is not mounted is never made', async (t) => {
  const directory = path.join(t.testdir(), 'absent')
  const transport = folderTransport({ kind: 'folder', directory }, randomBytes(16))
  await t.rejects(transport.test(never), { code: 'NOT_FOUND', hint: /mount/ })
  await t.rejects(readdir(directory), { code: 'ENOENT' })
})

await t.test('a link in the place of a folder or file is not followed', async (t) => {
  const scratch = t.testdir({ disk: {}, elsewhere: { secret: 'secret' }, local: 'content' })
  const directory = path.join(scratch, 'disk')
  const id = randomBytes(16)
  const transport = folderTransport({ kind: 'folder', directory }, id)
  const pair = path.join(directory, id.toString('hex'))
  await symlink(path.join(scratch, 'elsewhere'), pair)
  await t.rejects(transport.put(folder, 'a', path.join(scratch, 'local'), { signal: never }), { code: 'NOT_A_FOLDER' })
  await t.rejects(transport.list(folder, never), { code: 'NOT_A_FOLDER' })
  t.same(await readdir(path.join(scratch, 'elsewhere')), ['secret'])

  const other = randomBytes(16)
  const second = folderTransport({ kind: 'folder', directory }, other)
  const inside = path.join(directory, other.toString('hex'), folder)
  await mkdir(inside, { recursive: true })
  await symlink(path.join(scratch, 'elsewhere', 'secret'), path.join(inside, 'a'))
  await symlink(path.join(scratch, 'elsewhere', 'secret'), path.join(inside, 'b.partial'))
  await t.rejects(second.read(folder, 'a', 100, never), { code: 'NOT_A_FOLDER' })
  t.same(await second.list(folder, never), [])
  await second.put(folder, 'b', path.join(scratch, 'local'), { signal: never })
  t.same(await readdir(path.join(scratch, 'elsewhere')), ['secret'])
  t.equal(String(await second.read(folder, 'b', 100, never)), 'content')
})

await t.test('a full disk is REMOTE_FULL and keeps no part of the file', async (t) => {
  const scratch = t.testdir()
  await writeFile(path.join(scratch, 'local'), randomBytes(4 * 1024 * 1024))
  const disk = await mountSmallDisk(2 * 1024 * 1024)
  t.teardown(() => disk.unmount())
  const transport = folderTransport({ kind: 'folder', directory: disk.directory }, randomBytes(16))
  await t.rejects(transport.put(folder, 'a', path.join(scratch, 'local'), { signal: never }), {
    code: 'REMOTE_FULL',
    retry: 'later',
  })
  t.same(await transport.list(folder, never), [])
})

await t.test(
  'a folder that hangs fails every call within its time, also of who gives up, and works again later',
  async (t) => {
    const scratch = scratchFolder(t, 'folder-hangs')
    await writeFile(path.join(scratch, 'local'), 'content')
    const disk = await mountFreezableDisk(scratch, 64 * 1024 * 1024)
    const mount = { kind: 'mount', path: disk.directory } as const
    remember(mount)
    const transport = folderTransport({ kind: 'folder', directory: disk.directory }, randomBytes(16), {
      silenceMs: 5_000,
    })
    t.teardown(async () => {
      await disk.thaw()
      await transport.close()
      await command('umount', '-l', disk.directory)
      forget(mount)
    })
    const put = (signal: AbortSignal): Promise<void> =>
      transport.put(folder, 'a', path.join(scratch, 'local'), { signal })
    await put(never)
    await disk.freeze()
    const abort = new AbortController()
    const given = put(abort.signal)
    abort.abort()
    await t.rejects(given, { name: 'AbortError' })
    await t.rejects(put(never), { code: 'LINK_DOWN', retry: 'later', cause: { code: 'LINK_TIMEOUT' } })
    await t.rejects(put(never), { code: 'LINK_DOWN' }, 'at once: there is no second process')
    await disk.thaw()
    for (;;) {
      const works = await put(never).then(
        () => true,
        (error) => !t.match(error, { code: 'LINK_DOWN' }),
      )
      if (works) break
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    t.equal(String(await transport.read(folder, 'a', 100, never)), 'content')
  },
)
