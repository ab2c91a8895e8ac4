import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { MiB } from '../../src/block/units.js'
import { intercept } from '../../src/intercept/intercept.js'
import { delay } from '../fixtures/agent.js'
import { mountFreezableDisk } from '../fixtures/freezable-disk.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { heldBelow, Rig, readAt, readDevice, run, until, writeDevice } from './rig.js'

t.test('detach refuses while the device is mounted and says where', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const volume = rig.volume(await rig.backing('backing', 32 * MiB))
  const device = await rig.attach(volume)
  await run('mkfs.ext4', '-q', device)
  const folder = rig.file('tree')
  await mkdir(folder)
  await run('mount', device, folder)
  await t.rejects(volume.detach(), { code: 'DEVICE_BUSY', message: new RegExp(`mounted on ${folder}`) })
  await writeFile(path.join(folder, 'after'), 'still works')
  await run('umount', folder)
  await volume.detach()
  t.strictSame(await heldBelow(rig.folder), [])
})

t.test('detach refuses while a program has the device open and names it', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const volume = rig.volume(await rig.backing('backing', 8 * MiB))
  const device = await rig.attach(volume)
  const holder = spawn('bash', ['-c', `exec 3<${device}; echo open; exec sleep 60`], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const left = { kind: 'process', pid: holder.pid! } as const
  remember(left)
  await once(holder.stdout, 'data')
  await t.rejects(volume.detach(), {
    code: 'DEVICE_BUSY',
    message: new RegExp(`\\(pid ${holder.pid}\\)`),
    retry: 'later',
  })
  const bytes = randomBytes(4096)
  await writeDevice(device, 0, bytes, rig.folder)
  holder.kill()
  await once(holder, 'exit')
  forget(left)
  await volume.detach()
  t.ok((await readAt(rig.file('backing'), 0, 4096)).equals(bytes))
})

t.test('what was written before detach lies on the backing after it', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const backing = await rig.backing('backing', 64 * MiB)
  const volume = rig.volume(backing)
  const device = await rig.attach(volume)
  const bytes = randomBytes(48 * MiB)
  await writeFile(rig.file('input'), bytes)
  await run('dd', `if=${rig.file('input')}`, `of=${device}`, 'bs=4M', 'status=none')
  await volume.detach()
  t.ok((await readAt(backing, 0, bytes.length)).equals(bytes))
  t.equal(volume.counters().inFlight, 0)
  t.strictSame(await heldBelow(rig.folder), [])
  await rig.attach(volume)
  await volume.detach()
  await volume.close()
})

t.test('detach waits for a write that is still at the backing when its connection is cut', async (t) => {
  const rig = await Rig.open()
  const disk = await mountFreezableDisk(rig.folder, 64 * MiB)
  t.teardown(async () => {
    await disk.thaw()
    await rig.close()
  })
  const backing = await rig.backing('freezable/backing', 8 * MiB)
  const volume = rig.volume(backing)
  const device = await rig.attach(volume)
  const bytes = randomBytes(512)
  await disk.freeze()
  const write = t.rejects(writeDevice(device, 0, bytes, rig.folder), 'the host gets an error')
  await until(() => volume.counters().inFlight > 0)
  await run('umount', '--force', rig.file('mount')).catch(() => undefined)
  await write
  t.equal(volume.counters().inFlight, 1, 'the write is still at the backing')
  let detached = false
  const detach = volume.detach().then(() => {
    detached = true
  })
  await delay(300)
  t.equal(detached, false, 'detach waits')
  await disk.thaw()
  await detach
  t.equal(volume.counters().inFlight, 0)
  t.ok((await readAt(backing, 0, bytes.length)).equals(bytes), 'it was done')
})

t.test('an attach that fails leaves nothing behind', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const volume = rig.volume(await rig.backing('backing', 8 * MiB))
  await t.rejects(volume.attach(rig.folder), { code: 'MOUNT_FAILED' })
  await t.rejects(volume.attach(rig.file('absent')), { code: 'MOUNT_FAILED' })
  t.strictSame(await heldBelow(rig.folder), [])
  await rig.attach(volume)
  await t.rejects(volume.attach(rig.file('mount')), { code: 'VOLUME_ATTACHED' })
  await t.rejects(volume.close(), { code: 'VOLUME_ATTACHED' })
})

t.test('what cannot back a volume is refused with its reason', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const fifo = rig.file('fifo')
  await run('mkfifo', fifo)
  t.throws(() => rig.volume(rig.file('absent')), { code: 'NOT_FOUND' })
  t.throws(() => rig.volume(fifo), { code: 'NOT_A_FILE_OR_BLOCK_DEVICE' })
  t.throws(() => rig.volume(rig.folder), { code: 'NOT_A_FILE_OR_BLOCK_DEVICE' })
  const backing = await rig.backing('backing', MiB)
  t.throws(() => rig.volume(backing, { sizeBytes: 2 * MiB }), { code: 'BACKING_TOO_SMALL' })
  t.throws(() => rig.volume(backing, { sizeBytes: 1000 }), { code: 'BAD_SIZE' })
  rig.volume(backing)
  t.throws(() => rig.volume(backing), { code: 'DEVICE_BUSY' }, 'a file backs one volume at a time')
})

t.test('a raw block device is a backing, unless somebody uses it', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const disk = await rig.backing('disk', 32 * MiB)
  const raw = await run('losetup', '--find', '--show', disk)
  t.throws(() => rig.volume(disk), { code: 'DEVICE_BUSY', message: new RegExp(raw) }, 'the file below a loop device')

  await run('mkfs.ext4', '-q', raw)
  const folder = rig.file('tree')
  await mkdir(folder)
  await run('mount', raw, folder)
  t.throws(() => rig.volume(raw), { code: 'DEVICE_BUSY', message: new RegExp(`mounted on ${folder}`) })
  await run('umount', folder)

  const volume = rig.volume(raw, { syncBacking: true })
  t.equal(volume.isBlockDevice, true)
  t.equal(volume.sizeBytes, 32 * MiB)
  t.throws(() => rig.volume(raw), { code: 'DEVICE_BUSY' })
  const device = await rig.attach(volume)
  const bytes = randomBytes(4 * MiB)
  await writeDevice(device, 8 * MiB, bytes, rig.folder)
  await run('blkdiscard', '--offset', String(9 * MiB), '--length', String(MiB), device)
  bytes.fill(0, MiB, 2 * MiB)
  await volume.syncBacking()
  await volume.detach()
  await volume.close()
  t.ok((await readAt(raw, 8 * MiB, bytes.length)).equals(bytes))
  await run('losetup', '--detach', raw)
})

t.test('a device never promises that more than a sector is kept whole', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const device = await rig.attach(rig.volume(await rig.backing('sectors', 16 * MiB)))
  t.equal(await run('blockdev', '--getss', '--getpbsz', device), '512\n512')
})

t.test('a disk with blocks of 4 KiB gives a device with blocks of 4 KiB', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const raw = await run('losetup', '--find', '--show', '--sector-size', '4096', await rig.backing('disk', 16 * MiB))
  const volume = rig.volume(raw, { syncBacking: true })
  t.equal(volume.logicalBlockBytes, 4096)
  const device = await rig.attach(volume)
  t.equal(await run('blockdev', '--getss', device), '4096')
  t.equal(await run('blockdev', '--getpbsz', device), '4096')
  const bytes = randomBytes(2 * MiB)
  await writeDevice(device, 4 * MiB, bytes, rig.folder)
  t.ok((await readDevice(device, 4 * MiB, bytes.length)).equals(bytes))
  await volume.syncBacking()
  await volume.detach()
  await volume.close()
  t.ok((await readAt(raw, 4 * MiB, bytes.length)).equals(bytes))
  await run('losetup', '--detach', raw)
})

t.test('a connection that is cut from outside is reported, and can be cleared away', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const lost: string[] = []
  const volume = rig.volume(await rig.backing('backing', 8 * MiB), { onLost: (message) => lost.push(message) })
  const device = await rig.attach(volume)
  await run('umount', '--force', rig.file('mount')).catch(() => undefined)
  await until(() => lost.length > 0)
  await t.rejects(writeDevice(device, 0, Buffer.alloc(4096), rig.folder), 'hosts get errors')
  await volume.detach()
  t.equal(lost.length, 1)
  t.strictSame(await heldBelow(rig.folder), [])
})

for (const inUse of [false, true]) {
  t.test(`what a killed agent left is released${inUse ? ' although its device is mounted' : ''}`, async (t) => {
    const rig = await Rig.open()
    t.teardown(() => rig.close())
    const backing = await rig.backing('backing', 32 * MiB)
    const mountPoint = await rig.mountPoint('mount')
    const program = path.join(path.dirname(fileURLToPath(import.meta.url)), 'attached-agent.js')
    const agent = spawn(process.execPath, [program, backing, mountPoint], { stdio: ['ignore', 'pipe', 'inherit'] })
    const left = { kind: 'process', pid: agent.pid! } as const
    remember(left)
    const [line] = await once(agent.stdout, 'data')
    const device = String(line).trim()
    const folder = rig.file('tree')
    if (inUse) {
      await run('mkfs.ext4', '-q', device)
      await mkdir(folder)
      await run('mount', device, folder)
    }
    agent.kill('SIGKILL')
    await once(agent, 'exit')
    forget(left)
    t.not((await heldBelow(rig.folder)).length, 0)

    await intercept.releaseStale(mountPoint)
    const mounts = await readFile('/proc/self/mounts', 'utf8')
    t.notOk(mounts.includes(mountPoint))
    const volume = rig.volume(backing)
    await rig.attach(volume)
    if (inUse) await run('umount', '--lazy', folder)
    await volume.detach()
    await until(async () => (await heldBelow(rig.folder)).length === 0)
    await intercept.releaseStale(mountPoint)
  })
}
