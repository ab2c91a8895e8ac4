import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { open } from 'node:fs/promises'
import t from 'tap'
import { MiB, volumeIndex } from '../../src/block/units.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { heldBelow, Rig, readAt, readDevice, run, writeDevice } from './rig.js'

/** Calls native code runs at once; one more is refused. */
const longCallLimit = 4096

t.test('a loop device that is another program’s by now survives detach', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const volume = rig.volume(await rig.backing('backing', 8 * MiB))
  const device = await rig.attach(volume)
  const stranger = await rig.backing('stranger', 4 * MiB)
  await run('losetup', '--detach', device)
  await run('losetup', device, stranger)

  await volume.detach()
  const held = await heldBelow(rig.folder)
  t.equal(held.length, 1, 'the mount is gone, the device is not')
  t.match(held[0], device)
  const bytes = randomBytes(4096)
  await writeDevice(device, 0, bytes, rig.folder)
  t.ok((await readAt(stranger, 0, bytes.length)).equals(bytes))
  await run('losetup', '--detach', device)
})

t.test('a loop device that is another volume’s by now survives detach', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const first = rig.volume(await rig.backing('first', 8 * MiB))
  const device = await rig.attach(first)
  await run('losetup', '--detach', device)
  await run('umount', rig.file('mount'))
  const second = rig.volume(await rig.backing('second', 8 * MiB))
  // The kernel gives out the lowest numbers again: of loop devices and of filesystems.
  const again = await rig.attach(second, 'mount-of-second')

  await first.detach()
  const bytes = randomBytes(4096)
  await writeDevice(again, 0, bytes, rig.folder)
  await second.detach()
  t.ok((await readAt(rig.file('second'), 0, bytes.length)).equals(bytes))
  t.strictSame(await heldBelow(rig.folder), [])
})

t.test('a reader of the mount point does not hold up detach once the loop device is gone', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const volume = rig.volume(await rig.backing('backing', 8 * MiB))
  const device = await rig.attach(volume)
  const holder = spawn('bash', ['-c', `exec 3<${rig.file('mount')}; echo open; read -r; head -c 4096 <&3 >/dev/null`], {
    stdio: ['pipe', 'pipe', 'ignore'],
  })
  const left = { kind: 'process', pid: holder.pid! } as const
  remember(left)
  await once(holder.stdout, 'data')
  await t.rejects(volume.detach(), { code: 'DEVICE_BUSY' }, 'with the loop device it is refused, and nothing changes')
  await writeDevice(device, 0, randomBytes(4096), rig.folder)

  await run('losetup', '--detach', device)
  await volume.detach()
  t.strictSame(await heldBelow(rig.folder), [])
  holder.stdin.end('go on\n')
  const [status] = await once(holder, 'exit')
  forget(left)
  t.not(status, 0, 'the reader gets an error')
  await rig.attach(volume)
  await volume.detach()
  await volume.close()
})

t.test('detach ends although the file is mounted a second time elsewhere', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const volume = rig.volume(await rig.backing('backing', 8 * MiB))
  await rig.attach(volume)
  const elsewhere = await rig.mountPoint('elsewhere')
  await run('mount', '--bind', rig.file('mount'), elsewhere)
  await volume.detach()
  await t.rejects(readAt(elsewhere, 0, 4096))
  await run('umount', elsewhere)
  t.strictSame(await heldBelow(rig.folder), [])
})

t.test('the file on the mount point takes whole sectors only', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const volume = rig.volume(await rig.backing('backing', 8 * MiB))
  const journal = await rig.journal()
  await volume.setJournal(journal, volumeIndex(1))
  const device = await rig.attach(volume)
  const file = await open(rig.file('mount'), 'r+')
  const bytes = randomBytes(4096)
  await t.rejects(file.write(bytes, 0, 100, 0), { code: 'EINVAL' }, 'an odd length')
  await t.rejects(file.write(bytes, 0, 512, 100), { code: 'EINVAL' }, 'an odd offset')
  await t.rejects(file.read(bytes.subarray(), 0, 100, 0), { code: 'EINVAL' }, 'an odd read')
  await t.rejects(run('fallocate', '--punch-hole', '--offset', '512', '--length', '100', rig.file('mount')))
  t.equal(journal.counters().records, 0)
  await file.write(bytes, 0, 4096, 4096)
  await file.close()
  t.equal(journal.counters().records, 1)

  t.ok((await readDevice(device, 4096, bytes.length)).equals(bytes))
  await writeDevice(device, 0, bytes, rig.folder)
  t.ok((await readDevice(device, 0, bytes.length)).equals(bytes))
  await volume.detach()
})

t.test('a journal closes as soon as its last marker has settled', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  for (let i = 0; i < 50; i++) {
    const journal = await rig.journal(undefined, MiB)
    await journal.appendMarker(Buffer.from('marker'))
    await journal.close()
  }
})

t.test('a close that is refused for too many calls can be asked for again', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const journal = await rig.journal()
  const volume = rig.volume(await rig.backing('backing', MiB))
  const calls = Array.from({ length: longCallLimit }, () => volume.syncBacking())
  await t.rejects(journal.close(), { code: 'TOO_MANY_CALLS' })
  await Promise.all(calls)
  t.equal(journal.counters().records, 0, 'it is open')
  await journal.close()
})
