import { randomBytes } from 'node:crypto'
import t from 'tap'
import { KiB, MiB } from '../../src/block/units.js'
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
