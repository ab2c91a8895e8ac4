import { randomBytes } from 'node:crypto'
import { constants } from 'node:os'
import t from 'tap'
import { KiB, MiB } from '../../src/block/units.js'
import type { RefusedError } from './fake-native.js'
import { FakeRig } from './fake-rig.js'

const blockBytes = 4 * KiB

t.test('a log that fills up again and again holds nobody up for good, and nothing is lost', async (t) => {
  const rig = await FakeRig.create()
  t.teardown(() => rig.close())
  await rig.pool.createVolume('a', MiB)
  const { fake, close } = await rig.openVolume('a')
  const { capacityRecords } = (rig.fake.pool as NonNullable<typeof rig.fake.pool>).options.log
  const blocks = MiB / blockBytes
  let records = 0
  // Each whole block written over a trimmed one is a MAP, each trim a HOLE.
  while (records < 3 * capacityRecords) {
    const first = records % (blocks / 2)
    await fake.write(first * blockBytes, Buffer.alloc(100 * blockBytes, 1 + (records % 200)))
    await fake.trim(first * blockBytes, 99 * blockBytes)
    records += 199
  }
  const data = randomBytes(MiB / 2)
  await fake.write(0, data)
  rig.kill()
  await rig.open()
  const again = await rig.openVolume('a')
  t.ok((await again.fake.read(0, data.length)).equals(data))
  await again.close()
  await rig.pool.audit()
  await close().catch(() => undefined)
})

t.test('a checkpoint that is cut short changes nothing, wherever that is', async (t) => {
  for (const step of ['unit-pages', 'unit-map', 'catalog', 'sync', 'superblock', 'done'] as const) {
    const rig = await FakeRig.create()
    await rig.pool.close()
    let armed = false
    const onCheckpointStep = (at: string): void => {
      if (armed && at === step) throw new Error('cut short')
    }
    await rig.open({ onCheckpointStep })
    await rig.pool.createVolume('a', MiB)
    const { fake } = await rig.openVolume('a')
    const data = randomBytes(MiB / 2)
    await fake.write(0, data)
    await rig.pool.checkpoint()
    await fake.write(MiB / 4, data)
    await fake.trim(0, MiB / 8)
    armed = true
    await t.rejects(rig.pool.checkpoint(), /cut short/)
    t.equal(rig.pool.facts().state, 'failed')
    await t.rejects(rig.pool.createVolume('b', MiB), { code: 'POOL_FAILED' })
    rig.kill()
    await rig.open()
    const again = await rig.openVolume('a')
    const expected = Buffer.concat([data.subarray(0, MiB / 4), data])
    expected.fill(0, 0, MiB / 8)
    t.ok((await again.fake.read(0, expected.length)).equals(expected), `before ${step}`)
    await again.close()
    await rig.pool.audit()
    await rig.close()
  }
})

t.test('holes never fill the catalog: trims are refused first, and taken again when clones are gone', async (t) => {
  const rig = await FakeRig.create()
  t.teardown(() => rig.close())
  const told = (code: string): boolean => rig.events.some((event) => event.code === code)
  await rig.pool.createVolume('a', 2 * MiB)
  const base = await rig.openVolume('a')
  const data = randomBytes(2 * MiB)
  await base.fake.write(0, data)
  await base.close()
  await rig.pool.createSnapshot('a', 's')
  const blocks = data.length / blockBytes
  const clones = 50
  for (let clone = 0; clone < clones; clone += 1) await rig.pool.createClone(`c${clone}`, 'a', 's')
  let filled = 0
  for (; filled < clones && !told('POOL_HOLES_FULL'); filled += 1) {
    const { fake, close } = await rig.openVolume(`c${filled}`)
    for (let block = 0; block < blocks; block += 2) await fake.trim(block * blockBytes, blockBytes)
    await close()
    await rig.pool.checkpoint()
  }
  t.ok(told('POOL_HOLES_FULL'), `after ${filled} clones`)
  const last = await rig.openVolume(`c${filled - 1}`)
  const refused = await last.fake.trim(blockBytes, blockBytes).catch((error: RefusedError) => error.errno)
  t.equal(refused, constants.errno.EOPNOTSUPP)
  const mapped = rig.pool.facts().mappedBytes
  await last.fake.write(blockBytes, Buffer.alloc(blockBytes))
  t.equal(rig.pool.facts().mappedBytes, mapped + blockBytes, 'zeros take space')
  rig.kill()
  await rig.open()
  const again = await rig.openVolume(`c${filled - 1}`)
  t.ok((await again.fake.read(0, 2 * blockBytes)).every((byte) => byte === 0))
  t.ok((await again.fake.read(3 * blockBytes, blockBytes)).equals(data.subarray(3 * blockBytes, 4 * blockBytes)))
  for (let clone = 0; clone < filled / 2; clone += 1) await rig.pool.removeVolume(`c${clone}`)
  await rig.pool.settled()
  await rig.pool.checkpoint()
  await again.fake.trim(3 * blockBytes, blockBytes)
  t.ok(
    (await again.fake.read(3 * blockBytes, blockBytes)).every((byte) => byte === 0),
    'trims are taken again',
  )
  await again.close()
  await rig.pool.audit()
})
