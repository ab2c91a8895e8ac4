import t from 'tap'
import { MiB, volumeIndex } from '../../src/block/units.js'
import { promisingDevice } from '../fixtures/small-disk.js'
import { Rig, run } from './rig.js'

t.test('after one sync of the backing failed every flush fails, although the kernel would say yes', async (t) => {
  const rig = await Rig.open()
  const { device: raw, remove } = await promisingDevice({ promisedBytes: 64 * MiB, roomBytes: 8 * MiB })
  t.teardown(async () => {
    await rig.close()
    await remove()
  })
  const volume = rig.volume(raw, { syncBacking: true })
  const journal = await rig.journal()
  const device = await rig.attach(volume)
  const write = (mebibytes: number, sync: string) =>
    run('dd', 'if=/dev/urandom', `of=${device}`, 'bs=1M', `count=${mebibytes}`, 'oflag=direct', sync, 'status=none')

  await write(1, 'conv=fsync')
  await volume.setJournal(journal, volumeIndex(0))
  await write(2, 'conv=fsync')
  await t.rejects(write(32, 'conv=fsync'), /Input\/output error/)
  await t.rejects(write(1, 'conv=fsync'), /Input\/output error/, 'also when the journal is durable')
  await t.rejects(volume.syncBacking(), { code: 'IO_FAILED' })
  await volume.setJournal(null, volumeIndex(0))
  await t.rejects(write(1, 'conv=fsync'), /Input\/output error/)
  await t.rejects(volume.syncBacking(), { code: 'IO_FAILED' })
})
