import { randomBytes } from 'node:crypto'
import t from 'tap'
import { KiB, MiB } from '../../src/block/units.js'
import { MetadataStore } from '../../src/pool/metadata-store.js'
import { FakeRig } from './fake-rig.js'

const blockBytes = 4 * KiB

t.test('what the log held and nobody may believe is not believed after a second crash either', async (t) => {
  const rig = await FakeRig.create()
  t.teardown(() => rig.close())
  await rig.pool.createVolume('a', MiB)
  let { fake } = await rig.openVolume('a')
  await fake.write(0, randomBytes(blockBytes))
  await fake.flush()
  for (let block = 10; block < 40; block += 1) await fake.write(block * blockBytes, randomBytes(blockBytes))
  // Every record is on the disk, but no COMMIT covers the last ones.
  rig.cutPower('nothing')
  await rig.open()
  t.equal(rig.pool.facts().mappedBytes, blockBytes, 'what was flushed, and no more')
  ;({ fake } = await rig.openVolume('a'))
  await fake.write(50 * blockBytes, randomBytes(blockBytes))
  rig.kill()
  await rig.open()
  t.equal(rig.pool.facts().mappedBytes, 2 * blockBytes)
  await rig.pool.audit()
})

t.test('what was flushed survives a power cut, whatever else is lost', async (t) => {
  for (const lost of ['everything', 'some', 'nothing'] as const) {
    const rig = await FakeRig.create()
    await rig.pool.createVolume('a', MiB)
    const { fake } = await rig.openVolume('a')
    const kept = randomBytes(10 * blockBytes)
    await fake.write(5 * KiB, kept)
    await fake.flush()
    await fake.write(100 * KiB, randomBytes(100 * KiB))
    rig.cutPower(lost)
    await rig.open()
    const again = await rig.openVolume('a')
    t.ok((await again.fake.read(5 * KiB, kept.length)).equals(kept), `when ${lost} is lost`)
    await again.close()
    await rig.pool.audit()
    await rig.close()
  }
})

t.test('a pool that was closed is opened without a replay, and says that it is open', async (t) => {
  const rig = await FakeRig.create()
  t.teardown(() => rig.close())
  await rig.pool.createVolume('a', MiB)
  const { fake, close } = await rig.openVolume('a')
  await fake.write(0, randomBytes(MiB / 2))
  await fake.trim(0, MiB / 4)
  await close()
  await rig.pool.close()
  const closed = await MetadataStore.open(rig.paths, { lock: false, readOnly: true })
  t.ok(closed.clean)
  t.equal((await closed.readLog(() => {})).end, closed.logSequence, 'nothing lies behind the checkpoint')
  await closed.close()
  await rig.open()
  const opened = await MetadataStore.open(rig.paths, { lock: false, readOnly: true })
  t.notOk(opened.clean)
  t.equal(opened.logSequence, closed.logSequence, 'the log goes on where it was')
  await opened.close()
})

t.test('a crash in the middle of recovery is recovered from', async (t) => {
  const rig = await FakeRig.create()
  t.teardown(() => rig.close())
  await rig.pool.createVolume('a', MiB)
  const { fake } = await rig.openVolume('a')
  const data = randomBytes(MiB / 2)
  await fake.write(0, data)
  rig.kill()
  const stop = new Error('cut short')
  for (const step of ['unit-pages', 'unit-map', 'catalog', 'sync', 'superblock', 'done'] as const) {
    const settings = {
      onCheckpointStep: (at: string) => {
        if (at === step) throw stop
      },
    }
    await t.rejects(rig.open(settings), stop, `before ${step}`)
  }
  await rig.open()
  const again = await rig.openVolume('a')
  t.ok((await again.fake.read(0, data.length)).equals(data))
  await again.close()
  await rig.pool.audit()
})
