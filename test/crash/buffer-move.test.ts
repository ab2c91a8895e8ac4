/** A source buffer moves while hosts write and its agent dies. */
import { existsSync, mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { StreamView } from '../../src/api/agent-operations.js'
import { Agent, pair } from '../fixtures/agent.js'
import { LoadedStream } from '../fixtures/crashes.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { scratchFolder } from '../fixtures/paths.js'
import { command } from '../fixtures/sites.js'

const name = 'load-buffer-move'
const folder = scratchFolder(t, 'buffer-move')
const between = join(folder, 'between')
const away = join(folder, 'away')
mkdirSync(between)
const source = await Agent.start(t, folder, 'source')
const destination = await Agent.start(t, folder, 'destination')
await pair(source, destination, { via: 'folder', folder: between })
const stream = new LoadedStream({ folder, source, destination }, name)
await stream.begin()

const status = () => source.streamStatus(name)
const files = (directory: string): string[] =>
  existsSync(directory) ? readdirSync(directory).filter((file) => file.endsWith('.tmr')) : []
const home = (await status()).buffer.directory
const first = join(folder, 'first')
const second = join(folder, 'second')
/** Another file system: files are copied. */
const small = join(folder, 'small')
mkdirSync(small)
remember({ kind: 'mount', path: small })
await command('mount', '-t', 'tmpfs', '-o', 'size=1g,nr_inodes=12,mode=700', 'tmpfs', small)
t.teardown(async () => {
  await command('umount', '-l', small)
  forget({ kind: 'mount', path: small })
})

/** The destination cannot be reached: files collect in the buffer. */
async function filled(least: number): Promise<StreamView> {
  renameSync(between, away)
  return source.until(status, ({ buffer }) => buffer.usedBytes >= least, 60_000)
}

t.test('a directory that is not empty, or lies in the buffer, is refused', async (t) => {
  const refusal = async (directory: string) => (await source.run('buffer', 'move', name, directory)).errorCode
  mkdirSync(join(folder, 'taken'))
  writeFileSync(join(folder, 'taken', 'file'), '')
  t.equal(await refusal(join(folder, 'taken')), 'DIRECTORY_NOT_EMPTY')
  t.equal(await refusal(join(home, 'inner')), 'BAD_DIRECTORY')
  t.equal(await refusal(join(source.state, 'buffer')), 'BUFFER_IN_USE')
  t.equal(await refusal(join(folder, 'taken', 'file')), 'BAD_DIRECTORY')
  t.equal((await source.run('buffer', 'abort', name)).errorCode, 'BUFFER_NOT_MOVING')
  t.match((await status()).buffer, { directory: home, move: null })
})

t.test('under load and with a full buffer it moves twice in a row, and nothing stays behind', async (t) => {
  const { buffer } = await filled(8 << 20)
  for (const directory of [first, second]) {
    const before = files((await status()).buffer.directory).length
    t.ok(before > 5, `${before} files wait`)
    const from = (await status()).buffer.directory
    const moved = await source.cli<StreamView>('buffer', 'move', name, directory, '--wait')
    t.match(moved.buffer, { move: null })
    t.ok(moved.buffer.directory.startsWith(`${directory}/`))
    t.notOk(existsSync(from), 'the old folder is gone')
    t.ok(files(moved.buffer.directory).length >= before)
    t.ok(moved.buffer.usedBytes >= buffer.usedBytes)
  }
  t.same(readdirSync(first), [])
  await stream.awhile()
})

/** To a file system that has room enough, and then no inodes. */
async function halfMoved(): Promise<{ from: string; to: string }> {
  const { directory: from } = (await status()).buffer
  await source.cli('buffer', 'move', name, small)
  const { buffer } = await source.until(status, ({ buffer }) => /ENOSPC/.test(buffer.move?.trouble ?? ''), 60_000)
  return { from, to: buffer.directory }
}

function checkBoth(t: Pick<Test, 'ok'>, { from, to }: { from: string; to: string }): void {
  const [left, moved] = [files(from).length, files(to).length]
  t.ok(left > 0 && moved > 0, `${moved} files are moved, ${left} are not`)
}

t.test('kill -9 in the middle of a move that has no room left; called off, everything goes back', async (t) => {
  const folders = await halfMoved()
  checkBoth(t, folders)
  await source.kill()
  await source.start()
  t.match((await status()).buffer, { directory: folders.to, move: { from: folders.from, returning: false } })
  checkBoth(t, folders)
  const { buffer } = await source.cli<StreamView>('buffer', 'abort', name, '--wait')
  t.match(buffer, { directory: folders.from, move: null })
  t.same(readdirSync(small), [], 'nothing is left where it should have gone')
  await stream.awhile()
})

t.test('kill -9 in the middle of a move; with room again it goes on to its end by itself', async (t) => {
  const folders = await halfMoved()
  checkBoth(t, folders)
  await source.kill()
  await source.start()
  checkBoth(t, folders)
  await command('mount', '-o', 'remount,nr_inodes=100k', small)
  const { buffer } = await source.until(status, ({ buffer }) => buffer.move === null, 60_000)
  t.equal(buffer.directory, folders.to)
  t.notOk(existsSync(folders.from))
})

t.test(
  'while it moves files are sent, and when all is sent both sides are equal without a new first copy',
  async (t) => {
    renameSync(away, between)
    await source.cli('buffer', 'move', name, join(source.state, 'buffer'))
    await stream.end(t)
    const { buffer } = await source.until(status, ({ buffer }) => buffer.move === null)
    t.match(buffer, { directory: home, usedBytes: 0 })
    for (const directory of [first, second, small]) t.same(readdirSync(directory), [])
    const events = await source.events()
    t.same(
      events.filter(({ code }) => /FAILED|DIVERGED|MAPPING|SOURCE_FILE/.test(code)).map(({ code }) => code),
      [],
      'and nobody missed a file',
    )
  },
)
