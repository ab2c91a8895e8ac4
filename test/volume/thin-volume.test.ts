import { execFile } from 'node:child_process'
import { closeSync, existsSync, openSync, readdirSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { KiB, MiB } from '../../src/block/units.js'
import { intercept } from '../../src/intercept/intercept.js'
import { createPool } from '../../src/pool/create-pool.js'
import { Pool } from '../../src/pool/pool.js'
import { ImageCopies } from '../../src/volume/image-copies.js'
import { ThinVolumes } from '../../src/volume/thin-volumes.js'
import { releaseFolder } from '../fixtures/leftovers.js'
import { scratchFolder } from '../fixtures/paths.js'

const run = promisify(execFile)
const unitBytes = 1 * MiB
const blockBytes = 64 * KiB
let count = 0

/** A pool on a file, open in this process. What its volumes serve is touched by other processes alone. */
async function openPool(t: Test) {
  const folder = scratchFolder(t, 'thin-volume')
  const device = join(folder, 'pool')
  const name = `pool-${process.pid}-${++count}`
  await createPool({ name, devices: [{ path: device, kind: 'file', sizeBytes: 96 * MiB }], unitBytes, blockBytes })
  const events: { code: string }[] = []
  const pool = await Pool.open([device], { report: (event) => events.push(event) })
  const runDirectory = join(folder, 'run')
  const volumes = new ThinVolumes({
    intercept,
    runDirectory,
    threads: 2,
    onLost: ({ name }) => t.fail(`${name} is lost`),
  })
  t.teardown(async () => {
    for (const volume of volumes.known()) await volume.detach()
    releaseFolder(folder)
    await pool.close().catch((error) => t.fail(error))
  })
  return { folder, runDirectory, pool, volumes, events, prefix: `t${process.pid}-${count}` }
}

/** Write random bytes of some blocks; returns nothing, a child does it. */
const fill = (path: string, block: number, blocks: number) =>
  run('dd', [
    'if=/dev/urandom',
    `of=${path}`,
    'bs=64k',
    `seek=${block}`,
    `count=${blocks}`,
    'conv=notrunc,fsync',
    'iflag=fullblock',
  ])

t.test('a thin volume is a file for workers while held, a device while attached, and neither afterwards', async (t) => {
  const { pool, volumes, runDirectory, prefix } = await openPool(t)
  const name = `${prefix}-v`
  await pool.createVolume(name, 64 * MiB)
  const volume = volumes.get(pool, name)
  t.equal(volume.sizeBytes, 64 * MiB)
  await volume.hold()
  await fill(volume.path, 3, 2)
  t.equal(volume.nextData(0), 3 * blockBytes)
  t.equal(volume.nextData(5 * blockBytes), undefined)
  t.equal(pool.facts().allocatedBytes, unitBytes)
  const device = await volume.attach()
  t.equal((await run('blockdev', ['--getsize64', device])).stdout.trim(), String(64 * MiB))
  await run('cmp', [device, volume.path])
  await volume.release()
  t.notOk(existsSync(volume.path), 'the file is gone, the device stays')
  t.equal((await run('blockdev', ['--getsize64', device])).stdout.trim(), String(64 * MiB))
  await volume.detach()
  t.notOk(existsSync(join(runDirectory, name)))
  t.equal(await volume.attach({ readOnly: true }).then(() => volume.attachedReadOnly), true)
  await t.rejects(fill(volume.device!, 0, 1), 'a read-only device')
  await volume.detach()
  t.same(readdirSync(runDirectory, { recursive: true }), ['.served'], 'an empty folder for served files')
})

t.test('what arrives is written through its file, and its device refuses writes', async (t) => {
  const { pool, volumes, prefix } = await openPool(t)
  const name = `${prefix}-in`
  await pool.createVolume(name, 16 * MiB, 'inbound')
  const volume = volumes.get(pool, name)
  t.ok(volume.readOnly)
  await volume.hold()
  const device = await volume.attach()
  await fill(volume.path, 1, 1)
  await t.rejects(fill(device, 0, 1), /./)
  await run('blockdev', ['--flushbufs', device])
  await run('cmp', [device, volume.path])
  await volume.detach()
  await volume.release()
})

t.test('a snapshot is opened beside its volume, and an incomplete image is attached by nobody', async (t) => {
  const { pool, volumes, prefix } = await openPool(t)
  const name = `${prefix}-v`
  await pool.createVolume(name, 16 * MiB)
  const volume = volumes.get(pool, name)
  await volume.hold()
  await fill(volume.path, 0, 4)
  await pool.createSnapshot(name, 'one')
  const snapshot = volumes.get(pool, name, 'one')
  t.equal(volumes.get(pool, name, 'one'), snapshot, 'one object')
  const device = await snapshot.attach({ readOnly: true })
  t.equal(snapshot.link, `/dev/tidemark/${name}@one`)
  await run('cmp', [device, volume.path])
  await fill(volume.path, 1, 1)
  await t.rejects(run('cmp', [device, volume.path]))
  await t.rejects(fill(device, 0, 1))
  await snapshot.detach()
  await volume.release()
  await pool.setImage(name, { volume: 'x', base: 'y', own: null, complete: false })
  await t.rejects(volume.attach(), { code: 'IMAGE_INCOMPLETE', retry: 'later' })
})

t.test('a snapshot that its host writes is as it was taken to whoever copies it meanwhile', async (t) => {
  const { pool, volumes, runDirectory, prefix } = await openPool(t)
  const name = `${prefix}-v`
  await pool.createVolume(name, 16 * MiB)
  const volume = volumes.get(pool, name)
  await volume.hold()
  await fill(volume.path, 0, 4)
  await pool.createSnapshot(name, 'one')
  const snapshot = volumes.get(pool, name, 'one')
  const device = await snapshot.attach()
  t.match(snapshot, { device, link: `/dev/tidemark/${name}@one`, attachedReadOnly: false })
  await fill(device, 1, 2)
  await t.rejects(snapshot.attach({ readOnly: true }), { code: 'ATTACHED_OTHERWISE', hint: /attached read-write/ })
  t.equal(await snapshot.attach({ readOnly: false }), device)
  await snapshot.hold()
  await run('cmp', [snapshot.path, volume.path])
  await t.rejects(run('cmp', [snapshot.path, device]))
  t.ok(snapshot.counters().writes > 0, 'counters are the device’s')
  // The hold opened beside the device, and left that alone.
  await fill(device, 3, 1)
  await snapshot.detach()
  t.equal(snapshot.device, null)
  await run('cmp', [snapshot.path, volume.path])
  await snapshot.attach({ readOnly: true })
  t.ok(snapshot.attachedReadOnly)
  await run('cmp', [snapshot.device!, volume.path])
  t.equal(await snapshot.attach(), snapshot.device, 'as it is attached, when nobody says how')
  await t.rejects(snapshot.attach({ readOnly: false }), { code: 'ATTACHED_OTHERWISE', hint: /attached read-only/ })
  await snapshot.detach()
  await snapshot.release()
  await volume.release()
  t.equal(pool.volume(name).snapshots[0]!.writtenBytes, unitBytes)
  t.same(readdirSync(runDirectory, { recursive: true }), ['.served'], 'nothing is left')
})

t.test('the first write to a block of a snapshot copies that block, and a whole block nothing', async (t) => {
  const { pool, volumes, prefix } = await openPool(t)
  const name = `${prefix}-v`
  await pool.createVolume(name, 16 * MiB)
  const volume = volumes.get(pool, name)
  await volume.hold()
  await fill(volume.path, 0, 16)
  await pool.createSnapshot(name, 'one')
  const snapshot = volumes.get(pool, name, 'one')
  const device = await snapshot.attach()
  const write = (block: number, bytes: number) =>
    run('dd', [
      'if=/dev/urandom',
      `of=${device}`,
      `bs=${bytes}`,
      `seek=${(block * blockBytes) / bytes}`,
      'count=1',
      'oflag=direct',
    ])
  await write(2, 64 * KiB)
  t.equal(snapshot.counters().copiedBytes, 0)
  await write(4, 4 * KiB)
  t.equal(snapshot.counters().copiedBytes, blockBytes)
  await write(4, 4 * KiB)
  t.equal(snapshot.counters().copiedBytes, blockBytes, 'once')
  await snapshot.detach()
  await volume.release()
})

t.test('a complete image of a thin volume weighs its data, and follows it by what changed', async (t) => {
  const { pool, volumes, folder, prefix } = await openPool(t)
  const name = `${prefix}-v`
  const image = `${prefix}-i`
  await pool.createVolume(name, 64 * MiB)
  const source = volumes.get(pool, name)
  const copy = volumes.get(pool, image)
  await source.hold()
  await fill(source.path, 0, 100)
  await fill(source.path, 500, 60)
  const copies = new ImageCopies({
    volumes,
    atBoundary: (_volume, action) => action(),
    holdEpoch: async () => async () => {},
    isRecorded: () => false,
    report: () => {},
  })
  t.teardown(() => copies.stop())
  await copies.create(pool, image, name, null)
  await copies.wait(image)
  await copy.hold()
  await run('cmp', [source.path, copy.path])
  t.equal(pool.facts().mappedBytes, 2 * 160 * blockBytes)
  await copy.release()
  await fill(source.path, 90, 20)
  await run('fallocate', [
    '--punch-hole',
    '--offset',
    `${510 * blockBytes}`,
    '--length',
    `${20 * blockBytes}`,
    source.path,
  ])
  await run('truncate', ['-s', '0', join(folder, 'none')])
  await copy.hold()
  await fill(copy.path, 700, 3)
  await copy.release()
  const before = copies.progress(image)
  t.equal(before, null)
  await copies.refresh(pool, image, null)
  await copies.wait(image)
  await copy.hold()
  await run('cmp', [source.path, copy.path])
  const counters = copy.counters()
  await copy.release()
  await source.release()
  t.ok(counters.writes < 10, `${counters.writes} writes`)
  await pool.settled()
  const extents = await pool.mapped(image, null)
  t.equal(
    extents.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0),
    (160 + 10 - 20) * blockBytes,
  )
  await pool.audit()
})

t.test('the same bytes as a plain file, whatever is written and punched through the served file', async (t) => {
  const { pool, volumes, folder, prefix } = await openPool(t)
  const name = `${prefix}-v`
  await pool.createVolume(name, 8 * MiB)
  const volume = volumes.get(pool, name)
  await volume.hold()
  const plain = join(folder, 'plain')
  await run('truncate', ['-s', '8M', plain])
  const content = join(folder, 'content')
  await run('dd', ['if=/dev/urandom', `of=${content}`, 'bs=1M', 'count=4'])
  for (let round = 0; round < 40; round++) {
    const offset = Math.floor(Math.random() * 16 * 1024)
    const sectors = 1 + Math.floor(Math.random() * 300)
    for (const path of [plain, volume.path]) {
      const range = ['--offset', String(offset * 512 - ((offset * 512) % 4096)), '--length', String(sectors * 4096)]
      if (round % 3 === 2 && offset + sectors * 8 < 16 * 1024) await run('fallocate', ['--punch-hole', ...range, path])
      else if (offset + sectors < 16 * 1024) {
        await run('dd', [
          `if=${content}`,
          `of=${path}`,
          'bs=512',
          `seek=${offset}`,
          `skip=${round}`,
          `count=${sectors}`,
          'conv=notrunc',
        ])
      }
    }
  }
  const { stdout } = await run('cmp', [plain, volume.path])
  t.equal(stdout, '')
  await volume.release()
  const fd = openSync(plain, 'r+')
  writeSync(fd, 'x', 0)
  closeSync(fd)
  t.equal(readFileSync(plain).length, 8 * MiB)
})
