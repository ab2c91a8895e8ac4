/** A source buffer moves while hosts write and its agent dies. */
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { StreamView } from '../../src/api/agent-operations.js'
import { Agent, pair } from '../fixtures/agent.js'
import { LoadedStream } from '../fixtures/crashes.js'
import { scratchFolder } from '../fixtures/paths.js'

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
const third = `/dev/shm/tidemark-buffer-move-${process.pid}`
t.teardown(() => rmSync(third, { recursive: true, force: true }))

/** The destination cannot be reached: files collect in the buffer. */
async function filled(least: number): Promise<StreamView> {
  renameSync(between, away)
  return source.until(status, ({ buffer }) => buffer.usedBytes >= least, 60_000)
}

t.test('a directory that is not empty, lies in the buffer or on a volume is refused', async (t) => {
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
  const { buffer } = await filled(4 << 20)
  for (const directory of [first, second]) {
    const before = files((await status()).buffer.directory).length
    t.ok(before > 10, `${before} files wait`)
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

t.test('kill -9 in the middle of a move to another file system, ten times', async (t) => {
  const from = (await status()).buffer.directory
  await source.cli('buffer', 'move', name, third)
  let interrupted = 0
  for (let kill = 0; kill < 10 && (await status()).buffer.move !== null; kill++) {
    const to = (await status()).buffer.directory
    if (files(from).length > 0 && files(to).length > 0) interrupted += 1
    await source.kill()
    await source.start()
  }
  t.comment(`kills with files in both folders: ${interrupted}`)
  const { buffer } = await source.until(status, ({ buffer }) => buffer.move === null, 60_000)
  t.ok(buffer.directory.startsWith(`${third}/`))
  t.notOk(existsSync(from))
})

t.test('a move that is called off goes back', async (t) => {
  const { directory } = (await status()).buffer
  const back = await source.cli<StreamView>('buffer', 'move', name, first)
  const aborted = await source.run('buffer', 'abort', name, '--wait')
  const { buffer } = await source.until(status, ({ buffer }) => buffer.move === null)
  if (aborted.code === 0) t.equal(buffer.directory, directory)
  else t.same([aborted.errorCode, buffer.directory], ['BUFFER_NOT_MOVING', back.buffer.directory], 'it was over before')
  t.same(files(aborted.code === 0 ? back.buffer.directory : directory), [])
})

t.test(
  'while it moves files are sent, and when all is sent both sides are equal without a new first copy',
  async (t) => {
    renameSync(away, between)
    await source.cli('buffer', 'move', name, join(source.state, 'buffer'))
    await stream.end(t)
    const { buffer } = await source.until(status, ({ buffer }) => buffer.move === null)
    t.match(buffer, { directory: home, usedBytes: 0 })
    for (const directory of [first, second, third]) t.same(existsSync(directory) ? readdirSync(directory) : [], [])
    const events = await source.events()
    t.same(
      events.filter(({ code }) => /FAILED|DIVERGED|MAPPING|SOURCE_FILE/.test(code)).map(({ code }) => code),
      [],
      'and nobody missed a file',
    )
  },
)
