import { randomBytes } from 'node:crypto'
import { closeSync, openSync, writeSync } from 'node:fs'
import t from 'tap'
import { KiB, MiB } from '../../src/block/units.js'
import { MetadataStore } from '../../src/pool/metadata-store.js'
import { unitPageOffset } from '../../src/pool/tree-reader.js'
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

t.test('who holds a pool is durable at once, and stays over checkpoints', async (t) => {
  const rig = await FakeRig.create()
  t.teardown(() => rig.close())
  t.equal(rig.pool.holder, null)
  await rig.pool.hold('first')
  rig.cutPower('everything')
  await rig.open()
  t.equal(rig.pool.holder, 'first')
  await rig.pool.hold('second')
  await rig.pool.close()
  await rig.open()
  t.equal(rig.pool.holder, 'second')
  await rig.pool.checkpoint()
  rig.kill()
  await rig.open()
  t.equal(rig.pool.holder, 'second')
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

t.test('a volume is as a snapshot was after a rollback; newer snapshots stay', async (t) => {
  const rig = await FakeRig.create()
  t.teardown(() => rig.close())
  await rig.pool.createVolume('a', MiB)
  const contents: Buffer[] = []
  for (const name of ['s1', 's2', 's3']) {
    const { fake, close } = await rig.openVolume('a')
    await fake.write(contents.length * 8 * KiB, randomBytes(64 * KiB))
    contents.push(await fake.read(0, MiB))
    if (name === 's2') await t.rejects(rig.pool.rollback('a', 's1'), { code: 'VOLUME_OPEN' })
    await close()
    await rig.pool.createSnapshot('a', name)
  }
  await rig.pool.rollback('a', 's1')
  await rig.pool.settled()
  const { fake, close } = await rig.openVolume('a')
  t.ok((await fake.read(0, MiB)).equals(contents[0]!))
  await fake.write(200 * KiB, Buffer.alloc(blockBytes, 1))
  await close()
  // Not in one line: what either says since they parted.
  t.same(await rig.pool.diff('a', 's3', null), [
    { offset: 8 * KiB, lengthBytes: 72 * KiB },
    { offset: 200 * KiB, lengthBytes: blockBytes },
  ])
  t.same(await rig.pool.diff('a', 's1', 's1'), [])
  for (const [index, name] of ['s1', 's2', 's3'].entries()) {
    const snapshot = await rig.openVolume('a', name)
    t.ok((await snapshot.fake.read(0, MiB)).equals(contents[index]!))
    await snapshot.close()
  }
  await rig.pool.audit()
})

t.test('a volume takes the place of another with all its snapshots', async (t) => {
  const rig = await FakeRig.create()
  t.teardown(() => rig.close())
  const data = new Map<string, Buffer>()
  for (const name of ['old', 'new']) {
    await rig.pool.createVolume(name, MiB, name === 'new' ? 'inbound' : 'volume')
    const { fake, close } = await rig.openVolume(name)
    data.set(name, randomBytes(32 * KiB))
    await fake.write(0, data.get(name)!)
    await close()
    await rig.pool.createSnapshot(name, `of-${name}`, { hidden: name === 'new' })
  }
  await t.rejects(rig.pool.renameVolume('new', 'old'), { code: 'ALREADY_EXISTS' })
  const open = await rig.openVolume('old')
  await t.rejects(rig.pool.renameVolume('new', 'old', true), { code: 'VOLUME_OPEN' })
  await open.close()
  await rig.pool.renameVolume('new', 'old', true)
  t.match(rig.pool.volumes(), [
    {
      name: 'old',
      role: 'inbound',
      snapshots: [
        { name: 'of-old', hidden: false },
        { name: 'of-new', hidden: true },
      ],
    },
  ])
  for (const [name, bytes] of data) {
    const snapshot = await rig.openVolume('old', `of-${name}`)
    t.ok((await snapshot.fake.read(0, bytes.length)).equals(bytes))
    await snapshot.close()
  }
  // Nothing below is common to them.
  t.same(await rig.pool.diff('old', 'of-old', 'of-new'), [{ offset: 0, lengthBytes: 32 * KiB }])
  await rig.pool.renameVolume('old', 'other')
  t.equal(rig.pool.volume('other').name, 'other')
})

t.test('what is cut off a volume is gone, also when it grows again', async (t) => {
  const rig = await FakeRig.create()
  t.teardown(() => rig.close())
  await rig.pool.createVolume('a', MiB)
  const { fake, close } = await rig.openVolume('a')
  const data = randomBytes(MiB)
  await fake.write(0, data)
  await rig.pool.createSnapshot('a', 's')
  await t.rejects(rig.pool.resizeVolume('a', MiB / 2), { code: 'VOLUME_OPEN' })
  await rig.pool.resizeVolume('a', MiB + 64 * KiB)
  t.equal(fake.sizeBytes, MiB + 64 * KiB, 'one that is open grows')
  await fake.write(MiB, Buffer.alloc(blockBytes, 1))
  await close()
  await rig.pool.resizeVolume('a', MiB / 2)
  await rig.pool.resizeVolume('a', 2 * MiB)
  const again = await rig.openVolume('a')
  const expected = Buffer.alloc(2 * MiB)
  data.copy(expected, 0, 0, MiB / 2)
  t.ok((await again.fake.read(0, 2 * MiB)).equals(expected))
  await again.close()
  await rig.pool.rollback('a', 's')
  t.equal(rig.pool.volume('a').sizeBytes, MiB)
  await rig.pool.audit()
})

t.test('what cannot be done is refused by name', async (t) => {
  const rig = await FakeRig.create()
  t.teardown(() => rig.close())
  const { pool } = rig
  await pool.createVolume('a', MiB)
  await pool.createSnapshot('a', 's')
  await pool.setImage('a', { volume: 'x', base: 'b', own: null, complete: false })
  t.match(pool.volume('a').image, { volume: 'x', complete: false })
  await t.rejects(pool.createVolume('a', MiB), { code: 'ALREADY_EXISTS' })
  await t.rejects(pool.createVolume('b', 1000), { code: 'BAD_SIZE' })
  await t.rejects(pool.createSnapshot('a', 's'), { code: 'ALREADY_EXISTS' })
  await t.rejects(pool.createSnapshot('x', 's'), { code: 'NO_SUCH_VOLUME' })
  await t.rejects(pool.createClone('b', 'a', 'x'), { code: 'NO_SUCH_SNAPSHOT' })
  await t.rejects(pool.createClone('a', 'a', 's'), { code: 'ALREADY_EXISTS' })
  await t.rejects(pool.removeVolume('a'), { code: 'HAS_SNAPSHOTS' })
  await t.rejects(pool.removeSnapshot('a', 'x'), { code: 'NO_SUCH_SNAPSHOT' })
  const { close } = await rig.openVolume('a')
  await t.rejects(rig.openVolume('a'), { code: 'VOLUME_OPEN' })
  await t.rejects(pool.close(), { code: 'VOLUME_OPEN' })
  await close()
  await pool.createClone('b', 'a', 's')
  t.equal(pool.volume('b').origin, 'a@s')
  t.throws(() => pool.volume('c'), { code: 'NO_SUCH_VOLUME' })
})

t.test('a damaged page costs the volumes that own it, and nobody else', async (t) => {
  const rig = await FakeRig.create()
  t.teardown(() => rig.close())
  for (const name of ['a', 'b']) {
    await rig.pool.createVolume(name, MiB)
    const { fake, close } = await rig.openVolume(name)
    await fake.write(0, Buffer.alloc(64 * KiB, 1))
    await close()
    await rig.pool.createSnapshot(name, 's')
  }
  await rig.pool.close()
  const store = await MetadataStore.open(rig.paths, { lock: false, readOnly: true })
  const [layout] = store.geometry.devices
  const { layer } = [...store.catalog.volumes.values()][0]!.snapshots[0]!
  const unit = store.units.layer.indexOf(layer)
  await store.close()
  const file = openSync(rig.paths[0]!, 'r+')
  for (const copy of [0, 1] as const) writeSync(file, randomBytes(64), 0, 64, unitPageOffset(layout!, copy, unit) + 100)
  closeSync(file)
  await rig.open()
  await t.rejects(rig.openVolume('a'), { code: 'POOL_DAMAGED' })
  await t.rejects(
    rig.pool.diff('a', 's', null).then(() => rig.pool.mapped('a', 's')),
    { code: 'POOL_DAMAGED' },
  )
  t.equal(rig.pool.facts().state, 'damaged')
  const b = await rig.openVolume('b')
  t.ok((await b.fake.read(0, 64 * KiB)).equals(Buffer.alloc(64 * KiB, 1)))
  await b.fake.write(0, Buffer.alloc(64 * KiB, 2))
  await rig.pool.createSnapshot('b', 's2')
  await b.close()
  await rig.pool.checkpoint()
  // Into a child nobody can merge it; given up it can be.
  await rig.pool.removeSnapshot('a', 's')
  await rig.pool.settled()
  t.ok(rig.events.some(({ code }) => code === 'POOL_DAMAGED'))
  await rig.pool.removeVolume('a')
  await rig.pool.settled()
  t.match(rig.pool.facts(), { background: null, allocatedBytes: 4 * 32 * KiB })
  await rig.pool.audit()
})
