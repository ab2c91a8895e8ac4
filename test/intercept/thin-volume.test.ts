import { randomBytes } from 'node:crypto'
import { stat } from 'node:fs/promises'
import path from 'node:path'
import t from 'tap'
import { MiB, volumeIndex } from '../../src/block/units.js'
import { fio } from '../fixtures/fio.js'
import { mountSmallDisk } from '../fixtures/small-disk.js'
import { readDevice, run, until } from './rig.js'
import { blockBytes, ThinRig, writeLarge } from './thin-rig.js'

const TiB = 2 ** 40

async function discard(device: string, offset: number, length: number): Promise<void> {
  await run('blkdiscard', '--offset', String(offset), '--length', String(length), device)
}

t.test('a write that covers a block copies nothing, and is in the log when it is answered', async (t) => {
  const thin = await ThinRig.open()
  t.teardown(() => thin.close())
  const volume = thin.newVolume(1, 64 * MiB)
  const device = await thin.rig.attach(volume.native)
  const bytes = randomBytes(2 * MiB)
  await writeLarge(device, 8 * MiB, bytes, thin.rig.folder)
  t.ok(volume.native.counters().copiedBytes <= 4 * blockBytes, 'but where the kernel cuts a request inside a block')
  thin.pool.take()
  const maps = thin.pool.log.filter(({ type }) => type === 'map')
  t.equal(maps.length, bytes.length / blockBytes)
  t.strictSame(
    maps.map(({ block }) => block).sort((a, b) => a - b),
    Array.from({ length: 32 }, (_, index) => 128 + index),
  )
  for (const { block } of maps) {
    const at = block * blockBytes - 8 * MiB
    t.ok((await thin.pool.read(1, block)).equals(bytes.subarray(at, at + blockBytes)))
  }
  t.ok((await readDevice(device, 8 * MiB, bytes.length)).equals(bytes))
  const raised = volume.native.counters().faults
  await writeLarge(device, 8 * MiB, bytes, thin.rig.folder)
  t.equal(volume.native.counters().faults, raised, 'and is then written in place')
})

t.test('a write to a part of a block leaves zeros around it, whatever lay there before', async (t) => {
  const thin = await ThinRig.open(16 * MiB, true)
  t.teardown(() => thin.close())
  const volume = thin.newVolume(1, 64 * MiB)
  const device = await thin.rig.attach(volume.native)
  const sector = randomBytes(512)
  await writeLarge(device, 5 * blockBytes + 1024, sector, thin.rig.folder)
  const expected = Buffer.alloc(blockBytes)
  sector.copy(expected, 1024)
  t.ok((await readDevice(device, 5 * blockBytes, blockBytes)).equals(expected))
  t.equal(volume.native.counters().copiedBytes, blockBytes)
  thin.pool.take()
  t.ok((await thin.pool.read(1, 5)).equals(expected))
})

t.test('zeros take no space, and give it back', async (t) => {
  const thin = await ThinRig.open()
  t.teardown(() => thin.close())
  const volume = thin.newVolume(1, 64 * MiB)
  const device = await thin.rig.attach(volume.native)
  await writeLarge(device, 0, Buffer.alloc(4 * MiB), thin.rig.folder)
  await writeLarge(device, 4 * MiB + 512, Buffer.alloc(1024), thin.rig.folder)
  t.equal(thin.pool.used, 0)
  t.ok(volume.asked.every(({ kind }) => kind === 'read-unknown'))
  await writeLarge(device, 0, randomBytes(2 * MiB), thin.rig.folder)
  const { faults } = volume.native.counters()
  const patch = Buffer.alloc(MiB)
  patch[700_000] = 1
  // Block by block: the kernel may split a larger request anywhere, and half a block of zeros frees nothing.
  for (let at = 0; at < MiB; at += blockBytes) {
    await writeLarge(device, MiB + at, patch.subarray(at, at + blockBytes), thin.rig.folder)
  }
  t.equal(volume.native.counters().faults, faults, 'nothing is asked')
  t.ok((await readDevice(device, MiB, MiB)).equals(patch))
  thin.pool.take()
  const written = Math.floor(700_000 / blockBytes)
  for (let block = 16; block < 32; block += 1) {
    t.equal(thin.pool.find(1, block) !== undefined, block === 16 + written, `block ${block}`)
  }
})

t.test('a trim of an empty volume of 1 TiB allocates nothing and takes no time', async (t) => {
  const thin = await ThinRig.open()
  t.teardown(() => thin.close())
  const volume = thin.newVolume(1, TiB)
  const device = await thin.rig.attach(volume.native)
  for (const state of ['not loaded', 'loaded']) {
    const began = performance.now()
    await run('blkdiscard', device)
    const took = performance.now() - began
    // Tens of milliseconds are usual; what must not happen is a step for each of 16 million blocks.
    t.ok(took < 5000, `${state}: ${took.toFixed(0)} ms, the program's own start included`)
  }
  t.equal(thin.pool.used, 0)
  thin.pool.take()
  t.ok(thin.pool.log.length < 1000, `${thin.pool.log.length} records`)
  t.ok((await readDevice(device, TiB - MiB, MiB)).equals(Buffer.alloc(MiB)))
})

t.test('a trim frees the blocks it covers and zeros the parts of others', async (t) => {
  const thin = await ThinRig.open()
  t.teardown(() => thin.close())
  const volume = thin.newVolume(1, 64 * MiB)
  const device = await thin.rig.attach(volume.native)
  const bytes = randomBytes(MiB)
  await writeLarge(device, 0, bytes, thin.rig.folder)
  const from = 2 * blockBytes + 4096
  const length = 8 * blockBytes
  await discard(device, from, length)
  bytes.fill(0, from, from + length)
  t.ok((await readDevice(device, 0, MiB)).equals(bytes))
  thin.pool.take()
  const mapped = Array.from({ length: 16 }, (_, block) => thin.pool.find(1, block) !== undefined)
  t.strictSame(mapped, [...Array(3).fill(true), ...Array(7).fill(false), ...Array(6).fill(true)])
  t.equal(thin.pool.log.filter(({ type }) => type === 'hole').length, 1, 'one record says so')
  await run('blkdiscard', '--zeroout', '--offset', '0', '--length', String(2 * blockBytes), device)
  bytes.fill(0, 0, 2 * blockBytes)
  t.ok((await readDevice(device, 0, MiB)).equals(bytes))
  thin.pool.take()
  t.equal(thin.pool.find(1, 0), undefined)
})

t.test('without room for holes a trim does nothing, and zeros are written where they must be', async (t) => {
  const thin = await ThinRig.open()
  t.teardown(() => thin.close())
  const volume = thin.newVolume(1, 64 * MiB)
  const device = await thin.rig.attach(volume.native)
  const bytes = randomBytes(MiB)
  await writeLarge(device, 0, bytes, thin.rig.folder)
  volume.native.setHoles(false)
  // For the kernel that is a device that knows no trims: no error.
  await discard(device, 0, MiB / 2)
  t.ok((await readDevice(device, 0, MiB)).equals(bytes))
  await writeLarge(device, 0, Buffer.alloc(blockBytes), thin.rig.folder)
  // The kernel asks for zeroing first, and writes zeros when that is refused.
  await run('blkdiscard', '--zeroout', '--offset', String(2 * blockBytes), '--length', String(blockBytes), device)
  thin.pool.take()
  t.notOk(thin.pool.log.some(({ type }) => type === 'hole'))
  const expected = Buffer.from(bytes).fill(0, 0, blockBytes)
  expected.fill(0, 2 * blockBytes, 3 * blockBytes)
  t.ok((await readDevice(device, 0, MiB)).equals(expected))
  volume.native.setHoles(true)
  await writeLarge(device, 0, Buffer.alloc(blockBytes), thin.rig.folder)
  thin.pool.take()
  t.ok(thin.pool.log.some(({ type }) => type === 'hole'))
})

t.test('one request may write in place, take new places and free others', async (t) => {
  const thin = await ThinRig.open(64 * MiB, true)
  t.teardown(() => thin.close())
  const volume = thin.newVolume(1, 64 * MiB)
  const device = await thin.rig.attach(volume.native)
  const expected = Buffer.alloc(4 * MiB)
  for (const block of [1, 3, 4, 9, 10, 11, 15]) {
    const old = randomBytes(blockBytes)
    old.copy(expected, block * blockBytes)
    await writeLarge(device, block * blockBytes, old, thin.rig.folder)
  }
  const patch = randomBytes(MiB)
  for (const block of [0, 2, 4, 9, 10, 12]) patch.fill(0, block * blockBytes, (block + 1) * blockBytes)
  await writeLarge(device, 0, patch, thin.rig.folder)
  patch.copy(expected)
  t.ok((await readDevice(device, 0, 4 * MiB)).equals(expected))
  // The kernel may cut a request inside a block.
  t.ok(volume.native.counters().copiedBytes <= 2 * blockBytes)
  thin.pool.take()
  const isMapped = (block: number): boolean => thin.pool.find(1, block) !== undefined
  t.ok([1, 3, 5, 6, 7, 8, 11, 13, 14, 15].every(isMapped))
  t.notOk([0, 2, 12].some(isMapped), 'zeros took no space')
  t.ok([4, 9, 10].filter(isMapped).length <= 2, 'and gave it back, but in a block that was cut')
})

t.test('a place reserved for a whole block also serves a write that covers less', async (t) => {
  const thin = await ThinRig.open(64 * MiB, true)
  t.teardown(() => thin.close())
  const volume = thin.newVolume(1, 64 * MiB)
  const device = await thin.rig.attach(volume.native)
  await readDevice(device, 0, 512)
  volume.byHand = true
  const whole = randomBytes(blockBytes)
  const part = randomBytes(512)
  const first = writeLarge(device, 0, whole, thin.rig.folder)
  await until(() => volume.waiting.length > 0)
  const second = writeLarge(device, 1024, part, thin.rig.folder)
  await until(() => volume.native.counters().inFlight > 1)
  volume.answerAll()
  await Promise.all([first, second])
  thin.pool.take()
  t.equal(thin.pool.used, 1)
  t.equal(volume.native.counters().inFlight, 0)
  const found = await readDevice(device, 0, blockBytes)
  const expected = Buffer.from(whole)
  part.copy(expected, 1024)
  t.ok(found.equals(expected) || found.equals(whole), 'in one order or the other')
})

t.test('a grant made before its block was trimmed is void, and asked for again', async (t) => {
  const thin = await ThinRig.open()
  t.teardown(() => thin.close())
  const volume = thin.newVolume(1, 64 * MiB)
  const device = await thin.rig.attach(volume.native)
  await writeLarge(device, 0, randomBytes(2 * blockBytes), thin.rig.folder)
  await volume.freeze(2)
  volume.byHand = true
  const part = randomBytes(512)
  const write = writeLarge(device, 1024, part, thin.rig.folder)
  await until(() => volume.waiting.length > 0)
  const [fault] = volume.waiting.splice(0)
  const stale = volume.grantFor(fault!)
  t.ok(stale.copyFrom !== undefined && stale.copyFrom > 0, 'it would bring the old block back')
  await discard(device, 0, blockBytes)
  volume.native.grant([stale])
  await until(() => volume.waiting.length > 0)
  t.equal(volume.native.counters().copiedBytes, 0)
  volume.answerAll()
  await write
  const expected = Buffer.alloc(blockBytes)
  part.copy(expected, 1024)
  t.ok((await readDevice(device, 0, blockBytes)).equals(expected))
  volume.take()
  t.equal(thin.pool.own(2, 0), stale.location, 'the place given for it is used')
})

t.test('a grant that nobody asked for changes nothing', async (t) => {
  const thin = await ThinRig.open()
  t.teardown(() => thin.close())
  const volume = thin.newVolume(1, 64 * MiB)
  const device = await thin.rig.attach(volume.native)
  await writeLarge(device, 0, randomBytes(blockBytes), thin.rig.folder)
  const content = await readDevice(device, 0, 2 * blockBytes)
  const location = thin.pool.nextPlace()
  for (const block of [0, 1]) volume.native.grant([{ block, location, mapped: true, writable: true, copyFrom: -1 }])
  t.throws(() => volume.native.grant([{ block: 2, location, mapped: true, writable: false }]), /no place to write/)
  await writeLarge(device, 5 * blockBytes, randomBytes(512), thin.rig.folder)
  t.ok((await readDevice(device, 0, 2 * blockBytes)).equals(content))
  thin.pool.take()
  t.notOk(thin.pool.log.some(({ value }) => value === location))
})

t.test('a write the pool has no room for leaves the block as it was', async (t) => {
  const disk = await mountSmallDisk(4 * MiB)
  const pool = path.join(disk.directory, 'pool')
  await run('truncate', '--size', '64M', pool)
  const thin = await ThinRig.open(64 * MiB, false, pool)
  t.teardown(async () => {
    await thin.close()
    await disk.unmount()
  })
  const volume = thin.newVolume(1, 64 * MiB)
  const journal = await thin.rig.journal()
  const device = await thin.rig.attach(volume.native)
  await volume.native.setJournal(journal, volumeIndex(1))
  let written = 0
  while (written < 64 && (await tryWrite(device, written, thin.rig.folder))) written += 1
  t.ok(written > 16 && written < 64, `${written} blocks fit`)
  t.ok((await readDevice(device, written * blockBytes, blockBytes)).equals(Buffer.alloc(blockBytes)))
  volume.take()
  t.equal(thin.pool.find(1, written), undefined, 'the log says nothing of it')
  t.equal(volume.native.counters().errors, 1)
  await discard(device, 0, 4 * blockBytes)
  await run('fallocate', '--punch-hole', '--offset', String(blockBytes), '--length', String(8 * blockBytes), pool)
  t.ok(await tryWrite(device, written, thin.rig.folder), 'the same place is used once there is room')
  await volume.native.setJournal(null, volumeIndex(1))
})

async function tryWrite(device: string, block: number, folder: string): Promise<boolean> {
  return writeLarge(device, block * blockBytes, randomBytes(blockBytes), folder).then(
    () => true,
    () => false,
  )
}

t.test('a flush of the host commits what the log says', async (t) => {
  const thin = await ThinRig.open()
  t.teardown(() => thin.close())
  const volume = thin.newVolume(1, 64 * MiB)
  const device = await thin.rig.attach(volume.native)
  await writeLarge(device, 0, randomBytes(blockBytes), thin.rig.folder)
  volume.take()
  t.equal(thin.pool.native.committed(), 0n)
  const head = thin.pool.native.head()
  await run('dd', 'if=/dev/zero', `of=${device}`, 'bs=512', 'count=1', 'conv=notrunc,fsync', 'status=none')
  t.ok(thin.pool.native.committed() >= head)
  const before = thin.pool.native.head()
  await volume.native.syncBacking()
  t.equal(thin.pool.native.head(), before, 'nothing new, no record')
})

t.test('a thin volume that is only read publishes nothing', async (t) => {
  const thin = await ThinRig.open()
  t.teardown(() => thin.close())
  const volume = thin.newVolume(1, 64 * MiB)
  const bytes = randomBytes(MiB)
  const device = await thin.rig.attach(volume.native)
  await writeLarge(device, 0, bytes, thin.rig.folder)
  volume.take()
  const snapshot = thin.volume(1, 64 * MiB, { readOnly: true })
  const copy = await thin.rig.attach(snapshot.native, 'snapshot')
  const records = thin.pool.log.length
  await t.rejects(writeLarge(copy, 0, bytes, thin.rig.folder))
  await t.rejects(discard(copy, 0, MiB))
  await t.rejects(snapshot.native.freeze(9, Buffer.alloc(32)), { code: 'INVALID_ARGUMENT' })
  t.ok((await readDevice(copy, 0, 2 * MiB)).equals(Buffer.concat([bytes, Buffer.alloc(MiB)])))
  thin.pool.take()
  t.equal(thin.pool.log.length, records)
})

t.test('a thin volume under load reads back what was written, and never asks in steady state', async (t) => {
  const thin = await ThinRig.open(64 * MiB, true)
  t.teardown(() => thin.close())
  const volume = thin.newVolume(1, 48 * MiB)
  const device = await thin.rig.attach(volume.native)
  const job = { bsrange: '512-256k', size: '32m', verify: 'crc32c', verify_interval: 512, iodepth: 32 }
  const first = await fio(device, { rw: 'randwrite', ...job })
  t.equal(first.errors, 0, 'fio saw no error')
  const asked = volume.asked.length
  const second = await fio(device, { rw: 'randwrite', ...job, verify: 'md5', randrepeat: 0 })
  t.equal(second.errors, 0, 'fio saw no error')
  t.equal(volume.asked.length, asked)
  t.equal(thin.pool.used, 32 * 16)
  t.ok((await stat(thin.pool.file)).size === 64 * MiB)
})
