import { execFile, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { open, readFile, stat } from 'node:fs/promises'
import { constants as osConstants } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Worker } from 'node:worker_threads'
import t from 'tap'
import { KiB, MiB } from '../../src/block/units.js'
import type { Fault } from '../../src/intercept/addon.js'
import { fileCalls } from '../../src/intercept/file-calls.js'
import { intercept } from '../../src/intercept/intercept.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { heldBelow, Rig, readAt, readDevice, run } from './rig.js'
import { blockBytes, ThinRig, writeLarge } from './thin-rig.js'

const execute = promisify(execFile)
const here = path.dirname(fileURLToPath(import.meta.url))

async function sizeOf(device: string): Promise<number> {
  return Number(await run('blockdev', '--getsize64', device))
}

t.test(
  'a served file is used by worker threads and other programs, then gets a device, and keeps it or not',
  async (t) => {
    const thin = await ThinRig.open()
    t.teardown(() => thin.close())
    const { native } = thin.newVolume(1, 1024 * MiB + 512)
    const file = await thin.rig.mountPoint('mount')
    await native.serve(file)
    await t.rejects(native.serve(file), { code: 'VOLUME_ATTACHED' })
    t.equal((await stat(file)).size, 1024 * MiB + 512)

    const user = path.join(here, 'thin-file-user.js')
    const worker = new Worker(user, { workerData: file })
    const [code] = await once(worker, 'exit')
    t.equal(code, 0, 'a worker thread')
    await t.resolves(execute(process.execPath, [user, file]), 'another process')

    const { device } = await native.attach(await thin.rig.mountPoint('device'))
    const bytes = randomBytes(MiB)
    await writeLarge(device, 0, bytes, thin.rig.folder)
    t.ok((await readAt(file, 0, MiB)).equals(bytes), 'the file has what the device was given')
    const held = openSync(file, 'r')
    await native.detach()
    t.ok((await readAt(file, 0, MiB)).equals(bytes), 'the file stays')
    await t.rejects(native.close(), { code: 'VOLUME_ATTACHED' })
    await t.rejects(native.unserve(), { code: 'DEVICE_BUSY', message: /pid/ })
    closeSync(held)
    await native.unserve()
    t.equal((await stat(file)).size, 0)
    t.strictSame(await heldBelow(thin.rig.folder), [])

    await native.serve(file)
    const again = await native.attach(thin.rig.file('device'))
    await native.unserve()
    t.equal((await stat(file)).size, 0)
    t.ok((await readDevice(again.device, 0, MiB)).equals(bytes), 'the device stays without the file')
    await native.detach()
    t.strictSame(await heldBelow(thin.rig.folder), [])
  },
)

/** Sets the attribute that takes many writes: `value` is an expression. The error's name, or nothing. */
async function sendBatch(file: string, value: string, name = 'trusted.tidemark.writes'): Promise<string> {
  const program = `
import errno, os, struct, sys
def batch(*writes, count=None):
    table = b''.join(struct.pack('=QII', at, len(bytes), 0) for at, bytes in writes)
    return b''.join(bytes for _, bytes in writes) + table + struct.pack('=Q', len(writes) if count is None else count)
try:
    os.setxattr(sys.argv[1], '${name}', ${value})
except OSError as error:
    print(errno.errorcode[error.errno])
`
  return (await execute('python3', ['-c', program, file])).stdout.trim()
}

t.test('many writes in one request are all done or, where it is not as it should be, none', async (t) => {
  const thin = await ThinRig.open()
  t.teardown(() => thin.close())
  const { native } = thin.newVolume(1, 64 * MiB)
  const file = await thin.rig.mountPoint('mount')
  await native.serve(file)
  const page = "b'a' * 4096"
  for (const wrong of [
    "b''.join([])",
    "b'short'",
    'batch()',
    `batch((0, ${page}), count=2)`,
    `batch((0, ${page}), count=2**61)`,
    `batch((0, ${page}), (512, ${page}))`,
    `batch((0, ${page}), (8192, b'b' * 100))`,
    `batch((0, ${page}), (8192, b''))`,
    `batch((0, ${page}), (${64 * MiB}, ${page}))`,
    `batch((0, ${page}), (2**63, ${page}))`,
    `batch((0, ${page}))[4096:]`,
    `${page} + batch((0, ${page}))`,
  ]) {
    t.match(await sendBatch(file, wrong), /^(EINVAL|ENOTSUP)$/, wrong)
  }
  t.equal(await sendBatch(file, `batch((0, ${page}))`, 'trusted.other'), 'ENOTSUP')
  t.equal(await sendBatch(file, "b'?' + bytes(1)"), 'EALREADY', 'it is asked whether it takes them')
  t.ok((await readAt(file, 0, MiB)).equals(Buffer.alloc(MiB)), 'none of any')
  t.equal(native.counters().writes, 0)

  const many = Array.from({ length: 15 }, (_, at) => `(${at * 8192}, bytes([${at + 1}]) * 4096)`).join(', ')
  t.equal(await sendBatch(file, `batch(${many})`), '')
  const expected = Buffer.alloc(MiB)
  for (let at = 0; at < 15; at++) expected.fill(at + 1, at * 8192, at * 8192 + 4096)
  t.ok((await readAt(file, 0, MiB)).equals(expected))
  t.equal(native.counters().writes, 15)

  const mounted = await thin.rig.mountPoint('device')
  await native.attach(mounted)
  t.equal(await sendBatch(mounted, `batch((0, ${page}))`), 'ENOTSUP', 'not from hosts')
  const fd = openSync(mounted, 'r+')
  const other = Buffer.alloc(4096, 99)
  fileCalls.writeMany(fd, [other, other], [4096, 12288])
  closeSync(fd)
  expected.fill(99, 4096, 8192).fill(99, 12288, 16384)
  t.ok((await readAt(file, 0, MiB)).equals(expected), 'there they go one by one')
})

t.test('many writes in one request wait for their blocks together, and are answered when all have ended', async (t) => {
  const thin = await ThinRig.open()
  t.teardown(() => thin.close())
  const volume = thin.newVolume(1, 64 * MiB)
  const file = await thin.rig.mountPoint('mount')
  await volume.native.serve(file)
  volume.byHand = true
  // Two of one block, and one of another.
  const batch = "batch((0, b'a' * 4096), (8192, b'b' * 4096), (131072, b'c' * 4096))"
  let ended = false
  const sent = sendBatch(file, batch).finally(() => {
    ended = true
  })
  const writes = (): Fault[] => volume.waiting.filter(({ kind }) => kind === 'write')
  while (writes().length < 2) {
    const unknown = volume.waiting.findIndex(({ kind }) => kind !== 'write')
    if (unknown >= 0) volume.answer(volume.waiting.splice(unknown, 1))
    await sleep(10)
  }
  t.equal(volume.native.counters().inFlight, 3)
  volume.answer(volume.waiting.splice(0, 1))
  while (volume.native.counters().inFlight !== 1) await sleep(10)
  t.notOk(ended)
  volume.native.refuse([volume.waiting.splice(0)[0]!.block], osConstants.errno.ENOSPC)
  t.equal(await sent, 'ENOSPC', 'one has failed')
  t.equal(volume.native.counters().inFlight, 0)
  const expected = Buffer.alloc(64 * KiB)
    .fill('a', 0, 4096)
    .fill('b', 8192, 12288)
  t.ok((await readAt(file, 0, 64 * KiB)).equals(expected))
})

t.test('the device alone can be read-only while the served file is written', async (t) => {
  const thin = await ThinRig.open()
  t.teardown(() => thin.close())
  const { native } = thin.newVolume(1, 64 * MiB)
  const file = await thin.rig.mountPoint('mount')
  await native.serve(file)
  const { device } = await native.attach(await thin.rig.mountPoint('device'), { readOnly: true })
  t.equal(await run('blockdev', '--getro', device), '1')
  const bytes = randomBytes(MiB)
  await t.rejects(writeLarge(device, 0, bytes, thin.rig.folder))
  const handle = await open(file, 'r+')
  await handle.write(bytes, 0, MiB, 0)
  await handle.close()
  t.ok((await readDevice(device, 0, MiB)).equals(bytes))
})

t.test('a volume grows while it is attached, and hosts see it', async (t) => {
  const thin = await ThinRig.open(64 * MiB, true)
  t.teardown(() => thin.close())
  // The last block is a part of one.
  const size = 8 * blockBytes + 4096
  const { native } = thin.newVolume(1, size)
  const file = await thin.rig.mountPoint('mount')
  await native.serve(file)
  const { device } = await native.attach(await thin.rig.mountPoint('device'))
  const bytes = randomBytes(size)
  await writeLarge(device, 0, bytes, thin.rig.folder)
  await native.resize(1024 * MiB)
  t.equal(native.sizeBytes, 1024 * MiB)
  t.equal(await sizeOf(device), 1024 * MiB)
  t.equal((await stat(file)).size, 1024 * MiB)
  const expected = Buffer.alloc(2 * MiB)
  bytes.copy(expected)
  t.ok((await readDevice(device, 0, expected.length)).equals(expected), 'zeros behind the old end')
  const more = randomBytes(MiB)
  await writeLarge(device, 1023 * MiB, more, thin.rig.folder)
  t.ok((await readDevice(device, 1023 * MiB, MiB)).equals(more))
  await t.rejects(native.resize(size), { code: 'VOLUME_ATTACHED' })
  await t.rejects(native.resize(1024 * MiB + 100), { code: 'BAD_SIZE' })
  await native.detach()
  await t.rejects(native.resize(size), { code: 'VOLUME_ATTACHED' }, 'it is served')
})

t.test('what a smaller size cuts off does not come back when the volume grows again', async (t) => {
  const thin = await ThinRig.open()
  t.teardown(() => thin.close())
  const volume = thin.newVolume(1, 64 * MiB)
  const { native } = volume
  const device = await thin.rig.attach(native)
  const bytes = randomBytes(4 * MiB)
  await writeLarge(device, 0, bytes, thin.rig.folder)
  await writeLarge(device, 60 * MiB, bytes, thin.rig.folder)
  await volume.freeze(2)
  await native.detach()
  const size = 2 * MiB + 4096
  await native.resize(size)
  volume.take()
  t.equal(thin.pool.find(2, (2 * MiB) / blockBytes + 1), undefined)
  t.equal(thin.pool.find(2, (60 * MiB) / blockBytes), undefined)
  t.ok(thin.pool.find(1, (60 * MiB) / blockBytes) !== undefined, 'the layer below keeps it')
  await native.resize(64 * MiB)
  const again = await thin.rig.attach(native)
  const expected = Buffer.alloc(4 * MiB)
  bytes.copy(expected, 0, 0, size)
  t.ok((await readDevice(again, 0, 4 * MiB)).equals(expected))
  t.ok((await readDevice(again, 60 * MiB, 4 * MiB)).equals(Buffer.alloc(4 * MiB)))
})

t.test('data are found in a huge volume of which nothing was looked at', async (t) => {
  const thin = await ThinRig.open()
  t.teardown(() => thin.close())
  const TiB = 2 ** 40
  const volume = thin.newVolume(1, 4 * TiB)
  const device = await thin.rig.attach(volume.native)
  await writeLarge(device, 3 * TiB, randomBytes(MiB), thin.rig.folder)
  volume.take()
  const copy = thin.volume(1, 4 * TiB, { readOnly: true })
  const file = await thin.rig.mountPoint('copy')
  await copy.native.serve(file)
  const began = performance.now()
  const { stdout } = await execute('python3', [
    '-c',
    'import os,sys;f=os.open(sys.argv[1],os.O_RDONLY);print(os.lseek(f,0,os.SEEK_DATA),os.lseek(f,3<<40,os.SEEK_HOLE))',
    file,
  ])
  t.equal(stdout.trim(), `${3 * TiB} ${3 * TiB + MiB}`)
  t.comment(`${(performance.now() - began).toFixed(0)} ms for ${copy.native.counters().faults} leaves`)
  t.equal(copy.native.counters().errors, 0)
})

t.test('an agent is gone when it is killed, though a thread of its own uses what it serves', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const backing = await rig.backing('backing', 16 * MiB)
  const file = await rig.mountPoint('mount')
  // Often enough that some threads are in the middle of a request: without the keeper one agent in four stayed.
  for (let round = 0; round < 6; round += 1) {
    const agent = spawn(process.execPath, [path.join(here, 'thin-self-user.js'), backing, file], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const left = { kind: 'process', pid: agent.pid! } as const
    remember(left)
    await once(agent.stdout, 'data')
    agent.kill('SIGKILL')
    const gone = await Promise.race([
      once(agent, 'exit').then(() => true),
      new Promise<boolean>((resolve) => setTimeout(resolve, 5000, false)),
    ])
    // Ends the connection, and with it what would otherwise stay for ever.
    await intercept.releaseStale(file)
    forget(left)
    if (!gone) {
      t.fail(`the agent of round ${round} stays`)
      break
    }
  }
  t.notOk((await readFile('/proc/self/mounts', 'utf8')).includes(file))
})
