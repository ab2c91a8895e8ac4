import t from 'tap'
import { MiB, volumeIndex } from '../../src/block/units.js'
import type { NativeRegions, RegionEvent } from '../../src/intercept/addon.js'
import { intercept } from '../../src/intercept/intercept.js'
import { readRegionFile, writeRegionFile } from '../../src/journal/region-file.js'
import { RegionMap } from '../../src/journal/region-map.js'
import { promisingDevice } from '../fixtures/small-disk.js'
import { Rig, run, writeDevice } from './rig.js'

const recordId = Buffer.alloc(16, 5)
const volumeBytes = [16 * MiB, 64 * MiB]

async function openRegions(rig: Rig, onEvent: (event: RegionEvent) => void = () => {}): Promise<NativeRegions> {
  const file = rig.file('regions')
  await writeRegionFile(file, recordId, new RegionMap({ regionBytes: MiB, volumeBytes }))
  return intercept.openRegions({ path: file, recordId, regionBytes: MiB, volumeBytes, limitRegions: 0, onEvent })
}

async function recorded(rig: Rig): Promise<[number, number, number][]> {
  const { map } = (await readRegionFile(rig.file('regions'), recordId, volumeBytes))!
  return [...map.runs()].map((run) => [run.volume, run.offset / MiB, run.lengthBytes / MiB])
}

t.test('writes and trims name their regions, with a journal and without, and not in JavaScript', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const backing = await rig.backing('backing', 64 * MiB)
  const volume = rig.volume(backing)
  const device = await rig.attach(volume)
  const regions = await openRegions(rig)
  const journal = await rig.journal()
  await volume.setJournal(journal, volumeIndex(1), regions)
  await writeDevice(device, 3 * MiB + 512, Buffer.alloc(512, 1), rig.folder)
  t.same(await recorded(rig), [[1, 3, 1]])
  const calls = intercept.javascriptCalls()
  for (let at = 0; at < 10; at++) await writeDevice(device, 3 * MiB + 4096 * at, Buffer.alloc(4096, at), rig.folder)
  t.equal(intercept.javascriptCalls(), calls)
  t.equal(regions.counters().syncs, 1, 'in steady state nothing is synced')
  await run('blkdiscard', '--offset', String(20 * MiB), '--length', String(2 * MiB), device)
  t.same(await recorded(rig), [
    [1, 3, 1],
    [1, 20, 2],
  ])
  journal.abandon()
  await writeDevice(device, 40 * MiB, Buffer.alloc(512, 2), rig.folder)
  await volume.setJournal(null, volumeIndex(1), regions)
  await writeDevice(device, 50 * MiB, Buffer.alloc(512, 3), rig.folder)
  await volume.setJournal(null, volumeIndex(1))
  await writeDevice(device, 60 * MiB, Buffer.alloc(512, 4), rig.folder)
  t.same(await recorded(rig), [
    [1, 3, 1],
    [1, 20, 2],
    [1, 40, 1],
    [1, 50, 1],
  ])
  regions.close()
})

t.test('rotated and dropped, only what was written meanwhile stays', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const volume = rig.volume(await rig.backing('backing', 64 * MiB))
  const device = await rig.attach(volume)
  const regions = await openRegions(rig)
  const journal = await rig.journal()
  await volume.setJournal(journal, volumeIndex(1), regions)
  await writeDevice(device, 3 * MiB, Buffer.alloc(512, 1), rig.folder)
  await regions.rotate(false)
  await writeDevice(device, 5 * MiB, Buffer.alloc(512, 1), rig.folder)
  t.match(regions.counters(), { current: 1, previous: 1, active: 2 })
  t.ok(regions.active().length === (64 + 64) / 8)
  await regions.drop()
  t.same(await recorded(rig), [[1, 5, 1]])
  await regions.rotate(true)
  await regions.drop()
  t.same(await recorded(rig), [[1, 5, 1]], 'it was touched since the last rotation')
  await regions.rotate(true)
  await regions.drop()
  t.same(await recorded(rig), [])
  await volume.setJournal(null, volumeIndex(1))
  regions.close()
})

t.test('a flush is not answered on the word of a journal that is doubted', async (t) => {
  const rig = await Rig.open()
  const { device: raw, remove } = await promisingDevice({ promisedBytes: 64 * MiB, roomBytes: 8 * MiB })
  t.teardown(async () => {
    await rig.close()
    await remove()
  })
  const volume = rig.volume(raw)
  const journal = await rig.journal()
  const device = await rig.attach(volume)
  await volume.setJournal(journal, volumeIndex(0))
  const write = (count: number) =>
    run('dd', 'if=/dev/urandom', `of=${device}`, 'bs=1M', `count=${count}`, 'oflag=direct', 'conv=fsync', 'status=none')
  await write(32)
  journal.doubt(true)
  await t.rejects(write(1), /Input\/output error/, 'the backing cannot hold what it was given')
  journal.doubt(false)
  await write(1)
})

t.test('a record of other volumes or of another stream is refused', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const regions = await openRegions(rig)
  regions.close()
  const options = { path: rig.file('regions'), regionBytes: MiB, limitRegions: 0, onEvent: () => {} }
  t.throws(() => intercept.openRegions({ ...options, recordId: Buffer.alloc(16), volumeBytes }), {
    code: 'REGIONS_DAMAGED',
  })
  t.throws(() => intercept.openRegions({ ...options, recordId, volumeBytes: [16 * MiB] }), { code: 'REGIONS_DAMAGED' })
  t.throws(() => intercept.openRegions({ ...options, path: rig.file('none'), recordId, volumeBytes }), {
    code: 'REGIONS_UNREADABLE',
  })
})
