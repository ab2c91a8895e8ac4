/**
 * The journal is mapped. A store into it that the file system does not take is a signal to the agent (SIGBUS) and no error: it
 * must cost the journal, and neither the agent nor the host. XFS sends one for each store once it has shut down; ext4 does not.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { VolumeView } from '../../src/api/agent-operations.js'
import { Agent, delay, flush, mirror, pair } from '../fixtures/agent.js'
import { badDisk } from '../fixtures/bad-disk.js'
import { scratchFolder } from '../fixtures/paths.js'
import { command, difference, farPath } from '../fixtures/sites.js'
import { stampVerify, startStamp } from '../fixtures/stamp.js'

const name = 'lost-journal-xfs'
const load = { threads: 2, sizes: '512-65536', rate: 200, seconds: 900, fsyncEvery: 10, seed: 11 }

t.test('an XFS that shuts down under the journal ends neither the agent nor a write of its hosts', async (t) => {
  const folder = scratchFolder(t, name)
  const disk = await badDisk(t, folder, 'disk', 320 << 20)
  await disk.format('xfs')
  await disk.mount()
  const config = join(folder, 'source.yaml')
  const buffers = `buffer: { directory: ${disk.mountPoint}/buffer }`
  writeFileSync(config, `${buffers}\njournal: { segment: 4MiB }\nregions: { size: 64KiB }\n`)
  const source = await Agent.start(t, folder, 'source', ['--config', config])
  const destination = await Agent.start(t, folder, 'destination')
  await pair(source, destination, { via: 'https' })
  const { device } = await source.volume(folder, name, '24MiB')
  await mirror(source, name, [name])
  const log = join(folder, 'stamps.log')
  const writer = startStamp(device, log, load)
  await delay(3000)
  const { pid } = source
  const status = () => source.streamStatus(name)
  const writes = async (): Promise<number> => (await source.cli<VolumeView>('volume', 'show', name)).counters.writes

  // From outside, so that a store meets it before a sync does.
  await command('xfs_io', '-x', '-c', 'shutdown', disk.mountPoint)
  // The record of regions lies there, too: where that is written first, nobody knows what to catch up.
  const lost = await source.until(status, ({ state }) => state === 'mapping' || state === 'diverged')
  t.comment(`${lost.state}: ${lost.reason}`)
  t.match(
    (await source.events()).map(({ text }) => text).join('\n'),
    /The journal failed: .*journal\/[0-9a-f]{16}\.seg/,
  )
  const before = await writes()
  await delay(3000)
  const more = (await writes()) - before
  t.ok(more > 100, `${more} writes go on`)
  t.equal(source.running && source.pid, pid, 'by the same agent')

  await source.terminate()
  await disk.unmount()
  await disk.mount()
  await source.start()
  const { state } = await source.until(status, ({ state }) => state === 'replicating' || state === 'diverged', 90_000)
  if (state === 'diverged') await source.cli('stream', 'initialize', name, '--wait')
  const run = await writer.stop()
  t.equal(run.errno, 0, `the host has seen nothing in ${run.writes} writes`)
  await flush(source, name)
  const image = await farPath({ folder, source, destination }, name)
  t.equal(await difference(device, image), '', 'both sides are equal')
  t.match(stampVerify(image, log, { requireAll: true }), { ok: true })
})
