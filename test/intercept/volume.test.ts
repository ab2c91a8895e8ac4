import { randomBytes } from 'node:crypto'
import { closeSync, openSync } from 'node:fs'
import { stat, writeFile } from 'node:fs/promises'
import t from 'tap'
import { MiB } from '../../src/block/units.js'
import { fileCalls } from '../../src/intercept/file-calls.js'
import { intercept } from '../../src/intercept/intercept.js'
import { fio } from '../fixtures/fio.js'
import { promisingDevice } from '../fixtures/small-disk.js'
import { Rig, readAt, readDevice, run, writeDevice } from './rig.js'

t.test('what is written through the device is what lies on the backing', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const backing = await rig.backing('backing', 32 * MiB)
  const volume = rig.volume(backing)
  t.equal(volume.sizeBytes, 32 * MiB)
  t.equal(volume.isBlockDevice, false)
  const device = await rig.attach(volume)

  const large = randomBytes(8 * MiB)
  await writeDevice(device, 4 * MiB, large, rig.folder)
  const sector = randomBytes(512)
  await writeDevice(device, 4 * MiB + 1536, sector, rig.folder)
  sector.copy(large, 1536)

  t.ok((await readAt(backing, 4 * MiB, large.length)).equals(large))
  t.ok((await readDevice(device, 4 * MiB, large.length)).equals(large))
  t.equal(volume.counters().inFlight, 0)
  t.equal(volume.counters().errors, 0)
})

t.test('what lies on the backing is what the device reads, to the last sector', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const backing = rig.file('backing')
  const content = randomBytes(3 * MiB + 1536)
  await writeFile(backing, Buffer.concat([content, Buffer.alloc(100, 1)]))
  const device = await rig.attach(rig.volume(backing))
  t.equal(Number(await run('blockdev', '--getsize64', device)), content.length)
  t.ok((await readDevice(device, 0, content.length)).equals(content))
})

t.test('trim and zero read back as zeros, and trim gives space back', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const backing = await rig.backing('backing', 16 * MiB)
  const volume = rig.volume(backing)
  const device = await rig.attach(volume)
  await writeDevice(device, 0, randomBytes(16 * MiB), rig.folder)
  await run('sync', backing)
  const before = (await stat(backing)).blocks

  await run('blkdiscard', '--offset', String(4 * MiB), '--length', String(4 * MiB), device)
  t.ok((await readDevice(device, 4 * MiB, 4 * MiB)).equals(Buffer.alloc(4 * MiB)))
  t.ok((await stat(backing)).blocks <= before - (4 * MiB) / 512, 'the backing is smaller')

  await run('blkdiscard', '--zeroout', '--offset', String(10 * MiB), '--length', '65536', device)
  t.ok((await readDevice(device, 10 * MiB, 65536)).equals(Buffer.alloc(65536)))
  t.ok((await readAt(backing, 10 * MiB, 65536)).equals(Buffer.alloc(65536)))
  t.equal(volume.counters().trims, 2)
})

t.test('holes of the backing are holes of the mounted file', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const backing = await rig.backing('backing', 16 * MiB)
  const volume = rig.volume(backing)
  const device = await rig.attach(volume)
  await writeDevice(device, 8 * MiB, randomBytes(MiB), rig.folder)
  await run('sync', backing)
  const fd = openSync(rig.file('mount'), 'r')
  t.equal(fileCalls.nextData(fd, 0), 8 * MiB)
  t.equal(fileCalls.nextData(fd, 9 * MiB), -1)
  await t.rejects(volume.detach(), { code: 'DEVICE_BUSY', message: /pid/ }, 'not while the file is open')
  closeSync(fd)
  await volume.detach()
})

t.test('flushes under load are all answered', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const volume = rig.volume(await rig.backing('backing', 16 * MiB))
  const device = await rig.attach(volume)
  const before = volume.counters().flushes
  const result = await fio(device, { rw: 'randwrite', bs: '4k', size: '4m', fsync: 16, iodepth: 4, numjobs: 2 })
  t.equal(result.errors, 0, 'fio saw no error')
  t.ok(volume.counters().flushes - before >= 16, `${volume.counters().flushes - before} flushes`)
  await volume.syncBacking()
})

t.test('a flush of the host is answered with what the sync of the backing said', async (t) => {
  const rig = await Rig.open()
  const { device: raw, remove } = await promisingDevice({ promisedBytes: 64 * MiB, roomBytes: 8 * MiB })
  t.teardown(async () => {
    await rig.close()
    await remove()
  })
  const device = await rig.attach(rig.volume(raw))
  const write = (mebibytes: number, ...more: string[]) =>
    run('dd', 'if=/dev/urandom', `of=${device}`, 'bs=1M', `count=${mebibytes}`, 'oflag=direct', 'status=none', ...more)
  await write(2, 'conv=fsync')
  await write(32)
  await t.rejects(write(1, 'conv=fsync'), /fsync.*Input\/output error/)
})

t.test('a read-only volume refuses writes and serves reads', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const backing = rig.file('backing')
  const content = randomBytes(MiB)
  await writeFile(backing, content)
  const device = await rig.attach(rig.volume(backing, { readOnly: true }))
  await t.rejects(writeDevice(device, 0, Buffer.alloc(512), rig.folder))
  t.ok((await readDevice(device, 0, MiB)).equals(content))
  t.ok((await readAt(backing, 0, MiB)).equals(content))
})

t.test('every block size from 512 bytes to 1 MiB comes back as it was written', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const volume = rig.volume(await rig.backing('backing', 64 * MiB))
  const device = await rig.attach(volume)
  const result = await fio(device, {
    rw: 'randrw',
    bsrange: '512-1m',
    size: '48m',
    verify: 'crc32c',
    verify_interval: 512,
    iodepth: 16,
  })
  t.equal(result.errors, 0, 'fio saw no error')
})

t.test('steady input and output never enters JavaScript', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const volume = rig.volume(await rig.backing('backing', 32 * MiB))
  const device = await rig.attach(volume)
  const before = intercept.javascriptCalls()
  const result = await fio(device, { rw: 'randrw', bs: '4k', size: '16m', fsync: 64 })
  t.equal(result.errors, 0, 'fio saw no error')
  t.ok(volume.counters().writes > 1000, `${volume.counters().writes} writes`)
  t.equal(intercept.javascriptCalls(), before)
})

t.test('direct I/O to the backing keeps its logical block size', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const backing = await rig.backing('backing', 16 * MiB)
  const volume = rig.volume(backing, { direct: true })
  const device = await rig.attach(volume)
  t.equal(Number(await run('blockdev', '--getss', device)), volume.logicalBlockBytes)
  const bytes = randomBytes(2 * MiB)
  await writeDevice(device, 3 * MiB, bytes, rig.folder)
  t.ok((await readAt(backing, 3 * MiB, bytes.length)).equals(bytes))
})
