import { randomBytes } from 'node:crypto'
import t from 'tap'
import { MiB } from '../../src/block/units.js'
import { startFio } from '../fixtures/fio.js'
import { readDevice, run, until, writeDevice } from './rig.js'
import { blockBytes, operation, ThinRig, writeLarge } from './thin-rig.js'

t.test(
  'after a freeze a write to a part of a block copies that block, a write of a whole one copies nothing',
  async (t) => {
    const thin = await ThinRig.open()
    t.teardown(() => thin.close())
    const volume = thin.newVolume(1, 64 * MiB)
    const device = await thin.rig.attach(volume.native)
    const old = randomBytes(4 * MiB)
    await writeLarge(device, 0, old, thin.rig.folder)
    const before = volume.native.counters().copiedBytes
    await volume.freeze(2)

    const part = randomBytes(4096)
    await writeLarge(device, blockBytes + 8192, part, thin.rig.folder)
    t.equal(volume.native.counters().copiedBytes - before, blockBytes)
    const whole = randomBytes(blockBytes)
    await writeLarge(device, 5 * blockBytes, whole, thin.rig.folder)
    t.equal(volume.native.counters().copiedBytes - before, blockBytes, 'nothing more')

    const expected = Buffer.from(old)
    part.copy(expected, blockBytes + 8192)
    whole.copy(expected, 5 * blockBytes)
    t.ok((await readDevice(device, 0, old.length)).equals(expected))
    volume.take()
    t.equal(thin.pool.own(2, 0), undefined)
    t.ok(thin.pool.own(2, 1) !== undefined && thin.pool.own(2, 5) !== undefined)
    const snapshot = thin.volume(1, 64 * MiB, { readOnly: true })
    const copy = await thin.rig.attach(snapshot.native, 'snapshot')
    t.ok((await readDevice(copy, 0, old.length)).equals(old), 'the snapshot is what was there')
  },
)

t.test('a hole in the new layer hides what lies below, there alone', async (t) => {
  const thin = await ThinRig.open()
  t.teardown(() => thin.close())
  const volume = thin.newVolume(1, 64 * MiB)
  const device = await thin.rig.attach(volume.native)
  const old = randomBytes(MiB)
  await writeLarge(device, 0, old, thin.rig.folder)
  await volume.freeze(2)
  await run('blkdiscard', '--offset', '0', '--length', String(MiB / 2), device)
  await writeLarge(device, MiB / 2, Buffer.alloc(MiB / 4), thin.rig.folder)
  const expected = Buffer.from(old)
  expected.fill(0, 0, (MiB * 3) / 4)
  t.ok((await readDevice(device, 0, MiB)).equals(expected))
  await volume.freeze(3)
  await writeLarge(device, 512, Buffer.alloc(512, 3), thin.rig.folder)
  expected.fill(3, 512, 1024)
  t.ok((await readDevice(device, 0, MiB)).equals(expected))
  volume.take()
  for (const [layer, content] of [[1, old] as const, [3, expected] as const]) {
    const view = thin.volume(layer, 64 * MiB, { readOnly: true })
    const other = await thin.rig.attach(view.native, `view-${layer}`)
    t.ok((await readDevice(other, 0, MiB)).equals(content), `layer ${layer}`)
  }
})

t.test('snapshots under load hold what was there, and the host is held up for moments', async (t) => {
  const thin = await ThinRig.open(512 * MiB)
  t.teardown(() => thin.close())
  const volume = thin.newVolume(1, 48 * MiB)
  const device = await thin.rig.attach(volume.native)
  const job = startFio(device, {
    rw: 'randwrite',
    bsrange: '4k-128k',
    size: '32m',
    loops: 4,
    verify: 'crc32c',
    verify_interval: 4096,
    do_verify: 1,
    fsync: 50,
    iodepth: 16,
  })
  const tookMs: number[] = []
  for (let layer = 2; layer < 12; layer += 1) {
    await new Promise((resolve) => setTimeout(resolve, 50))
    const began = performance.now()
    await volume.freeze(layer)
    tookMs.push(performance.now() - began)
  }
  const { errors, output } = await job.ended
  t.equal(errors, 0, errors === 0 ? 'fio saw no error' : output)
  t.comment(`freezes took ${tookMs.map((ms) => ms.toFixed(1)).join(', ')} ms`)
  // The same bytes, whether read through the chain of layers or through a table loaded anew.
  const now = await readDevice(device, 0, 48 * MiB)
  volume.take()
  const again = thin.volume(11, 48 * MiB, { readOnly: true })
  const copy = await thin.rig.attach(again.native, 'again')
  t.ok((await readDevice(copy, 0, 48 * MiB)).equals(now))
})

t.test('a grant given while a freeze is under way is dropped, and asked for again', async (t) => {
  const thin = await ThinRig.open()
  t.teardown(() => thin.close())
  const volume = thin.newVolume(1, 64 * MiB)
  const device = await thin.rig.attach(volume.native)
  await readDevice(device, 0, 512)
  volume.byHand = true
  const bytes = randomBytes(512)
  const write = writeDevice(device, 0, bytes, thin.rig.folder)
  await until(() => volume.waiting.length > 0)
  const [fault] = volume.waiting.splice(0)
  const freezing = volume.freeze(2)
  const grant = volume.grantFor(fault!)
  volume.native.grant([grant])
  await t.rejects(volume.native.freeze(3, operation()), { code: 'FREEZE_RUNS' })
  t.strictSame(await freezing, [{ block: 0, location: grant.location }])
  await until(() => volume.waiting.length > 0)
  volume.answerAll()
  await write
  volume.take()
  t.equal(thin.pool.own(1, 0), undefined, 'nothing of it was published under the old layer')
  t.ok(thin.pool.own(2, 0) !== undefined)
  t.ok((await readDevice(device, 0, 512)).equals(bytes))
})

t.test('a place that was kept for a write that has not come is given back by a freeze', async (t) => {
  const thin = await ThinRig.open()
  t.teardown(() => thin.close())
  const volume = thin.newVolume(1, 64 * MiB)
  const device = await thin.rig.attach(volume.native)
  await readDevice(device, 0, 512)
  volume.byHand = true
  const bytes = randomBytes(2 * blockBytes)
  const write = writeLarge(device, 0, bytes, thin.rig.folder)
  await until(() => volume.waiting.length === 2)
  const first = volume.waiting.shift()!
  const grant = volume.grantFor(first)
  t.equal(grant.reserve, true)
  volume.native.grant([grant])
  t.strictSame(await volume.freeze(2), [{ block: first.block, location: grant.location }])
  // The other one is answered; what was kept for the first is gone, so that is asked for again.
  volume.answerAll()
  await write
  volume.take()
  t.notOk(thin.pool.log.some(({ type, value }) => type === 'map' && value === grant.location))
  t.ok((await readDevice(device, 0, bytes.length)).equals(bytes))
})

t.test('a freeze the log does not take changes nothing', async (t) => {
  const thin = await ThinRig.open()
  t.teardown(() => thin.close())
  const volume = thin.newVolume(1, 64 * MiB)
  const device = await thin.rig.attach(volume.native)
  await writeLarge(device, 0, randomBytes(blockBytes), thin.rig.folder)
  volume.byHand = true
  const write = writeDevice(device, 3 * blockBytes, randomBytes(512), thin.rig.folder)
  await until(() => volume.waiting.length > 0)
  const freezing = volume.native.freeze(2, Buffer.alloc(32))
  volume.answerAll()
  await t.rejects(freezing, 'no records')
  await write
  const { faults } = volume.native.counters()
  await writeLarge(device, 0, randomBytes(blockBytes), thin.rig.folder)
  t.equal(volume.native.counters().faults, faults, 'what was writable still is')
  volume.take()
  t.ok(thin.pool.own(1, 3) !== undefined, 'what was given meanwhile is published under the layer that stays')
})

t.test('a freeze does not wait for requests that wait for an answer', async (t) => {
  const thin = await ThinRig.open()
  t.teardown(() => thin.close())
  const volume = thin.newVolume(1, 64 * MiB)
  const device = await thin.rig.attach(volume.native)
  await readDevice(device, 0, 512)
  volume.byHand = true
  const writes = [1, 2, 3].map((block) =>
    writeDevice(device, block * blockBytes, Buffer.alloc(512, block), thin.rig.folder),
  )
  await until(() => volume.waiting.length === 3)
  await volume.freeze(2)
  t.equal(volume.native.counters().inFlight, 3)
  volume.answerAll()
  await Promise.all(writes)
  volume.take()
  t.strictSame(
    [1, 2, 3].map((block) => thin.pool.own(1, block)),
    [undefined, undefined, undefined],
  )
})
