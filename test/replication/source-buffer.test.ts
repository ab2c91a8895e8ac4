/** The folder of a source buffer, and its move to another one: what a crash at each step leaves. */
import { existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { type BufferFiles, bufferFiles } from '../../src/replication/buffer-files.js'
import { SourceBuffer } from '../../src/replication/source-buffer.js'
import { StreamState } from '../../src/replication/stream-state.js'
import { MemoryStore } from '../fixtures/memory-store.js'
import { scratchFolder } from '../fixtures/paths.js'

const folder = scratchFolder(t, 'source-buffer')
let serial = 0

/** A store and file operations that all fail from the n-th step on, as if the process had died before it. */
class Mortal extends MemoryStore {
  steps = 0
  diesAt = Number.POSITIVE_INFINITY
  /** The folders are on two file systems: no file can have a name in both. */
  apart = false
  /** Copies find no room. */
  full = false
  /** Nothing in this folder can be removed. */
  readOnly = ''

  step(): void {
    if (++this.steps >= this.diesAt) throw new Error('dead')
  }

  override async put(entries: Record<string, unknown>): Promise<void> {
    this.step()
    await super.put(entries)
  }

  override async remove(keys: readonly string[]): Promise<void> {
    this.step()
    await super.remove(keys)
  }

  get files(): BufferFiles {
    const mortal =
      <A extends unknown[], R>(act: (...given: A) => Promise<R>) =>
      async (...given: A): Promise<R> => {
        this.step()
        return act(...given)
      }
    const { list, copy, syncFile, rename, syncDirectory, remove, removeFolder } = bufferFiles
    const link = async (from: string, to: string): Promise<void> => {
      if (this.apart) throw Object.assign(new Error('another file system'), { code: 'EXDEV' })
      await bufferFiles.link(from, to)
    }
    return {
      list: mortal(list),
      link: mortal(link),
      copy: mortal(async (from, to) => {
        if (this.full) throw Object.assign(new Error('no room'), { code: 'ENOSPC' })
        await copy(from, to)
      }),
      syncFile: mortal(syncFile),
      rename: mortal(rename),
      syncDirectory: mortal(syncDirectory),
      remove: mortal(async (file) => {
        if (this.readOnly !== '' && file.startsWith(this.readOnly)) {
          throw Object.assign(new Error('read-only'), { code: 'EROFS' })
        }
        await remove(file)
      }),
      removeFolder: mortal(removeFolder),
    }
  }
}

async function until(holds: () => boolean): Promise<void> {
  const deadline = performance.now() + 20_000
  while (!holds()) {
    if (performance.now() > deadline) throw new Error('not within 20 s')
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

class Rig {
  readonly home: string
  readonly other: string
  readonly store = new Mortal()
  readonly said: string[] = []
  state = new StreamState(this.store, 's')
  buffer: SourceBuffer

  constructor() {
    const at = join(folder, String(++serial))
    this.home = join(at, 'home/files')
    this.other = join(at, 'other/s-01234567/files')
    this.buffer = this.#make()
  }

  #make(): SourceBuffer {
    const say = (_: string, code: string): void => void this.said.push(code)
    return new SourceBuffer({ home: this.home, state: this.state, files: this.store.files, say })
  }

  /** The next life of the agent. */
  async restart(): Promise<void> {
    this.store.diesAt = Number.POSITIVE_INFINITY
    this.state = new StreamState(this.store, 's')
    this.buffer = this.#make()
    await this.buffer.open()
  }

  /** An epoch of two files, whose content tells its number and the attempt. */
  async cut(epoch: number, attempt = 'once', meanwhile?: () => Promise<void>): Promise<void> {
    await this.buffer.write(async (directory, placed) => {
      const names = [1, 2].map((part) => `e${epoch}-p${part}`)
      for (const name of names) writeFileSync(join(directory, name), `${name} ${attempt}`)
      await meanwhile?.()
      placed(names)
      const parts = names.map((name) => ({ name, lengthBytes: `${name} ${attempt}`.length }))
      await this.state.commitEpoch(
        { epoch, endLsn: String(epoch), parts, rawBytes: 1, oldestMs: 0 },
        { cutEpoch: epoch },
      )
    })
  }

  /** What each epoch's files hold, as a sender would find them now. */
  content(): Record<string, string> {
    const names = [...this.state.epochs.values()].flatMap(({ parts }) => parts.map(({ name }) => name))
    return Object.fromEntries(names.map((name) => [name, readFileSync(this.buffer.file(name), 'utf8')]))
  }

  async settled(): Promise<void> {
    await until(() => this.buffer.move === null)
    await this.buffer.close()
  }
}

const expected = (epochs: readonly number[], attempt = 'once'): Record<string, string> =>
  Object.fromEntries(epochs.flatMap((e) => [1, 2].map((p) => [`e${e}-p${p}`, `e${e}-p${p} ${attempt}`])))
const names = (directory: string): string[] => (existsSync(directory) ? readdirSync(directory).sort() : [])

async function rig(epochs: readonly number[] = [1, 2, 3]): Promise<Rig> {
  const made = new Rig()
  await made.buffer.open()
  for (const epoch of epochs) await made.cut(epoch)
  return made
}

t.test('a file that no epoch names is removed at start, others stay', async (t) => {
  const made = await rig()
  writeFileSync(join(made.home, 'e9-p1'), 'never committed')
  await made.restart()
  t.same(made.content(), expected([1, 2, 3]))
  t.same(names(made.home), Object.keys(expected([1, 2, 3])))
})

t.test(
  'what was applied as the agent died goes at start: a buffer that it fills takes no epoch that would release it',
  async (t) => {
    const made = await rig()
    await made.state.move({ appliedEpoch: 2 })
    await made.restart()
    t.same(made.content(), expected([3]))
    t.same(names(made.home), Object.keys(expected([3])))
  },
)

t.test('R8: a file stays until the destination has applied its epoch, whatever was sent behind it', async (t) => {
  const made = await rig()
  await made.state.move({ sentEpoch: 3, appliedEpoch: 1 })
  t.ok(await made.buffer.release(1))
  t.notOk(await made.buffer.release(1))
  t.same(names(made.home), Object.keys(expected([2, 3])))
  await made.restart()
  t.same(made.content(), expected([2, 3]))
})

for (const apart of [false, true]) {
  const where = apart ? 'to another file system' : 'on one file system'
  t.test(`a move ${where}: all files follow, the old folder goes, and a second move brings them back`, async (t) => {
    const made = await rig()
    made.store.apart = apart
    await made.buffer.moveTo(made.other)
    await made.cut(4)
    await made.settled()
    t.equal(made.buffer.directory, made.other)
    t.same(made.content(), expected([1, 2, 3, 4]))
    t.notOk(existsSync(made.home))
    t.same(names(made.other), Object.keys(expected([1, 2, 3, 4])), 'no left-overs')
    t.same(made.state.bufferPlace, { directory: made.other, leaving: null, returning: false, totalBytes: 0 })
    await made.restart()
    t.same(made.content(), expected([1, 2, 3, 4]), 'after a restart, too')
    await made.buffer.moveTo(made.home)
    await made.settled()
    t.same(made.content(), expected([1, 2, 3, 4]))
    t.notOk(existsSync(made.other))
    t.equal(made.state.bufferPlace, undefined, 'at home nothing is recorded')
    t.same(made.said.filter((code) => code === 'BUFFER_MOVED').length, 2)
  })

  for (const abort of [false, true]) {
    const what = abort ? 'a move that is called off' : 'a move'
    t.test(`a crash at every step of ${what} ${where} loses nothing`, async (t) => {
      let died = 0
      let inBoth = 0
      for (let diesAt = 1; ; diesAt++) {
        const made = await rig([1, 2])
        made.store.apart = apart
        made.store.steps = 0
        made.store.diesAt = diesAt
        const act = async (): Promise<void> => {
          await made.buffer.moveTo(made.other)
          await made.cut(3)
          if (abort) await made.buffer.abortMove()
          if (abort) await made.cut(4)
        }
        const failed = await act().then(
          () => undefined,
          (error) => error,
        )
        if (failed && !/dead|NOT_MOVING/.test(String(failed))) throw failed
        while (made.buffer.move !== null && made.store.steps < diesAt) {
          await new Promise((resolve) => setTimeout(resolve, 1))
        }
        await made.buffer.close()
        const whole = made.store.steps < diesAt
        if (!whole) died += 1
        const committed = [...new StreamState(made.store, 's').epochs.keys()]
        if (names(made.home).some((name) => names(made.other).includes(name))) inBoth += 1
        await made.restart()
        t.same(made.content(), expected(committed), `step ${diesAt}: every file is found, whole`)
        await made.cut(committed.length + 1)
        await made.settled()
        const all = expected([...committed, committed.length + 1])
        t.same(made.content(), all, `step ${diesAt}: and when the move is over`)
        t.same(names(made.buffer.directory), Object.keys(all), `step ${diesAt}: and nothing else`)
        const left = made.buffer.directory === made.home ? made.other : made.home
        t.same(names(left), [], `step ${diesAt}: the other folder holds nothing`)
        if (whole) break
      }
      t.ok(died > (apart ? 25 : 15), `crashes: ${died}, of them with a file in both folders: ${inBoth}`)
      t.ok(inBoth > 0)
    })
  }
}

t.test('what is being read stays where it is until it was read', async (t) => {
  const made = await rig([1])
  let read = (): void => undefined
  const reading = made.buffer.read('e1-p1', async (file) => {
    await new Promise<void>((resolve) => {
      read = resolve
    })
    return readFileSync(file, 'utf8')
  })
  await made.buffer.moveTo(made.other)
  await new Promise((resolve) => setTimeout(resolve, 200))
  t.same(names(made.home), ['e1-p1'])
  t.ok(made.buffer.move)
  read()
  t.equal(await reading, 'e1-p1 once')
  await made.settled()
  t.notOk(existsSync(made.home))
  t.same(made.content(), expected([1]))
})

t.test('an epoch that is being written as the move begins ends in the old folder, and follows', async (t) => {
  const made = await rig([1])
  await made.cut(2, 'once', async () => {
    await made.buffer.moveTo(made.other)
    await new Promise((resolve) => setTimeout(resolve, 200))
    t.ok(made.buffer.move, 'the move waits for it')
  })
  await made.settled()
  t.same(made.content(), expected([1, 2]))
  t.notOk(existsSync(made.home))
})

t.test('files of an attempt that failed are never taken for those of the epoch', async (t) => {
  for (const end of ['the move ends', 'it is called off', 'a crash']) {
    const made = await rig([1])
    await t.rejects(
      made.cut(2, 'failed', () => Promise.reject(new Error('disk full'))),
      /disk full/,
    )
    const reading = made.buffer.read('e1-p1', () => new Promise((resolve) => setTimeout(resolve, 100)))
    await made.buffer.moveTo(made.other)
    if (end !== 'the move ends') writeFileSync(join(made.home, 'e2-p1'), 'e2-p1 failed')
    await made.cut(2)
    if (end === 'it is called off') await made.buffer.abortMove()
    if (end === 'a crash') {
      await made.buffer.close()
      await made.restart()
    }
    t.same(made.content(), expected([1, 2]), end)
    await reading
    await made.settled()
    t.same(made.content(), expected([1, 2]), end)
  }
})

t.test('a released epoch leaves nothing in either folder, whenever it is released', async (t) => {
  const made = await rig(Array.from({ length: 40 }, (_, at) => at + 1))
  made.store.apart = true
  await made.buffer.moveTo(made.other)
  for (let epoch = 1; epoch <= 40; epoch++) await made.buffer.release(epoch)
  await made.settled()
  t.same([names(made.home), names(made.other)], [[], []])
})

t.test(
  'a folder that is not there (its file system is not mounted) is not made, and what is in it is found again',
  async (t) => {
    const made = await rig()
    await made.buffer.moveTo(made.other)
    await made.settled()
    renameSync(made.other, `${made.other}.away`)
    await made.restart()
    t.notOk(existsSync(made.other))
    t.equal(made.state.epochs.size, 3)
    renameSync(`${made.other}.away`, made.other)
    t.same(made.content(), expected([1, 2, 3]))
  },
)

t.test('a move that finds no room says so once, and goes on when there is some', async (t) => {
  const made = await rig()
  Object.assign(made.store, { apart: true, full: true })
  await made.buffer.moveTo(made.other)
  await made.cut(4)
  await until(() => made.buffer.move?.trouble != null)
  t.match(made.buffer.move, { from: made.home, returning: false, trouble: /no room/ })
  t.ok(made.buffer.move!.doneBytes < made.buffer.move!.totalBytes)
  t.same(made.content(), expected([1, 2, 3, 4]))
  await t.rejects(made.buffer.moveTo(join(folder, 'x')), { code: 'BUFFER_MOVE_RUNNING' })
  made.store.full = false
  await made.settled()
  t.same(made.content(), expected([1, 2, 3, 4]))
  t.same(made.said, ['BUFFER_MOVE_STARTED', 'BUFFER_MOVE_WAITS', 'BUFFER_MOVED'])
})

t.test('a move that finds no room can be called off', async (t) => {
  const made = await rig()
  await t.rejects(made.buffer.abortMove(), { code: 'BUFFER_NOT_MOVING' })
  Object.assign(made.store, { apart: true, full: true })
  await made.buffer.moveTo(made.other)
  await until(() => made.buffer.move?.trouble != null)
  await made.buffer.abortMove()
  await made.settled()
  t.equal(made.buffer.directory, made.home)
  t.same(made.content(), expected([1, 2, 3]))
  t.notOk(existsSync(made.other))
})

t.test('a buffer that is removed has never been moved', async (t) => {
  const made = await rig()
  await made.buffer.moveTo(made.other)
  await made.buffer.remove()
  t.same([names(made.home), names(made.other), made.state.epochs.size], [[], [], 0])
  t.equal(made.state.bufferPlace, undefined)
  t.equal(made.buffer.directory, made.home)
})

t.test('a move off a disk that has become read-only ends, and says what it left there', async (t) => {
  const made = await rig()
  Object.assign(made.store, { apart: true, readOnly: made.home })
  await made.buffer.moveTo(made.other)
  await made.cut(4)
  await made.settled()
  t.equal(made.buffer.directory, made.other)
  t.same(made.content(), expected([1, 2, 3, 4]))
  t.same(names(made.home), Object.keys(expected([1, 2, 3])))
  t.same(made.said, ['BUFFER_MOVE_STARTED', 'BUFFER_LEFT', 'BUFFER_MOVED'])
  await made.restart()
  t.same(made.content(), expected([1, 2, 3, 4]))
})

t.test('a move back onto such a disk is refused with a code, and goes on as it was', async (t) => {
  const made = await rig()
  Object.assign(made.store, { apart: true, full: true, readOnly: made.home })
  await made.buffer.moveTo(made.other)
  // A left-over of an attempt that failed.
  writeFileSync(join(made.home, 'e9-p1'), 'never committed')
  await t.rejects(made.buffer.abortMove(), { code: 'BUFFER_UNAVAILABLE', retry: 'later' })
  made.store.full = false
  await made.settled()
  t.equal(made.buffer.directory, made.other)
})

t.test('what is applied, or begun anew, or removed on a read-only disk: no error that nobody foresaw', async (t) => {
  const made = await rig()
  made.store.readOnly = made.home
  t.ok(await made.buffer.release(1))
  t.same(made.content(), expected([2, 3]))
  await t.rejects(made.buffer.clear(), { code: 'BUFFER_UNAVAILABLE', retry: 'later' })
  await made.buffer.remove()
  t.same([made.state.epochs.size, made.said], [0, ['BUFFER_LEFT']])
  t.same(names(made.home), Object.keys(expected([1, 2, 3])))
})
