import { randomBytes } from 'node:crypto'
import t from 'tap'
import { KiB, MiB } from '../../src/block/units.js'
import type { FakePool } from './fake-native.js'
import { FakeRig } from './fake-rig.js'

const blockBytes = 4 * KiB

async function turns(count = 200): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await new Promise(setImmediate)
}

t.test('a snapshot whose removal is not durable keeps its content over a power cut', async (t) => {
  for (const lost of ['everything', 'nothing'] as const) {
    const rig = await FakeRig.create()
    await rig.pool.createVolume('a', MiB)
    const { fake } = await rig.openVolume('a')
    const before = randomBytes(MiB / 4)
    await fake.write(0, before)
    await rig.pool.createSnapshot('a', 's')
    let go = (): void => {}
    ;(rig.fake.pool as FakePool).hold = new Promise((resolve) => {
      go = resolve
    })
    const removal = rig.pool.removeSnapshot('a', 's')
    removal.catch(() => undefined)
    await turns()
    // In place, were the snapshot's units the volume's already.
    await fake.write(512, randomBytes(512))
    await fake.write(8 * blockBytes, randomBytes(blockBytes))
    rig.cutPower(lost)
    go()
    await rig.open()
    t.same(
      rig.pool.volume('a').snapshots.map(({ name }) => name),
      ['s'],
    )
    const snapshot = await rig.openVolume('a', 's')
    t.ok((await snapshot.fake.read(0, before.length)).equals(before), `when ${lost} is lost`)
    await snapshot.close()
    await rig.pool.audit()
    await rig.close()
  }
})

t.test('what was left of a merge by a crash goes on after it', async (t) => {
  const rig = await FakeRig.create({ deviceBytes: [16 * MiB] })
  t.teardown(() => rig.close())
  await rig.pool.createVolume('a', 12 * MiB)
  const { fake, close } = await rig.openVolume('a')
  await fake.write(0, randomBytes(10 * MiB))
  await rig.pool.createSnapshot('a', 's')
  const content = randomBytes(MiB)
  await fake.write(MiB, content)
  await close()
  await rig.pool.removeSnapshot('a', 's')
  const left = (): number => Number(/^merging (\d+) units/.exec(rig.pool.facts().background ?? '')?.[1])
  while (Number.isNaN(left())) await new Promise(setImmediate)
  const units = left()
  while (left() === units) await new Promise(setImmediate)
  t.ok(left() > 0 && left() < units, `${left()} of ${units} units are left`)
  rig.kill()
  await rig.open()
  await rig.pool.settled()
  t.equal(rig.pool.facts().mappedBytes, 10 * MiB, 'each block is there once')
  t.equal(rig.pool.facts().background, null)
  await rig.pool.audit()
  const again = await rig.openVolume('a')
  t.ok((await again.fake.read(MiB, content.length)).equals(content))
  await again.close()
})

t.test('a layer that several stand on stays until one is left', async (t) => {
  const rig = await FakeRig.create()
  t.teardown(() => rig.close())
  await rig.pool.createVolume('a', MiB)
  const { fake, close } = await rig.openVolume('a')
  const shared = randomBytes(MiB / 2)
  await fake.write(0, shared)
  await rig.pool.createSnapshot('a', 's')
  await rig.pool.createClone('b', 'a', 's')
  await rig.pool.removeSnapshot('a', 's')
  await rig.pool.settled()
  t.equal(rig.pool.facts().mappedBytes, MiB / 2)
  const clone = await rig.openVolume('b')
  await clone.fake.trim(0, 64 * KiB)
  await clone.fake.write(100 * KiB, Buffer.alloc(blockBytes, 7))
  await close()
  await rig.pool.removeVolume('a')
  await rig.pool.settled()
  await rig.pool.audit()
  t.equal(rig.pool.facts().mappedBytes, MiB / 2 - 64 * KiB, 'what the clone does not show is gone')
  const expected = Buffer.from(shared)
  expected.fill(0, 0, 64 * KiB).fill(7, 100 * KiB, 100 * KiB + blockBytes)
  t.ok((await clone.fake.read(0, expected.length)).equals(expected))
  // Merged blocks are written where they are.
  const mapped = rig.pool.facts().mappedBytes
  await clone.fake.write(200 * KiB, Buffer.alloc(512, 9))
  t.equal(rig.pool.facts().mappedBytes, mapped)
  await clone.close()
  await rig.pool.audit()
})
