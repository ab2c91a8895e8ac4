/** What a volume costs that is far larger than its data: time, memory and space. */
import { closeSync, openSync, readSync } from 'node:fs'
import t from 'tap'
import { GiB, KiB, MiB } from '../../src/block/units.js'
import { fio } from '../fixtures/fio.js'
import { run, ThinRig } from './thin-rig.js'

const TiB = 1024 * GiB
const pieceBytes = 64 * KiB
/** Machines differ: beyond these it is not the machine. */
const slack = 3

async function residentBytes(rig: ThinRig): Promise<number> {
  return (await rig.child.own('process')).residentBytes
}

t.test('a 16 TiB volume with 1 GiB of data, all over it, is attached in 200 ms and 64 MiB', async (t) => {
  const rig = await ThinRig.create(t, 'thin-memory', { devices: [{ sizeBytes: 4 * GiB }] })
  const device = await rig.attach('huge', 16 * TiB)
  const count = GiB / pieceBytes
  const skip = (16 * TiB) / count - pieceBytes
  const written = await fio(device, { rw: `write:${skip}`, bs: pieceBytes, size: 16 * TiB, number_ios: count })
  t.equal(written.errors, 0, written.errors ? written.output : 'no errors')
  t.equal((await rig.child.pool('facts')).mappedBytes, GiB)
  await rig.detach('huge')
  await rig.reopen()
  const before = await residentBytes(rig)
  const { milliseconds, device: again } = await rig.timedAttach('huge')
  const bytes = Buffer.alloc(4096)
  const file = openSync(again, 'r')
  t.equal(readSync(file, bytes, 0, bytes.length, 8 * TiB), bytes.length)
  closeSync(file)
  const more = (await residentBytes(rig)) - before
  t.comment(`attached in ${milliseconds.toFixed(0)} ms, ${(more / MiB).toFixed(1)} MiB beyond the base`)
  t.ok(milliseconds < 200 * slack, `${milliseconds} ms`)
  t.ok(more < 64 * MiB, `${more} bytes`)
  await rig.detach('huge')
})

t.test('a fresh 1 TiB volume is discarded in a second and allocates nothing', async (t) => {
  const rig = await ThinRig.create(t, 'thin-discard', { devices: [{ sizeBytes: 2 * GiB }] })
  const device = await rig.attach('fresh', TiB)
  const begin = Date.now()
  await run('blkdiscard', device)
  const milliseconds = Date.now() - begin
  t.comment(`discarded in ${milliseconds} ms`)
  t.ok(milliseconds < 1000 * slack, `${milliseconds} ms`)
  t.match(await rig.child.pool('facts'), { allocatedBytes: 0, mappedBytes: 0 })
  const made = Date.now()
  await run('mkfs.ext4', '-q', device)
  const { mappedBytes } = await rig.child.pool('facts')
  t.comment(`mkfs.ext4 in ${Date.now() - made} ms, ${(mappedBytes / MiB).toFixed(1)} MiB mapped`)
  t.ok(mappedBytes < GiB, `${mappedBytes} bytes are mapped`)
  await run('e2fsck', '-fn', device)
  await rig.detach('fresh')
})

t.test('the memory of a mapped block is what the design says', async (t) => {
  const blockBytes = 4 * KiB
  const rig = await ThinRig.create(t, 'thin-mapped', { devices: [{ sizeBytes: 2 * GiB }], blockBytes, unitBytes: MiB })
  const mappedBytes = GiB
  const device = await rig.attach('mapped', mappedBytes)
  const written = await fio(device, { rw: 'write', bs: '1m', size: mappedBytes, iodepth: 4 })
  t.equal(written.errors, 0, written.errors ? written.output : 'no errors')
  const blocks = mappedBytes / blockBytes
  t.equal((await rig.child.pool('facts')).mappedBytes, mappedBytes)
  await rig.detach('mapped')
  await rig.child.pool('createVolume', 'small', mappedBytes)
  await rig.reopen()
  /** A read in each leaf of the table. */
  const touch = async (volume: string) => {
    const { device } = await rig.timedAttach(volume)
    const read = await fio(device, { rw: 'read:16773120', bs: '4k', size: mappedBytes, iodepth: 1 })
    t.equal(read.errors, 0)
  }
  // What any attached volume costs, and code that runs for the first time, is not a block's.
  await touch('small')
  const before = await residentBytes(rig)
  await touch('mapped')
  const perBlock = ((await residentBytes(rig)) - before) / blocks
  const perTebibyte = (perBlock * (TiB / (64 * KiB))) / MiB
  t.comment(`${perBlock.toFixed(1)} bytes a block: ${perTebibyte.toFixed(0)} MiB a mapped TiB of 64 KiB blocks`)
  t.ok(perBlock < 100, `${perBlock} bytes a block`)
  await rig.detach('mapped')
  await rig.detach('small')
})
