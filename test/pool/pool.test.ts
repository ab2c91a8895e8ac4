import { randomBytes } from 'node:crypto'
import t from 'tap'
import { KiB, MiB } from '../../src/block/units.js'
import { FakeRig } from './fake-rig.js'

const blockBytes = 4 * KiB

t.test('what was written is there after the pool was closed and opened, and after a crash', async (t) => {
  const rig = await FakeRig.create()
  t.teardown(() => rig.close())
  await rig.pool.createVolume('a', MiB)
  const data = randomBytes(20 * KiB)
  {
    const { fake, close } = await rig.openVolume('a')
    await fake.write(3 * KiB, data)
    t.ok((await fake.read(0, 64 * KiB)).equals(Buffer.concat([Buffer.alloc(3 * KiB), data, Buffer.alloc(41 * KiB)])))
    t.equal(rig.pool.facts().mappedBytes, 6 * blockBytes)
    t.equal(rig.pool.facts().allocatedBytes, 32 * KiB)
    await close()
    await rig.pool.audit()
    await rig.pool.close()
  }
  await rig.open()
  {
    const { fake } = await rig.openVolume('a')
    t.ok((await fake.read(3 * KiB, data.length)).equals(data))
    await fake.write(100 * KiB, data)
    rig.kill()
  }
  await rig.open()
  const { fake, close } = await rig.openVolume('a')
  t.ok((await fake.read(3 * KiB, data.length)).equals(data))
  t.ok((await fake.read(100 * KiB, data.length)).equals(data))
  await close()
  await rig.pool.audit()
})

t.test('a snapshot keeps what the volume had; both can be read at once', async (t) => {
  const rig = await FakeRig.create()
  t.teardown(() => rig.close())
  await rig.pool.createVolume('a', MiB)
  const { fake, close } = await rig.openVolume('a')
  const before = randomBytes(64 * KiB)
  await fake.write(0, before)
  await rig.pool.createSnapshot('a', 's')
  await fake.write(5 * KiB, Buffer.alloc(KiB, 7))
  await fake.trim(16 * KiB, 8 * KiB)
  const snapshot = await rig.openVolume('a', 's')
  t.ok((await snapshot.fake.read(0, before.length)).equals(before))
  const after = Buffer.from(before)
  after.fill(7, 5 * KiB, 6 * KiB)
  after.fill(0, 16 * KiB, 24 * KiB)
  t.ok((await fake.read(0, before.length)).equals(after))
  t.same(await rig.pool.diff('a', 's', null), [
    { offset: 4 * KiB, lengthBytes: 4 * KiB },
    { offset: 16 * KiB, lengthBytes: 8 * KiB },
  ])
  t.same(await rig.pool.mapped('a', null), [
    { offset: 0, lengthBytes: 16 * KiB },
    { offset: 24 * KiB, lengthBytes: 40 * KiB },
  ])
  await t.rejects(rig.pool.removeSnapshot('a', 's'), { code: 'VOLUME_OPEN' })
  await snapshot.close()
  await rig.pool.removeSnapshot('a', 's')
  await rig.pool.settled()
  await rig.pool.audit()
  t.ok((await fake.read(0, before.length)).equals(after))
  t.equal(rig.pool.facts().mappedBytes, 14 * blockBytes)
  await close()
  await rig.pool.removeVolume('a')
  await rig.pool.settled()
  t.equal(rig.pool.facts().allocatedBytes, 0)
  await rig.pool.audit()
})
