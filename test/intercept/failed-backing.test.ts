import { open } from 'node:fs/promises'
import path from 'node:path'
import t from 'tap'
import { lsn, MiB, volumeIndex } from '../../src/block/units.js'
import { readRecords } from '../../src/journal/reader.js'
import { mountSmallDisk } from '../fixtures/small-disk.js'
import { Rig, readAt, writeDevice } from './rig.js'

t.test('a write that the backing fails leaves journal and backing the same', async (t) => {
  const disk = await mountSmallDisk(2 * MiB)
  t.teardown(() => disk.unmount())
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const file = path.join(disk.directory, 'sparse')
  const made = await open(file, 'w')
  await made.truncate(8 * MiB)
  await made.close()
  const journal = await rig.journal()
  const volume = rig.volume(file)
  await volume.setJournal(journal, volumeIndex(0))
  const device = await rig.attach(volume)
  let refused = 0
  for (let at = 0; at < 4; at++) {
    await writeDevice(device, at * MiB, Buffer.alloc(MiB, at + 1), rig.folder).catch(() => refused++)
  }
  t.ok(refused > 0, 'the disk is full, and the host was told')
  t.equal(volume.counters().errors > 0, true)
  const to = await journal.sync()
  t.equal(journal.counters().appliedLsn, to)
  const replayed = Buffer.alloc(8 * MiB)
  const place = {
    directory: rig.file('journal-0'),
    journalId: Buffer.alloc(16, 7),
    segmentBytes: 8 * MiB,
    from: lsn(0n),
  }
  for (const record of readRecords({ ...place, to })) {
    if (record.type === 'write') record.payload.copy(replayed, record.offset)
    else if (record.type !== 'marker') replayed.fill(0, record.offset, record.offset + record.lengthBytes)
  }
  t.ok(replayed.equals(await readAt(file, 0, 8 * MiB)), 'what the journal says is what the backing holds')
})
