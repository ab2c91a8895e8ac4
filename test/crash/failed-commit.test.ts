/**
 * ext4's journal fails to commit, and who asked for that is told. What lies in the same transaction is lost as well, and whoever
 * syncs it afterwards must be told so; fdatasync() says yes: native/sys/data_sync.h.
 */
import { type ChildProcessByStdio, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, open, rename, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import t, { type Test } from 'tap'
import { syncDirectory } from '../../src/block/durable-file.js'
import { MiB } from '../../src/block/units.js'
import { StateLog } from '../../src/daemon/state-log.js'
import { Backing } from '../../src/volume/backing.js'
import { badDisk } from '../fixtures/bad-disk.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { scratchFolder } from '../fixtures/paths.js'
import type { PowerCutDevice } from '../fixtures/power-cut.js'
import { Rig } from '../intercept/rig.js'

async function sparse(file: string): Promise<string> {
  await writeFile(file, '')
  await truncate(file, MiB)
  return file
}

/** @returns two sparse files of 1 MiB, durable, on an ext4 */
async function files(t: Test, disk: PowerCutDevice): Promise<{ file: string; other: string }> {
  await disk.format('ext4')
  await disk.mount()
  t.teardown(() => disk.drop())
  const file = await sparse(join(disk.mountPoint, 'file'))
  const other = await sparse(join(disk.mountPoint, 'other'))
  execFileSync('sync', ['--file-system', file])
  return { file, other }
}

/** Blocks of both get their places in one transaction, which fails. */
async function failCommit(disk: PowerCutDevice, file: string, other: string): Promise<void> {
  for (const each of [file, other]) {
    execFileSync(
      'dd',
      ['if=/dev/urandom', `of=${each}`, 'bs=4096', 'count=1', 'seek=5', 'oflag=direct', 'conv=notrunc'],
      {
        stdio: 'ignore',
      },
    )
  }
  await disk.fail('flush', 0, 1)
  const handle = await open(other, 'r+')
  await handle.datasync().then(
    () => {
      throw new Error('the commit did not fail')
    },
    () => undefined,
  )
  await handle.close()
}

t.test(
  'a volume does not believe a sync after a commit that held its blocks has failed for somebody else',
  async (t) => {
    const disk = await badDisk(t, scratchFolder(t, 'failed-commit'), 'disk', 64 * MiB)
    const { file, other } = await files(t, disk)
    const rig = await Rig.open()
    t.teardown(() => rig.close())
    const volume = rig.volume(file)
    await volume.syncBacking()
    await failCommit(disk, file, other)
    await t.rejects(volume.syncBacking(), { code: 'IO_FAILED' })
  },
)

t.test('what is applied to an image is not called durable after such a commit', async (t) => {
  const disk = await badDisk(t, scratchFolder(t, 'failed-commit'), 'disk', 64 * MiB)
  const { file, other } = await files(t, disk)
  const image = new Backing(file, 'write')
  t.teardown(() => image.close())
  image.sync()
  await failCommit(disk, file, other)
  t.throws(() => image.sync(), { code: 'BACKING_UNAVAILABLE' })
})

t.test('nor is a name in a folder', async (t) => {
  const disk = await badDisk(t, scratchFolder(t, 'failed-commit'), 'disk', 64 * MiB)
  const { file, other } = await files(t, disk)
  const folder = join(disk.mountPoint, 'folder')
  await mkdir(folder)
  await syncDirectory(folder)
  await rename(file, join(folder, 'file'))
  await failCommit(disk, join(folder, 'file'), other)
  await t.rejects(syncDirectory(folder), { code: 'EROFS' })
})

/**
 * Fills the first file of a state, and stops right before the sync that its turn to the other one ends with: what it wrote there
 * is on the disk, as if the kernel had written it back, and its place in the file is in no commit yet.
 */
const turnScript = `
  import { execFileSync } from 'node:child_process'
  import { open } from 'node:fs/promises'
  import { readlinkSync, readSync } from 'node:fs'
  import { StateLog } from ${JSON.stringify(new URL('../../src/daemon/state-log.js', import.meta.url).href)}
  const store = await StateLog.open(process.argv[1])
  const probe = await open('/dev/null', 'r')
  const prototype = Object.getPrototypeOf(probe)
  const { datasync } = prototype
  let turned = false
  prototype.datasync = function () {
    const file = readlinkSync('/proc/self/fd/' + this.fd)
    if (file.endsWith('state.1')) {
      execFileSync('dd', ['if=' + file, 'of=/dev/null', 'bs=1M', 'iflag=direct'], { stdio: 'ignore' })
      console.log('turns')
      readSync(0, Buffer.alloc(1))
      turned = true
    }
    return datasync.call(this)
  }
  for (let n = 1; !turned; n++) {
    await store.put({ last: n, filler: 'x'.repeat(60_000) })
    console.log(n)
  }
`

interface Turning {
  readonly child: ChildProcessByStdio<Writable, Readable, Readable>
  /** What its caller was told last is recorded. */
  readonly answered: () => number
  readonly errors: () => string
}

/** It stands before the sync when it resolves, and goes on with the next byte it gets. */
async function turning(directory: string): Promise<Turning> {
  const child = spawn(process.execPath, ['--input-type=module', '-e', turnScript, directory], {
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  remember({ kind: 'process', pid: child.pid! })
  child.once('close', () => forget({ kind: 'process', pid: child.pid! }))
  let [answered, errors] = [0, '']
  child.stderr.on('data', (chunk: Buffer) => {
    errors += chunk.toString()
  })
  const lines = createInterface({ input: child.stdout })
  await new Promise<void>((resolve, reject) => {
    child.once('close', () => reject(new Error(`it ended: ${errors}`)))
    lines.on('line', (line) => {
      if (line === 'turns') resolve()
      else answered = Number(line)
    })
  })
  return { child, answered: () => answered, errors: () => errors }
}

/** The machine goes down, and what its disk has of the state is read. */
async function lastOnDisk(disk: PowerCutDevice, directory: string): Promise<number | undefined> {
  await disk.drop()
  await disk.mount()
  const store = await StateLog.open(directory)
  await store.close()
  return store.get<number>('last')
}

t.test('nor does the agent go on whose state has taken its other file in such a commit', async (t) => {
  const disk = await badDisk(t, scratchFolder(t, 'failed-commit'), 'disk', 64 * MiB)
  const { file, other } = await files(t, disk)
  const directory = join(disk.mountPoint, 'state')
  await mkdir(directory)
  const { child, answered, errors } = await turning(directory)
  await failCommit(disk, file, other)
  child.stdin.write('\n')
  const [code] = await once(child, 'close')
  t.not(code, 0)
  t.match(errors(), /STATE_FAILED/)
  t.equal(await lastOnDisk(disk, directory), answered(), 'what was answered is there, and nothing else')
})

t.test('nor does the next agent believe what one that was killed left of its state in such a commit', async (t) => {
  const disk = await badDisk(t, scratchFolder(t, 'failed-commit'), 'disk', 64 * MiB)
  const { file, other } = await files(t, disk)
  const directory = join(disk.mountPoint, 'state')
  await mkdir(directory)
  // To note the time of a read is a change, too, which would be refused.
  execFileSync('mount', ['-o', 'remount,noatime', disk.mountPoint])
  const { child, answered } = await turning(directory)
  child.kill('SIGKILL')
  await once(child, 'close')
  await failCommit(disk, file, other)
  await t.rejects(StateLog.open(directory), { code: 'STATE_UNAVAILABLE' })
  t.equal(await lastOnDisk(disk, directory), answered())
})
