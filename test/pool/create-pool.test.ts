import { execFileSync } from 'node:child_process'
import { existsSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { GiB, KiB, MiB } from '../../src/block/units.js'
import { createPool, prepareDevice } from '../../src/pool/create-pool.js'
import { MetadataStore } from '../../src/pool/metadata-store.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { scratchFolder } from '../fixtures/paths.js'
import { contentOf, PoolRig, tiny } from '../fixtures/pool/pool-rig.js'

const usual = { name: 'p', unitBytes: 8 * MiB, blockBytes: 64 * KiB }

/** A file whose file system is no place for it, as a block device; gone with the test. */
function loopDevice(test: { teardown(done: () => void): void }, sizeBytes: number): string {
  const folder = scratchFolder(test, 'loop')
  const file = join(folder, 'disk')
  writeFileSync(file, '')
  truncateSync(file, sizeBytes)
  const left = { kind: 'folder', path: folder } as const
  remember(left)
  const device = execFileSync('losetup', ['--find', '--show', file], { encoding: 'utf8' }).trim()
  test.teardown(() => {
    execFileSync('losetup', ['-d', device])
    forget(left)
  })
  return device
}

t.test('a new pool is empty, clean, and opens from its devices in any order', async (t) => {
  const folder = scratchFolder(t, 'pool')
  const paths = ['a', 'b', 'c'].map((name) => join(folder, name))
  await createPool({ ...usual, devices: paths.map((path) => ({ path, kind: 'file', sizeBytes: 64 * MiB })) })
  const store = await MetadataStore.open([paths[2]!, paths[0]!, paths[1]!], { lock: true })
  t.strictSame(store.paths, paths)
  t.equal(store.geometry.unitCount, 7 + 7 + 7)
  t.match(store.catalog, { name: 'p', nextId: 1, devices: paths.map((path) => ({ path, sizeBytes: 64 * MiB })) })
  t.equal(store.catalog.volumes.size + store.catalog.layers.size, 0)
  t.match(store, { clean: true, afterPowerCut: false, logSequence: 0, damage: [] })
  t.ok(store.units.layer.every((layer) => layer === 0))
  await store.close()
})

t.test('a file takes the space of its metadata at once, and no more', async (t) => {
  const folder = scratchFolder(t, 'pool')
  const path = join(folder, 'a')
  await createPool({ ...usual, devices: [{ path, kind: 'file', sizeBytes: GiB }] })
  const { size, blocks } = statSync(path)
  t.equal(size, GiB)
  const taken = blocks * 512
  t.ok(taken >= 20 * MiB && taken <= 33 * MiB, `${taken} bytes`)
})

t.test('what is there is not overwritten; an empty file is taken', async (t) => {
  const folder = scratchFolder(t, 'pool')
  const path = join(folder, 'a')
  writeFileSync(path, 'a diary')
  const devices = [{ path, kind: 'file' as const, sizeBytes: 64 * MiB }]
  await t.rejects(createPool({ ...usual, devices }), { code: 'ALREADY_EXISTS' })
  t.equal(statSync(path).size, 7)
  truncateSync(path)
  await createPool({ ...usual, devices })
  t.equal(statSync(path).size, 64 * MiB)
})

t.test('a pool that cannot be made leaves no file behind', async (t) => {
  const folder = scratchFolder(t, 'pool')
  const [first, second] = [join(folder, 'a'), join(folder, 'b')]
  const devices = [first, second].map((path) => ({ path, kind: 'file' as const, sizeBytes: 64 * MiB }))
  await t.rejects(createPool({ ...usual, devices: [devices[0]!, { ...devices[1]!, sizeBytes: MiB }] }), {
    code: 'BAD_SIZE',
  })
  await t.rejects(createPool({ ...usual, devices: [devices[0]!, { ...devices[1]!, sizeBytes: 64 * MiB + 1 }] }), {
    code: 'BAD_SIZE',
  })
  await t.rejects(createPool({ ...usual, blockBytes: 3000, devices }), { code: 'BAD_POOL_OPTION' })
  await t.rejects(createPool({ ...usual, devices: [{ path: first, kind: 'file' }] }), { code: 'BAD_SIZE' })
  await t.rejects(createPool({ ...usual, devices: [{ ...devices[0]!, path: join(folder, 'no/a') }] }), {
    code: 'NOT_FOUND',
  })
  await t.rejects(createPool({ ...usual, devices: [{ path: folder, kind: 'raw' }] }))
  t.notOk(existsSync(first) || existsSync(second))
  writeFileSync(second, '')
  await t.rejects(createPool({ ...usual, devices: [{ path: second, kind: 'file', sizeBytes: MiB }] }), {
    code: 'BAD_SIZE',
  })
  t.equal(statSync(second).size, 0, 'an empty file is empty again')
})

t.test('a block device is asked about first, and carries a pool beside a file', async (t) => {
  const device = loopDevice(t, 96 * MiB)
  const file = join(scratchFolder(t, 'pool'), 'a')
  const devices = [
    { path: device, kind: 'raw' as const },
    { path: file, kind: 'file' as const, sizeBytes: 64 * MiB },
  ]
  const refusal = new Error('an ext4 file system')
  const assertFree = (path: string): void => {
    if (path === device) throw refusal
  }
  await t.rejects(createPool({ ...usual, devices }, { assertFree }), refusal)
  await t.rejects(createPool({ ...usual, devices: [{ ...devices[0]!, sizeBytes: 97 * MiB }] }), { code: 'BAD_SIZE' })
  await t.rejects(createPool({ ...usual, devices: [{ ...devices[0]!, kind: 'file', sizeBytes: 64 * MiB }] }), {
    code: 'ALREADY_EXISTS',
  })
  await t.rejects(createPool({ ...usual, devices: [{ path: file, kind: 'raw' }] }), { code: 'NOT_FOUND' })
  await createPool({ ...usual, devices })
  const store = await MetadataStore.open([file, device], { lock: true })
  t.strictSame(
    store.geometry.devices.map(({ sizeBytes, unitCount }) => [sizeBytes, unitCount]),
    [
      [96 * MiB, 11],
      [64 * MiB, 7],
    ],
  )
  await t.rejects(MetadataStore.open([device, file], { lock: true }), { code: 'POOL_OPEN' })
  await store.close()
})

t.test('a pool made over an old one on the same device knows nothing of it', async (t) => {
  const device = loopDevice(t, 64 * MiB)
  await createPool({ ...usual, name: 'old', devices: [{ path: device, kind: 'raw' }] })
  const old = await MetadataStore.open([device], { lock: true })
  for (let round = 0; round < 5; round += 1) await old.checkpoint(contentOf(old))
  await old.close()
  await createPool({ ...usual, name: 'new', devices: [{ path: device, kind: 'raw' }] })
  const store = await MetadataStore.open([device], { lock: true })
  t.equal(store.catalog.name, 'new')
  t.notSame(store.poolId, old.poolId)
  await store.close()
})

t.test('a device is added in two steps; between them the pool is as before', async (t) => {
  const rig = await PoolRig.create(t)
  const added = join(rig.folder, 'added')
  let store = await rig.open({ lock: true })
  const units = store.geometry.unitCount
  const layout = await prepareDevice(store, { path: added, kind: 'file', sizeBytes: 8 * MiB })
  t.equal(layout.index, 1)
  await store.close()

  rig.paths.unshift(added)
  store = await rig.open({ lock: true })
  t.equal(store.geometry.unitCount, units, 'the log has no add-device')
  store.catalog.devices.push({ sizeBytes: 8 * MiB, path: added })
  store.admitDevice(1)
  t.equal(store.geometry.unitCount, units + layout.unitCount)
  t.equal(store.units.length, store.geometry.unitCount)
  await store.checkpoint(contentOf(store))
  await store.close()

  store = await rig.open()
  t.equal(store.geometry.devices.length, 2)
  t.strictSame(store.damage, [])
  await store.close()
  rig.paths.shift()
  await t.rejects(rig.open(), {
    code: 'DEVICE_MISSING',
    hint: new RegExp(`number 1 is missing. It was added as ${added}`),
  })
})

t.test('a device is added to a pool that is open', async (t) => {
  const rig = await PoolRig.create(t)
  const path = join(rig.folder, 'added')
  const store = await rig.open()
  await prepareDevice(store, { path, kind: 'file', sizeBytes: 8 * MiB })
  t.equal(await store.openDevice(path), 1)
  store.admitDevice(1)
  store.catalog.devices.push({ sizeBytes: 8 * MiB, path })
  await store.checkpoint(contentOf(store, { twice: true }))
  await store.close()
  const again = await MetadataStore.open([path, ...rig.paths], { lock: true })
  t.equal(again.geometry.devices.length, 2)
  await again.close()
  t.equal(tiny.unitBytes, again.geometry.unitBytes)
})
