import { randomBytes } from 'node:crypto'
import t from 'tap'
import { KiB, MiB } from '../../src/block/units.js'
import { checkPool } from '../../src/pool/check.js'
import { FakeRig } from './fake-rig.js'

const blockBytes = 4 * KiB

/** A volume `a` with 64 KiB of data, a snapshot `s` of it, and other data since. */
async function pool(test: { teardown(done: () => Promise<void>): void }) {
  const rig = await FakeRig.create()
  test.teardown(() => rig.close())
  await rig.pool.createVolume('a', MiB)
  const { fake, close } = await rig.openVolume('a')
  const taken = Buffer.concat([randomBytes(64 * KiB), Buffer.alloc(MiB - 64 * KiB)])
  await fake.write(0, taken.subarray(0, 64 * KiB))
  await rig.pool.createSnapshot('a', 's')
  await fake.write(4 * KiB, Buffer.alloc(8 * KiB, 9))
  await close()
  const read = async (name: string, snapshot: string | null = null, readOnly = snapshot !== null): Promise<Buffer> => {
    const opened = await rig.openVolume(name, snapshot, readOnly)
    const bytes = await opened.fake.read(0, MiB)
    await opened.close()
    return bytes
  }
  const written = () => rig.pool.volume('a').snapshots[0]!.writtenBytes
  return { rig, taken, read, written }
}

t.test('what is written to a snapshot is shown to its host alone: everybody else sees what was taken', async (t) => {
  const { rig, taken, read, written } = await pool(t)
  const head = await read('a')
  t.equal(written(), null)
  const { virtualBytes, mappedBytes } = rig.pool.facts()
  const { fake, close } = await rig.openVolume('a', 's', false)
  t.equal(written(), null, 'nothing was written yet')
  const expected = Buffer.from(taken)
  expected.fill(1, 5 * KiB, 6 * KiB)
  await fake.write(5 * KiB, Buffer.alloc(KiB, 1))
  expected.fill(2, 200 * KiB, 204 * KiB)
  await fake.write(200 * KiB, Buffer.alloc(4 * KiB, 2))
  expected.fill(0, 32 * KiB, 48 * KiB)
  await fake.trim(32 * KiB, 16 * KiB)
  t.ok((await fake.read(0, MiB)).equals(expected))
  t.ok((await read('a', 's')).equals(taken), 'read-only beside it')
  t.ok((await read('a')).equals(head), 'the volume')
  t.equal(rig.pool.facts().mappedBytes - mappedBytes, 2 * blockBytes, 'a block for each write, none for the trim')
  t.equal(written(), rig.pool.facts().unitBytes)
  t.equal(rig.pool.facts().virtualBytes, virtualBytes)
  t.strictSame(
    rig.pool.volumes().map(({ name }) => name),
    ['a'],
    'it is no volume',
  )
  t.throws(() => rig.pool.volume('a@s'), { code: 'NO_SUCH_VOLUME' })
  await t.rejects(rig.openVolume('a@s'), { code: 'NO_SUCH_VOLUME' })
  t.strictSame(await rig.pool.diff('a', 's', null), [{ offset: 4 * KiB, lengthBytes: 8 * KiB }])
  t.strictSame(await rig.pool.mapped('a', 's'), [{ offset: 0, lengthBytes: 64 * KiB }])
  await rig.pool.createClone('c', 'a', 's')
  t.ok((await read('c')).equals(taken), 'a clone')
  await rig.pool.rollback('a', 's')
  t.ok((await read('a')).equals(taken), 'a rollback')
  t.ok((await fake.read(0, MiB)).equals(expected))
  await close()
  await rig.pool.settled()
  await rig.pool.audit()
})

t.test('what was flushed to a snapshot outlives a close, kill -9 and a power cut', async (t) => {
  const { rig, taken, read } = await pool(t)
  const expected = Buffer.from(taken)
  for (const [round, end] of (['close', 'kill', 'power', 'reopen'] as const).entries()) {
    const { fake, close } = await rig.openVolume('a', 's', false)
    t.ok((await fake.read(0, MiB)).equals(expected), `before the ${end}`)
    const data = randomBytes(6 * KiB)
    data.copy(expected, round * 100 * KiB + KiB)
    await fake.write(round * 100 * KiB + KiB, data)
    if (end === 'power') await fake.flush()
    if (end === 'kill') rig.kill()
    else if (end === 'power') rig.cutPower('everything')
    else await close()
    if (end === 'reopen') await rig.pool.close()
    if (end !== 'close') await rig.open()
    t.ok((await read('a', 's', false)).equals(expected), `after the ${end}`)
    t.ok((await read('a', 's')).equals(taken))
  }
  await rig.pool.audit()
  await rig.pool.close()
  t.match(await checkPool(rig.paths), { clean: true, findings: [], volumes: 1, snapshots: 1 })
})

t.test('a discard gives what was taken and the space back, and is refused while a host writes', async (t) => {
  const { rig, taken, read, written } = await pool(t)
  const before = rig.pool.facts()
  await rig.pool.discardWrites('a', 's')
  const { fake, close } = await rig.openVolume('a', 's', false)
  await fake.write(0, Buffer.alloc(300 * KiB, 3))
  await t.rejects(rig.pool.discardWrites('a', 's'), { code: 'VOLUME_OPEN', hint: 'Detach a@s first.' })
  await t.rejects(rig.pool.removeSnapshot('a', 's'), { code: 'VOLUME_OPEN', hint: 'Detach a@s first.' })
  await t.rejects(rig.openVolume('a', 's', false), { code: 'VOLUME_OPEN' })
  await close()
  t.equal(written(), 10 * 32 * KiB)
  t.equal(rig.pool.volume('a').allocatedBytes, before.allocatedBytes + 10 * 32 * KiB)
  await rig.pool.discardWrites('a', 's')
  t.equal(written(), null)
  await rig.pool.settled()
  t.equal(rig.pool.facts().allocatedBytes, before.allocatedBytes)
  t.ok((await read('a', 's', false)).equals(taken))
  await t.rejects(rig.pool.discardWrites('a', 'x'), { code: 'NO_SUCH_SNAPSHOT' })
  await rig.pool.audit()
})

t.test('what was written to a snapshot goes with it, and leaves nothing', async (t) => {
  const { rig } = await pool(t)
  const { fake, close } = await rig.openVolume('a', 's', false)
  await fake.write(0, Buffer.alloc(300 * KiB, 3))
  await close()
  await rig.pool.removeSnapshot('a', 's')
  await rig.pool.createSnapshot('a', 's')
  t.equal(rig.pool.volume('a').snapshots[0]!.writtenBytes, null, 'another snapshot of the same name')
  await rig.pool.removeSnapshot('a', 's')
  await rig.pool.removeVolume('a')
  await rig.pool.settled()
  t.match(rig.pool.facts(), { allocatedBytes: 0, mappedBytes: 0 })
  await rig.pool.audit()
  await rig.pool.close()
  t.match(await checkPool(rig.paths), { clean: true, volumes: 0 })
})

t.test('what was written stays with its snapshot when the volume is renamed or replaced', async (t) => {
  const { rig, taken, read } = await pool(t)
  const expected = Buffer.from(taken)
  expected.fill(4, 0, 4 * KiB)
  const { fake, close } = await rig.openVolume('a', 's', false)
  await fake.write(0, Buffer.alloc(4 * KiB, 4))
  await rig.pool.renameVolume('a', 'b')
  await fake.write(8 * KiB, Buffer.alloc(4 * KiB, 5))
  expected.fill(5, 8 * KiB, 12 * KiB)
  await close()
  t.ok((await read('b', 's', false)).equals(expected))
  await rig.pool.createVolume('n', MiB)
  await rig.pool.createSnapshot('n', 't')
  const other = await rig.openVolume('n', 't', false)
  await other.fake.write(0, Buffer.alloc(4 * KiB, 6))
  await other.close()
  await rig.pool.renameVolume('n', 'b', true)
  t.ok((await read('b', 's', false)).equals(expected))
  t.equal((await read('b', 't', false))[0], 6)
  rig.kill()
  await rig.open()
  t.ok((await read('b', 's', false)).equals(expected))
  t.strictSame(
    rig.pool.volume('b').snapshots.map(({ name, writtenBytes }) => [name, writtenBytes]),
    [
      ['s', 32 * KiB],
      ['t', 32 * KiB],
    ],
  )
  await rig.pool.audit()
})

t.test('above the last mark no snapshot is begun to be written, and one that was goes on', async (t) => {
  const { rig } = await pool(t)
  await rig.pool.createSnapshot('a', 'other')
  const { fake, close } = await rig.openVolume('a', 's', false)
  await fake.write(0, Buffer.alloc(KiB, 1))
  await close()
  await rig.pool.close()
  await rig.open({ marks: [1] })
  t.equal(rig.pool.facts().state, 'nearly-full')
  await t.rejects(rig.openVolume('a', 'other', false), { code: 'POOL_NEARLY_FULL' })
  await (await rig.openVolume('a', 'other')).close()
  const again = await rig.openVolume('a', 's', false)
  await again.fake.write(0, Buffer.alloc(KiB, 2))
  await again.close()
})

t.test('two hosts that begin at once have one layer between them: the second is refused', async (t) => {
  const { rig } = await pool(t)
  const outcomes = await Promise.allSettled([rig.openVolume('a', 's', false), rig.openVolume('a', 's', false)])
  t.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1)
  const [refused] = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason] : []))
  t.equal(refused.code, 'VOLUME_OPEN')
})
