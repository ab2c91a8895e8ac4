import { readFileSync, writeFileSync } from 'node:fs'
import t, { type Test } from 'tap'
import type { InboundVolume } from '../../src/destage/inbound-state.js'
import { PoolImages } from '../../src/destage/pool-images.js'
import { FakeThinPool, fakeThinVolumes } from '../fixtures/fake-thin-pool.js'
import { scratchFolder } from '../fixtures/paths.js'
import { rigOnPool } from './pool-rig.js'

const sizeBytes = 65536
const declared = [
  { index: 0, name: 'data', sizeBytes },
  { index: 1, name: 'log', sizeBytes },
]

function make(t: Test, taken: string[] = []) {
  const pool = new FakeThinPool(scratchFolder(t, 'pool-images'))
  const volumes = fakeThinVolumes()
  let isOpen = true
  const forgotten: string[] = []
  const images = new PoolImages({
    poolName: 'p',
    pool: () => (isOpen ? pool : undefined),
    poolOf: (id) => (isOpen && id === pool.id ? pool : undefined),
    volume: (open, name) => volumes.get(open, name),
    forget: (name) => forgotten.push(name),
    isTaken: (name) => taken.includes(name),
  })
  const names = (): string[] => pool.volumes().map(({ name }) => name)
  const close = (): void => {
    isOpen = false
  }
  const open = (): void => {
    isOpen = true
  }
  return { pool, volumes, images, names, close, open, forgotten }
}

t.test('a generation grows in thin volumes no operator can name, and takes the place of the old one', async (t) => {
  const { pool, volumes, images, names } = make(t)
  const first = await images.begin({ stream: 'gold', volumes: declared, before: [] })
  t.same(
    first.map(({ thin }) => thin),
    [
      { poolId: pool.id, volume: 'gold.data' },
      { poolId: pool.id, volume: 'gold.log' },
    ],
  )
  t.same(names(), ['.gold.data.incoming', '.gold.log.incoming'])
  t.ok(pool.volumes().every(({ role }) => role === 'inbound'))
  t.equal(images.path(first[0]!), '', 'there is nothing to read yet')
  await images.open(first, false)
  writeFileSync(await images.target(first[0]!, false), Buffer.alloc(sizeBytes, 1))
  await images.promote(first)
  await images.promote(first)
  t.same(names(), ['gold.data', 'gold.log'])
  t.equal(readFileSync(images.path(first[0]!))[0], 1)
  t.equal(await images.target(first[0]!, true), images.path(first[0]!))
  await pool.createSnapshot('gold.data', 'before')

  const second = await images.begin({ stream: 'gold', volumes: declared, before: first })
  t.same(second, first, 'the names stay')
  await images.open(second, false)
  writeFileSync(await images.target(second[0]!, false), Buffer.alloc(sizeBytes, 2))
  t.equal(readFileSync(images.path(second[0]!))[0], 1, 'the old one is readable')
  const third = await images.begin({ stream: 'gold', volumes: declared, before: second })
  await images.open(third, false)
  t.equal(readFileSync(await images.target(third[0]!, false))[0], 0, 'what was begun and given up is empty again')
  await images.promote(third)
  t.equal(readFileSync(images.path(third[0]!))[0], 0)
  t.equal(readFileSync(pool.file('gold.data', 'before'))[0], 1, 'the snapshots of the old one stay')
  await images.close()
  t.same(new Set(volumes.held.values()), new Set([0]), 'nothing stays open')
})

t.test('a crash between two volumes of a generation goes on with those that are left', async (t) => {
  const { pool, images, names } = make(t)
  const volumes = await images.begin({ stream: 'gold', volumes: declared, before: [] })
  await images.open(volumes, false)
  pool.fail = (call) => {
    if (call === 'renameVolume .gold.log.incoming') throw new Error('killed')
  }
  await t.rejects(images.promote(volumes), { message: 'killed' })
  pool.fail = () => {}
  await images.open(volumes, false)
  t.equal(await images.target(volumes[0]!, false), pool.file('gold.data'))
  t.equal(await images.target(volumes[1]!, false), pool.file('.gold.log.incoming'))
  await images.promote(volumes)
  t.same(names(), ['gold.data', 'gold.log'])
})

t.test('a name belongs to one stream: others get a number, and what is too long is cut', async (t) => {
  const { pool, images } = make(t, ['gold.data-2'])
  await pool.createVolume('gold.data', sizeBytes)
  const made = await images.begin({ stream: 'gold', volumes: declared.slice(0, 1), before: [] })
  t.equal(made[0]!.thin!.volume, 'gold.data-3')
  const long = { index: 0, name: 'v'.repeat(63), sizeBytes }
  const [a] = await images.begin({ stream: 's'.repeat(63), volumes: [long], before: [] })
  const [b] = await images.begin({ stream: 's'.repeat(62), volumes: [long], before: [] })
  t.equal(a!.thin!.volume.length, 63)
  t.not(a!.thin!.volume, b!.thin!.volume)
  const [dots] = await images.begin({ stream: 'a.', volumes: [{ ...long, name: 'b' }], before: [] })
  t.equal(dots!.thin!.volume, 'a.b')
})

t.test('without its pool nothing is begun and nothing shown; another pool is not it', async (t) => {
  const { pool, images, close } = make(t)
  const elsewhere: InboundVolume = { ...declared[0]!, thin: { poolId: '00', volume: 'gold.data' } }
  await t.rejects(images.open([elsewhere], true), { code: 'POOL_MISSING', retry: 'later' })
  close()
  await t.rejects(images.begin({ stream: 'gold', volumes: declared, before: [] }), { code: 'POOL_MISSING' })
  t.equal(images.path(elsewhere), '')
  t.same(pool.calls, [])
})

t.test('what a host has attached is not replaced under it', async (t) => {
  const { volumes, images, names } = make(t)
  const first = await images.begin({ stream: 'gold', volumes: declared.slice(0, 1), before: [] })
  await images.open(first, false)
  await images.promote(first)
  await images.begin({ stream: 'gold', volumes: declared.slice(0, 1), before: first })
  await images.open(first, false)
  volumes.device = '/dev/loop7'
  await t.rejects(images.promote(first), { code: 'VOLUME_ATTACHED', retry: 'later' })
  volumes.device = null
  await images.promote(first)
  t.same(names(), ['gold.data'])
})

t.test('a volume that an operator made under the name meanwhile is left to its operator', async (t) => {
  const { pool, volumes, images, names, forgotten } = make(t)
  const first = await images.begin({ stream: 'gold', volumes: declared.slice(0, 1), before: [] })
  await images.open(first, false)
  await pool.createVolume('gold.data', sizeBytes)
  await images.open(first, false)
  t.notOk(volumes.held.get('gold.data'), 'it can be removed')
  await t.rejects(images.promote(first), { code: 'NAME_TAKEN', retry: 'later' })
  await t.rejects(images.target(first[0]!, true), { code: 'NAME_TAKEN' }, 'and nothing is written to it')
  t.ok(names().includes('.gold.data.incoming'))
  const again = await images.begin({ stream: 'gold', volumes: declared.slice(0, 1), before: first })
  t.equal(again[0]!.thin!.volume, 'gold.data-2', 'the next generation has another name')
  await images.open(again, false)
  await images.promote(again)
  t.same(new Set(names()), new Set(['gold.data', 'gold.data-2']), 'what arrived under the old one is gone')
  await images.remove(first)
  t.ok(names().includes('gold.data'))
  t.notOk(forgotten.includes('gold.data'))
})

t.test('what is removed while its pool is away goes when the pool is back', async (t) => {
  const { images, names, close, open } = make(t)
  const first = await images.begin({ stream: 'gold', volumes: declared, before: [] })
  await images.open(first, false)
  close()
  await t.rejects(images.remove(first), { code: 'POOL_MISSING', retry: 'later' })
  await images.remove([])
  open()
  await images.remove(first)
  t.same(names(), [])
})

t.test(
  'another pool is named while a stream arrives: it goes on where it is, its next generation begins there',
  async (t) => {
    const volumes = fakeThinVolumes()
    const [before, now] = ['before', 'now'].map((folder) => new FakeThinPool(scratchFolder(t, folder)))
    Object.assign(now!, { id: '0b'.repeat(16) })
    const open = new Set([before!, now!])
    const onPool = (poolName: string | undefined, pool: FakeThinPool | undefined) =>
      new PoolImages({
        poolName,
        pool: () => pool,
        poolOf: (id) => [...open].find((each) => each.id === id),
        volume: (pool, name) => volumes.get(pool, name),
        forget: () => {},
        isTaken: (name) =>
          [...open].some((each) => each !== pool && each.volumes().some((known) => known.name === name)),
      })
    const names = (pool: FakeThinPool | undefined): string[] => pool!.volumes().map(({ name }) => name)
    const first = await onPool('before', before).begin({ stream: 'gold', volumes: declared, before: [] })
    const images = onPool('now', now)
    await images.open(first, false)
    writeFileSync(await images.target(first[0]!, false), Buffer.alloc(sizeBytes, 7))
    await images.promote(first)
    t.equal(readFileSync(images.path(first[0]!))[0], 7)
    const second = await images.begin({ stream: 'gold', volumes: declared, before: first })
    await images.open(second, false)
    await images.promote(second)
    t.same(names(before), ['gold.data', 'gold.log'], 'what it was stays for its operator')
    t.same(names(now), ['gold.data-2', 'gold.log-2'])
    await images.close()

    for (const [name, pool] of [
      ['now', now],
      [undefined, undefined],
    ] as const) {
      const arriving = await onPool('before', before).begin({ stream: 'iron', volumes: declared, before: [] })
      await onPool(name, pool).remove(arriving)
      t.same(names(before), ['gold.data', 'gold.log'], 'removed where it is')
      open.delete(before!)
      await onPool(name, pool).remove(arriving)
      open.add(before!)
    }
  },
)

t.test('a stream that arrives in a pool survives restarts and a new generation', async (t) => {
  const { rig, pool } = rigOnPool(t)
  const epochs = rig.chain(4)
  for (const [at, { name, bytes }] of epochs.entries()) {
    rig.start()
    rig.deliver(name, bytes)
    await rig.applied(at + 1)
    await rig.stop()
    await rig.images.close()
  }
  t.equal(readFileSync(pool().file('st.v'))[0], 4)
  const fresh = rig.epoch(1, Buffer.alloc(16), 50, { generation: 2 })
  rig.deliver(fresh.name, fresh.bytes)
  rig.start()
  await rig.until(() => rig.stream.position.generation === 2 && rig.stream.position.consistent)
  t.equal(readFileSync(pool().file('st.v'))[0], 50)
})

t.test('a pool that was away is no reason any more when it is back, also when nothing arrives', async (t) => {
  const { rig, setAway } = rigOnPool(t)
  const [one] = rig.chain(1)
  rig.start()
  rig.deliver(one!.name, one!.bytes)
  await rig.applied(1)
  setAway(true)
  await rig.until(() => rig.acknowledgement()?.state === 'stalled')
  t.match(rig.stream.status(), { state: 'stalled', reason: /POOL_MISSING/ })
  setAway(false)
  await rig.until(() => rig.acknowledgement()?.state === 'consistent')
  t.match(rig.stream.status(), { state: 'consistent', reason: /epoch 1/ })
  t.equal(rig.told('DESTAGE_RESUMED').length, 1)
})
