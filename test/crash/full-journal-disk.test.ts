/** The disk of the journal fills up: a segment cannot be made, the journal fails for good, and hosts go on. */
import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { MiB } from '../../src/block/units.js'
import { Agent, delay, flush, mirror, pair } from '../fixtures/agent.js'
import { scratchFolder } from '../fixtures/paths.js'
import { difference, farPath, type Sites } from '../fixtures/sites.js'
import { mountSmallDisk } from '../fixtures/small-disk.js'
import { stampVerify, startStamp } from '../fixtures/stamp.js'

const name = 'full-journal-disk'

t.test(
  'a journal that fails is replaced by the map of regions, and by another journal when there is room',
  async (t) => {
    const folder = scratchFolder(t, name)
    const disk = await mountSmallDisk(64 * MiB)
    t.teardown(() => disk.unmount())
    const between = join(folder, 'between')
    mkdirSync(between)
    const config = join(folder, 'source.yaml')
    const buffers = `buffer:\n  directory: ${disk.directory}/buffer\n`
    writeFileSync(config, `${buffers}journal:\n  segment: 4MiB\nregions:\n  size: 64KiB\n`)
    const source = await Agent.start(t, folder, 'source', ['--config', config])
    const destination = await Agent.start(t, folder, 'destination')
    const sites: Sites = { folder, source, destination }
    await pair(source, destination, { via: 'folder', folder: between })
    const { device } = await source.volume(folder, name, '24MiB')
    await mirror(source, name, [name])

    renameSync(between, join(folder, 'away'))
    const log = join(folder, 'stamps.log')
    const writer = startStamp(device, log, {
      threads: 2,
      sizes: '4096-131072',
      rate: 400,
      seconds: 600,
      fsyncEvery: 20,
      seed: 4,
    })
    const status = () => source.streamStatus(name)
    const mapped = await source.until(status, ({ state }) => state === 'mapping', 60_000)
    t.match(mapped.reason, /JOURNAL_NO_SPACE|journal failed/)
    await delay(500)
    renameSync(join(folder, 'away'), between)
    await source.until(status, ({ state, catchUp }) => state === 'replicating' && catchUp === null, 90_000)
    await delay(500)
    t.equal((await writer.stop()).errno, 0, 'hosts have seen no error')
    await flush(source, name)
    const image = await farPath(sites, name)
    t.equal(await difference(device, image), '', 'both sides are equal')
    t.match(stampVerify(image, log, { requireAll: true }), { ok: true })
    t.match(await status(), { state: 'replicating', generation: 1 })
  },
)
