import { randomBytes } from 'node:crypto'
import t from 'tap'
import { KiB, MiB } from '../../src/block/units.js'
import { type FakePool, RefusedError } from './fake-native.js'
import { FakeRig } from './fake-rig.js'

const blockBytes = 4 * KiB

/** A pool of few units, almost full. */
async function nearlyFull(waitForSpaceMs: number) {
  const rig = await FakeRig.create({ deviceBytes: [2 * MiB] }, { waitForSpaceMs, marks: [50, 90] })
  await rig.pool.createVolume('a', 4 * MiB)
  const { fake, close } = await rig.openVolume('a')
  const { sizeBytes } = rig.pool.facts()
  await fake.write(0, randomBytes(sizeBytes))
  return { rig, fake, close, sizeBytes }
}

t.test('a full pool lets writes in place go on, the others wait, then get ENOSPC', async (t) => {
  const { rig, fake, sizeBytes } = await nearlyFull(300)
  t.teardown(() => rig.close())
  const alive = setInterval(() => {}, 50)
  t.teardown(() => clearInterval(alive))
  const begin = performance.now()
  const waiting = fake.write(sizeBytes, randomBytes(512))
  await fake.write(0, randomBytes(64 * KiB))
  t.equal(rig.pool.facts().state, 'full')
  await t.rejects(waiting, new RefusedError(28))
  t.ok(performance.now() - begin >= 290)
  t.equal(rig.events.filter(({ code }) => code === 'POOL_FULL').length, 1, 'it is told once')
  t.equal(rig.events.filter(({ code }) => code === 'POOL_MARK').length, 2)
  await t.rejects(rig.pool.createSnapshot('a', 's'), { code: 'POOL_NEARLY_FULL' })
  await rig.pool.audit()
})

t.test('what waits for space goes on when something is trimmed, without a flush of any host', async (t) => {
  const { rig, fake, sizeBytes } = await nearlyFull(20_000)
  t.teardown(() => rig.close())
  const data = randomBytes(3 * blockBytes)
  const waiting = fake.write(sizeBytes, data)
  await new Promise(setImmediate)
  await fake.trim(0, 64 * KiB)
  await waiting
  t.ok((await fake.read(sizeBytes, data.length)).equals(data))
  await rig.pool.audit()
})

t.test(
  'what waits for space goes on when the pool is extended, and the new device is used after a crash too',
  async (t) => {
    const { rig, fake, sizeBytes } = await nearlyFull(20_000)
    t.teardown(() => rig.close())
    const data = randomBytes(MiB)
    const waiting = fake.write(sizeBytes, data)
    await rig.pool.extend(rig.addDisk(), 2 * MiB)
    await waiting
    t.ok(rig.pool.facts().sizeBytes > sizeBytes)
    t.equal(rig.pool.facts().devices.length, 2)
    t.ok(rig.events.some(({ code }) => code === 'POOL_EXTENDED'))
    rig.kill()
    await rig.open()
    const again = await rig.openVolume('a')
    t.ok((await again.fake.read(sizeBytes, data.length)).equals(data))
    await again.close()
    await rig.pool.audit()
  },
)

t.test('what waits for space goes on when another volume is removed', async (t) => {
  const rig = await FakeRig.create({ deviceBytes: [2 * MiB] }, { waitForSpaceMs: 20_000 })
  t.teardown(() => rig.close())
  for (const name of ['a', 'b']) await rig.pool.createVolume(name, 4 * MiB)
  const { sizeBytes } = rig.pool.facts()
  const b = await rig.openVolume('b')
  await b.fake.write(0, randomBytes(sizeBytes / 2))
  await b.close()
  const { fake, close } = await rig.openVolume('a')
  const data = randomBytes(sizeBytes - 64 * KiB)
  const waiting = fake.write(0, data)
  while (rig.pool.facts().state !== 'full') await new Promise(setImmediate)
  await rig.pool.removeVolume('b')
  await waiting
  t.ok((await fake.read(0, data.length)).equals(data))
  await close()
  await rig.pool.audit()
})

t.test(
  'a snapshot under load holds what was acknowledged before, and every later write goes to the volume',
  async (t) => {
    const rig = await FakeRig.create({ deviceBytes: [8 * MiB] })
    t.teardown(() => rig.close())
    await rig.pool.createVolume('a', MiB)
    const { fake, close } = await rig.openVolume('a')
    let round = 0
    let stop = false
    // Each pass writes its number to every block, in order: a snapshot shows one pass up to a block, the one before after it.
    const writer = (async () => {
      while (!stop) {
        round += 1
        for (let block = 0; block < 64; block += 1)
          await fake.write(block * blockBytes, Buffer.alloc(blockBytes, round % 250))
      }
    })()
    for (let at = 0; at < 6; at += 1) {
      for (let turn = 0; turn < 60; turn += 1) await new Promise(setImmediate)
      await rig.pool.createSnapshot('a', `s${at}`)
      const snapshot = await rig.openVolume('a', `s${at}`)
      const bytes = await snapshot.fake.read(0, 64 * blockBytes)
      const again = await snapshot.fake.read(0, 64 * blockBytes)
      const values = Array.from({ length: 64 }, (_, block) => bytes[block * blockBytes]!)
      const steps = values.filter((value, block) => block > 0 && value !== values[block - 1]).length
      t.ok(steps <= 1, `one pass up to a block: ${[...new Set(values)]}`)
      t.ok(bytes.equals(again), 'and it stays so')
      await snapshot.close()
    }
    stop = true
    await writer
    await close()
    await rig.pool.settled()
    await rig.pool.audit()
  },
)

t.test(
  'fresh places of a file need no zeros once they were trimmed, those of a disk that promises nothing do',
  async (t) => {
    const rig = await FakeRig.create()
    t.teardown(() => rig.close())
    await rig.pool.settled()
    await rig.pool.createVolume('a', MiB)
    const { fake, close } = await rig.openVolume('a')
    await fake.write(512, randomBytes(512))
    ;(rig.fake.pool as FakePool).certain = false
    // Each fresh place that is taken for zeros is looked at by the fake.
    for (let round = 0; round < 30; round += 1) {
      await fake.write(round * 7 * KiB, randomBytes(512))
      await fake.trim((round * 7 * KiB) & ~(blockBytes - 1), blockBytes)
      await fake.flush()
    }
    await close()
    await rig.pool.audit()
  },
)

t.test('a pool whose log fails refuses what needs it and says so', async (t) => {
  const rig = await FakeRig.create()
  t.teardown(() => rig.close())
  await rig.pool.createVolume('a', MiB)
  const { fake } = await rig.openVolume('a')
  const data = randomBytes(blockBytes)
  await fake.write(0, data)
  ;(rig.fake.pool as FakePool).fail('the disk is gone')
  for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate)
  await t.rejects(fake.write(64 * KiB, data), new RefusedError(5))
  t.ok((await fake.read(0, blockBytes)).equals(data))
  t.match(rig.pool.facts(), { state: 'failed', reason: /the disk is gone/ })
  await t.rejects(rig.pool.createSnapshot('a', 's'), { code: 'POOL_FAILED' })
  t.equal(rig.events.filter(({ code }) => code === 'POOL_FAILED').length, 1)
})
