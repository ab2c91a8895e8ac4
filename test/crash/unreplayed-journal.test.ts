/**
 * A journal that holds what a host flushed, and cannot be replayed for now: no command throws it away unasked, and no host
 * sees its volume without it.
 */
import { readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { VolumeView } from '../../src/api/agent-operations.js'
import { MiB } from '../../src/block/units.js'
import { Agent, flush, mirror, pair } from '../fixtures/agent.js'
import { bufferFolder } from '../fixtures/lost-journal.js'
import { scratchFolder } from '../fixtures/paths.js'
import { command, difference, farPath, type Sites } from '../fixtures/sites.js'
import { mountSmallDisk } from '../fixtures/small-disk.js'

const folder = scratchFolder(t, 'unreplayed-journal')
const config = join(folder, 'source.yaml')
// Nothing a host flushes gets to its volume's disk meanwhile.
writeFileSync(config, 'journal: { checkpoint: 1m }\n')
const source = await Agent.start(t, folder, 'source', ['--config', config])
const destination = await Agent.start(t, folder, 'destination')
const sites: Sites = { folder, source, destination }
await pair(source, destination, { via: 'https' })
const flushed = join(folder, 'flushed')

const dd = (from: string, to: string): Promise<string> =>
  command('dd', `if=${from}`, `of=${to}`, 'bs=64k', 'count=1', 'iflag=fullblock', 'conv=notrunc,fsync', 'status=none')

/** The machine of a stream goes down when its host has flushed: the backing alone does not have that. */
async function goDown(name: string): Promise<{ image: string }> {
  const { device, path } = await source.volume(folder, name, '4MiB')
  await mirror(source, name, [name])
  await dd('/dev/urandom', flushed)
  await dd(flushed, device)
  await source.killWithDevices()
  await dd('/dev/zero', path)
  return { image: path }
}

const deviceOf = async (name: string): Promise<string | null> => (await source.get<VolumeView>('volumes', name)).device

async function hasIt(t: Test, name: string): Promise<void> {
  const device = await source.until(
    () => deviceOf(name),
    (device) => device !== null,
  )
  await command('cmp', '--bytes', '65536', flushed, device!)
  await flush(source, name)
  t.equal(await difference(device!, await farPath(sites, name)), '', 'both sides are equal')
}

for (const ask of ['initialize', 'remove'] as const) {
  t.test(`stream ${ask} while the disk of the buffer is not mounted`, async (t) => {
    const name = `unreplayed-${ask}`
    await goDown(name)
    const buffer = bufferFolder(source, name)
    renameSync(buffer, `${buffer}-away`)
    await source.start()
    t.match(await source.streamStatus(name), { state: 'failed' })
    const refused = await source.run('stream', ask, name)
    t.match(refused, { code: 1, errorCode: 'JOURNAL_NOT_REPLAYED' })
    t.match(refused.stderr, /JOURNAL_MISSING.*--discard-journal/s)
    t.equal(await deviceOf(name), null, 'its host waits')

    rmSync(buffer, { recursive: true, force: true })
    renameSync(`${buffer}-away`, buffer)
    await source.cli('stream', ask, name)
    if (ask === 'remove') {
      await destination.cli('inbound', 'remove', name, '--yes')
      await mirror(source, name, [name])
    }
    await hasIt(t, name)
  })
}

t.test('a journal that is lost for good is given up when that is asked for', async (t) => {
  for (const ask of ['initialize', 'remove'] as const) {
    const name = `discarded-${ask}`
    const { image } = await goDown(name)
    rmSync(bufferFolder(source, name), { recursive: true })
    await source.start()
    t.match(await source.run('stream', ask, name), { code: 1, errorCode: 'JOURNAL_NOT_REPLAYED' })
    await source.cli('stream', ask, name, '--discard-journal')
    const device = await source.until(
      () => deviceOf(name),
      (device) => device !== null,
    )
    t.equal(await difference(device!, image), '', 'what the disk has is what its host gets')
    const told = (await source.events()).filter(({ code, object }) => code === 'JOURNAL_DISCARDED' && object === name)
    t.equal(told.length, 1, 'and an event says so')
  }
})

t.test(
  'two of three volumes are gone for good: the third gets what its host flushed, before the journal is given up',
  async (t) => {
    const [kept, gone, thin] = ['three-kept', 'three-gone', 'three-thin'] as const
    const poolFile = join(folder, 'three.img')
    await source.cli('pool', 'create', 'three-pool', '--file', poolFile, '--size', '64MiB')
    await source.cli('volume', 'create', thin, '--pool', 'three-pool', '--size', '4MiB')
    await source.cli('volume', 'attach', thin)
    const images = []
    for (const name of [kept, gone]) images.push((await source.volume(folder, name, '4MiB')).path)
    await mirror(source, 'three', [gone, kept, thin])
    await dd('/dev/urandom', flushed)
    for (const name of [gone, kept, thin]) await dd(flushed, (await deviceOf(name))!)
    await source.killWithDevices()
    for (const image of images) await dd('/dev/zero', image)
    for (const file of [images[1]!, poolFile]) renameSync(file, `${file}-away`)
    await source.start()
    for (const ask of ['initialize', 'remove'])
      t.match(await source.run('stream', ask, 'three'), { code: 1, errorCode: 'JOURNAL_NOT_REPLAYED' })
    t.match(await source.run('stream', 'initialize', 'three', '--discard-journal'), { code: 1 }, 'its volumes are away')
    t.match(await source.streamStatus('three'), { state: 'failed', generation: 1 })
    await dd('/dev/zero', images[0]!)

    await source.cli('stream', 'remove', 'three', '--discard-journal')
    const device = await source.until(
      () => deviceOf(kept),
      (device) => device !== null,
    )
    await command('cmp', '--bytes', '65536', flushed, device!)
    const told = (await source.events()).filter(
      ({ code, object }) => code === 'JOURNAL_DISCARDED' && object === 'three',
    )
    const texts = told.map(({ text }) => text)
    t.equal(texts.filter((text) => text.includes(`last to ${gone} and`)).length, 2, 'of each attempt an event says so')
    t.equal(texts.filter((text) => text.includes(`last to ${thin} and`)).length, 2)
    t.equal(texts.length, 4)
  },
)

t.test('a disk has room for some of what the journal has: the rest alone is lost, and told', async (t) => {
  const name = 'some'
  const disk = await mountSmallDisk(8 * MiB)
  t.teardown(() => disk.unmount())
  const { device, path } = await source.volume(disk.directory, name, '4MiB')
  await mirror(source, name, [name])
  await command('dd', 'if=/dev/urandom', `of=${flushed}`, 'bs=1M', 'count=4', 'iflag=fullblock', 'status=none')
  for (const place of ['0', '1', '2', '3']) {
    const range = ['bs=1M', 'count=1', `skip=${place}`, `seek=${place}`, 'conv=notrunc,fsync', 'status=none']
    await command('dd', `if=${flushed}`, `of=${device}`, ...range)
  }
  await source.killWithDevices()
  await command('dd', 'if=/dev/zero', `of=${path}`, 'bs=1M', 'count=4', 'conv=notrunc,fsync', 'status=none')
  await command('fallocate', '--punch-hole', '--offset', '1MiB', '--length', '1MiB', path)
  await t.rejects(command('dd', 'if=/dev/zero', `of=${join(disk.directory, 'filler')}`, 'bs=4k'), /No space left/)

  await source.start()
  t.match(await source.streamStatus(name), { state: 'failed' })
  t.match(await source.run('stream', 'initialize', name), { code: 1, errorCode: 'JOURNAL_NOT_REPLAYED' })
  // The replay that is tried ends where there is no room.
  await t.rejects(command('cmp', '--ignore-initial=3MiB', flushed, path), 'the end is not there yet')
  await source.cli('stream', 'initialize', name, '--discard-journal')
  const again = await source.until(
    () => deviceOf(name),
    (device) => device !== null,
  )
  const same = ['0', '1', '2', '3'].map((place) =>
    command('cmp', '--bytes=1MiB', `--ignore-initial=${place}MiB`, flushed, again!).then(
      () => true,
      () => false,
    ),
  )
  t.same(await Promise.all(same), [true, false, true, true])
  const told = (await source.events()).filter(({ code, object }) => code === 'JOURNAL_DISCARDED' && object === name)
  t.equal(told.length, 1)
  t.match(told[0]?.text, /last to some and was in the journal alone is lost: .*ENOSPC/)
})

t.test('the pairing of a stream is lost with the state directory of its machine', async (t) => {
  const name = 'unpaired'
  await goDown(name)
  const secrets = join(source.state, 'destinations')
  const [file = ''] = readdirSync(secrets)
  renameSync(join(secrets, file), join(folder, file))
  await source.start()
  t.match(await source.run('volume', 'attach', name), { code: 1, errorCode: 'NO_SUCH_DESTINATION' })
  t.equal(await deviceOf(name), null, 'its host waits')
  await source.stop()
  renameSync(join(folder, file), join(secrets, file))
  await source.start()
  await hasIt(t, name)
})
