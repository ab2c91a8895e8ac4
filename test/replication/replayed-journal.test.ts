import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { lsn, MiB, volumeIndex } from '../../src/block/units.js'
import type { Intercept, JournalOptions } from '../../src/intercept/addon.js'
import type { JournalRecord } from '../../src/journal/reader.js'
import { recoverJournal } from '../../src/journal/recovery.js'
import { RecordedVolumes } from '../../src/replication/recorded-volumes.js'
import { replayOnto } from '../../src/replication/replay.js'
import { openReplayed } from '../../src/replication/replayed-journal.js'
import { Backing } from '../../src/volume/backing.js'
import type { HostVolume } from '../../src/volume/host-volume.js'
import { journalId, SegmentWriter, segmentBytes } from '../fixtures/journal/segment-writer.js'
import { MemoryStore } from '../fixtures/memory-store.js'
import { scratchFolder } from '../fixtures/paths.js'

t.test('a journal is written onto its volumes off the main thread, synced, and opened where it ends', async (t) => {
  const directory = scratchFolder(t, 'replayed')
  const paths = ['a', 'b'].map((name) => join(directory, name))
  for (const path of paths) {
    writeFileSync(path, '')
    truncateSync(path, 65536)
  }
  const writer = new SegmentWriter()
  writer.append({ type: 1, volume: 0, offset: 4096, payload: Buffer.alloc(512, 1) })
  writer.append({ type: 1, volume: 1, offset: 0, payload: Buffer.alloc(4096, 2) })
  writer.append({ type: 1, volume: 1, offset: 512, payload: Buffer.alloc(512, 3) })
  writer.append({ type: 3, volume: 1, offset: 1024, length: 512 })
  writer.flush(directory)
  const store = new MemoryStore()
  const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
  const state = { journalId: journalId.toString('hex'), segmentBytes, checkpointLsn: '0', incarnation: 1, bootId }
  await store.put({ 'journal/s': { ...state, clean: false } })
  const opened: JournalOptions[] = []
  const intercept = { openJournal: (options: JournalOptions) => void opened.push(options) } as unknown as Intercept
  const volumes = paths.map(
    (path, at) => ({ name: `v${at}`, path, sizeBytes: 65536, hold: async () => {} }) as unknown as HostVolume,
  )
  const definition = volumes.map(({ name }, index) => ({ index, name, sizeBytes: 65536 }))
  const turns = setInterval(() => (turned += 1), 1)
  t.teardown(() => clearInterval(turns))
  let turned = 0
  const recorded = new RecordedVolumes(definition, (name) => volumes.find((volume) => volume.name === name)!)
  await recorded.hold()
  const { report } = await openReplayed(
    { stream: 's', directory, state: store, intercept, segmentBytes, limitBytes: segmentBytes * 4, onEvent: () => {} },
    recorded,
  )
  t.match(report, { records: 4, voids: 0, afterPowerCut: false })
  t.ok(turned > 0, 'the main thread went on')
  const [a, b] = paths.map((path) => readFileSync(path))
  t.same([a![4095], a![4096], a![4607], a![4608]], [0, 1, 1, 0])
  t.same([b![511], b![512], b![1023], b![1024], b![1536]], [2, 3, 3, 0, 2])
  t.equal(opened[0]?.startLsn, BigInt(writer.end))
  t.match(store.get('journal/s'), { checkpointLsn: String(writer.end), incarnation: 2 })
})

t.test('a volume that cannot be written keeps the journal as it was', async (t) => {
  const directory = scratchFolder(t, 'replayed')
  const writer = new SegmentWriter()
  writer.append({ type: 1, volume: 0, offset: 0, payload: Buffer.alloc(512, 1) })
  writer.flush(directory)
  const store = new MemoryStore()
  const state = { journalId: journalId.toString('hex'), segmentBytes, checkpointLsn: '0', incarnation: 1, bootId: 'x' }
  await store.put({ 'journal/s': { ...state, clean: false } })
  const volume = { path: join(directory, 'missing'), sizeBytes: 512, hold: async () => {} } as unknown as HostVolume
  const recorded = new RecordedVolumes([{ index: 0, name: 'v', sizeBytes: 512 }], () => volume)
  await recorded.hold()
  const opening = openReplayed(
    {
      stream: 's',
      directory,
      state: store,
      intercept: { openJournal: () => t.fail('not to be opened') } as unknown as Intercept,
      segmentBytes,
      limitBytes: segmentBytes * 4,
      onEvent: () => {},
    },
    recorded,
  )
  await t.rejects(opening, { code: 'BACKING_UNAVAILABLE', retry: 'later' })
  t.match(store.get('journal/s'), { checkpointLsn: '0', incarnation: 1 })
})

t.test(
  'a write that no host can have made is damage, though its checksums are right, and nothing beyond is written',
  async (t) => {
    const crafted = {
      'beyond the end': { type: 1, volume: 0, offset: 65536, payload: Buffer.alloc(512, 9) },
      'across the end': { type: 1, volume: 0, offset: 65024, payload: Buffer.alloc(1024, 9) },
      'far beyond': { type: 1, volume: 0, offset: 2 ** 52, payload: Buffer.alloc(512, 9) },
      'a trim of everything': { type: 3, volume: 0, offset: 512, length: 2 ** 52 },
      'zeros beyond': { type: 2, volume: 0, offset: 65536, length: 512 },
      'another volume': { type: 1, volume: 7, offset: 0, payload: Buffer.alloc(512, 9) },
    }
    for (const [title, record] of Object.entries(crafted)) {
      const directory = scratchFolder(t, 'crafted')
      const path = join(directory, 'volume')
      writeFileSync(path, Buffer.alloc(65536, 1))
      const writer = new SegmentWriter()
      writer.append({ type: 1, volume: 0, offset: 0, payload: Buffer.alloc(512, 2) })
      writer.append(record)
      writer.flush(directory)
      const replay = replayOnto([{ index: 0, path, sizeBytes: 65536 }], (file) => new Backing(file, 'write'))
      const place = { directory, journalId, segmentBytes, checkpointLsn: lsn(0n), incarnation: 2, afterPowerCut: false }
      t.throws(() => recoverJournal({ ...place, apply: replay.apply }), { code: 'JOURNAL_DAMAGED' }, title)
      replay.flush()
      replay.close()
      const after = readFileSync(path)
      t.equal(after.length, 65536, title)
      t.ok(
        after.subarray(512).every((byte) => byte === 1),
        title,
      )
    }
  },
)

t.test('a write to a volume that is seldom written does not wait for the end of the journal', (t) => {
  const written: string[] = []
  const backing = (path: string): Backing =>
    ({
      path,
      writeMany: (payloads: Uint8Array[]) => void written.push(`${path} ${payloads.length}`),
    }) as unknown as Backing
  const volumes = ['seldom', 'often'].map((path, index) => ({ index, path, sizeBytes: MiB }))
  const replay = replayOnto(volumes, backing)
  const payload = Buffer.alloc(65_536)
  const stamp = { type: 'write', offset: 0, lengthBytes: payload.length, payload, timeNs: 0n } as const
  const apply = (volume: number, at: number): void =>
    replay.apply({ ...stamp, volume: volumeIndex(volume), lsn: lsn(BigInt(at)) } as JournalRecord)
  apply(0, 4096)
  for (let at = 1; at <= 15; at++) apply(1, at * MiB)
  t.same(written, [], 'one place, written again and again')
  apply(1, 17 * MiB)
  t.same(written, ['seldom 1', 'often 1'])
  t.end()
})
