import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { GiB, KiB, MiB } from '../../src/block/units.js'
import { run, ThinRig } from './thin-rig.js'

const blockBytes = 64 * KiB
const rig = await ThinRig.create(t, 'thin-trim', { devices: [{ sizeBytes: GiB }], blockBytes, unitBytes: MiB })
const facts = () => rig.child.pool('facts')

/** What the pool has mapped; background work may still free some. */
async function settledFacts(): Promise<{ mappedBytes: number; allocatedBytes: number }> {
  for (let last = await facts(); ; ) {
    await new Promise((resolve) => setTimeout(resolve, 200))
    const now = await facts()
    if (now.background === null && now.mappedBytes === last.mappedBytes) return now
    last = now
  }
}

/** In pieces of at most 512 KiB: a larger request is split by the loop driver wherever its 128 segments end. */
function dd(...parameters: string[]): Promise<string> {
  return run('dd', 'oflag=direct', 'conv=notrunc', 'status=none', ...parameters)
}

t.test('fstrim after deleting files gives their space back to the pool', async (t) => {
  const device = await rig.attach('files', 2 * GiB)
  await run('mkfs.ext4', '-q', device)
  await rig.mounted([device], 'files', async (directory) => {
    const before = await settledFacts()
    for (let file = 0; file < 4; file++) {
      await run('dd', 'if=/dev/urandom', `of=${directory}/${file}`, 'bs=1M', 'count=32', 'conv=fsync', 'status=none')
    }
    const filled = await settledFacts()
    const written = filled.mappedBytes - before.mappedBytes
    t.ok(written >= 128 * MiB, `${written} bytes were mapped`)
    for (let file = 0; file < 4; file++) await rm(join(directory, String(file)))
    await run('sync', '-f', directory)
    await run('fstrim', directory)
    const after = await settledFacts()
    t.ok(after.mappedBytes - before.mappedBytes < written * 0.05, `${after.mappedBytes - before.mappedBytes} are left`)
    t.ok(filled.allocatedBytes - after.allocatedBytes > 110 * MiB, 'units are free again')
    await writeFile(join(directory, 'last'), 'it goes on\n')
  })
  await rig.detach('files')
  await rig.child.pool('removeVolume', 'files')
  t.equal((await settledFacts()).allocatedBytes, 0, 'a removed volume leaves nothing')
})

t.test('whole blocks of zeros free their space and allocate none', async (t) => {
  const device = await rig.attach('zeros', 64 * MiB)
  await dd('if=/dev/zero', `of=${device}`, 'bs=512k', 'count=16')
  t.equal((await facts()).mappedBytes, 0, 'zeros on an empty volume')
  await dd('if=/dev/urandom', `of=${device}`, 'bs=512k', 'count=16')
  t.equal((await facts()).mappedBytes, 8 * MiB)
  await dd('if=/dev/zero', `of=${device}`, 'bs=512k', 'count=8')
  t.equal((await facts()).mappedBytes, 4 * MiB)
  await dd('if=/dev/zero', `of=${device}`, 'bs=64k', 'count=3', 'seek=64')
  t.equal((await facts()).mappedBytes, 4 * MiB - 3 * blockBytes)
  await run('blkdiscard', '--zeroout', '--offset', String(6 * MiB), '--length', String(MiB), device)
  t.equal((await facts()).mappedBytes, 3 * MiB - 3 * blockBytes)
  await run('blkdiscard', device)
  t.equal((await facts()).mappedBytes, 0)
  await rig.detach('zeros')
})

t.test('a partial write after a snapshot copies one block, a whole one none', async (t) => {
  const device = await rig.attach('copies', 64 * MiB)
  await dd('if=/dev/urandom', `of=${device}`, 'bs=512k', 'count=4')
  await rig.child.pool('createSnapshot', 'copies', 'before')
  const copied = async () => (await rig.counters('copies')).copiedBytes!
  const mapped = async () => (await facts()).mappedBytes
  const [copiedFirst, mappedFirst] = [await copied(), await mapped()]
  const seen = async () => [(await copied()) - copiedFirst, (await mapped()) - mappedFirst]

  await dd('if=/dev/urandom', `of=${device}`, 'bs=4k', 'count=1', 'seek=3')
  t.strictSame(await seen(), [blockBytes, blockBytes], 'the first partial write of a block')
  await dd('if=/dev/urandom', `of=${device}`, 'bs=4k', 'count=1', 'seek=7')
  t.strictSame(await seen(), [blockBytes, blockBytes], 'the second one of the same block')
  await dd('if=/dev/urandom', `of=${device}`, 'bs=64k', 'count=4', 'seek=4')
  t.strictSame(await seen(), [blockBytes, 5 * blockBytes], 'whole blocks')
  await run('blkdiscard', '--offset', String(MiB), '--length', String(blockBytes), device)
  t.strictSame(await seen(), [blockBytes, 5 * blockBytes], 'a trim of what the snapshot keeps')
  await dd('if=/dev/urandom', `of=${device}`, 'bs=4k', 'count=1', 'seek=320')
  const [copiedBytes, mappedBytes] = await seen()
  t.equal(mappedBytes, 6 * blockBytes, 'a block that nobody had')
  t.ok(copiedBytes! <= 2 * blockBytes, 'is filled with zeros at the most')
  await rig.detach('copies')
})

t.test('what a shrink cut off in the middle of a block does not come back', async (t) => {
  const device = await rig.attach('cut', 4 * MiB)
  await dd('if=/dev/urandom', `of=${device}`, 'bs=512k', 'count=8')
  await rig.detach('cut')
  await rig.child.pool('createSnapshot', 'cut', 'before')
  const kept = 3 * blockBytes + 512
  await rig.child.pool('resizeVolume', 'cut', kept)
  await rig.child.pool('resizeVolume', 'cut', 4 * MiB)
  const again = await rig.attach('cut')
  t.equal(await run('cmp', '--bytes', String(4 * MiB - kept), '--ignore-initial', `${kept}:0`, again, '/dev/zero'), '')
  await rig.detach('cut')
})
