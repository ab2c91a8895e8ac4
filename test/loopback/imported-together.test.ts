/** Pools that come back late and together, with streams whose journals are to be replayed. */
import { renameSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { PoolView, StreamView, VolumeView } from '../../src/api/agent-operations.js'
import { Agent, flush, mirror } from '../fixtures/agent.js'
import { releaseFolder } from '../fixtures/leftovers.js'
import { difference, farPath } from '../fixtures/sites.js'
import { stampVerify, startStamp } from '../fixtures/stamp.js'
import { createPool, twoThinSites } from '../fixtures/thin-sites.js'

const rounds = 2
const load = { threads: 1, sizes: '4096', rate: 200, blocks: 1024 }

t.test('two pools imported at once, and a volume attached meanwhile: every stream goes on', async (t) => {
  const sites = await twoThinSites(t, { via: 'https' })
  const { source, folder } = sites
  const names = ['together-a', 'together-b', 'together-c']
  const pools = ['together-one', 'together-two', 'together-two']
  for (const pool of new Set(pools)) await createPool(source, folder, pool)
  for (const [at, name] of names.entries()) {
    await source.cli('volume', 'create', name, '--pool', pools[at]!, '--size', '16MiB')
    await source.cli('volume', 'attach', name)
    await mirror(source, name, [name])
  }
  const device = async (name: string): Promise<string> => (await source.cli<VolumeView>('volume', 'show', name)).device!
  const devices = await Promise.all(names.map(device))
  const logs = names.map((name) => join(folder, `${name}-log`))
  const files = [...new Set(pools)].map((pool) => join(folder, `${pool}.img`))
  for (let round = 0; round < rounds; round++) {
    const writers = names.map((_, at) =>
      startStamp(devices[at]!, logs[at]!, { ...load, seed: round, append: round > 0 }),
    )
    await new Promise((resolve) => setTimeout(resolve, 1000))
    await Promise.all(writers.map((writer) => writer.stop()))
    // What was written last is in the journals, and not all of it anywhere else for certain.
    await source.kill()
    releaseFolder(source.state)
    for (const file of files) renameSync(file, `${file}.away`)
    await source.start()
    for (const name of names) t.match(await source.streamStatus(name), { state: 'failed', reason: /VOLUME_AWAY/ })
    const again = source.cli('volume', 'create', names[0]!, '--pool', 'near-pool', '--size', '16MiB')
    await t.rejects(again, /exit code 1.*VOLUME_IN_USE/, 'its name is kept for it')
    for (const file of files) renameSync(`${file}.away`, file)
    const imports = files.map((file) => source.cli<PoolView>('pool', 'import', file))
    await Promise.all([...imports, ...names.map((name) => source.run('stream', 'resume', name))])
    for (const [at, name] of names.entries()) {
      devices[at] = (await source.cli<VolumeView>('volume', 'attach', name)).device!
      t.match(
        await source.until(
          () => source.streamStatus(name),
          ({ state }) => state === 'replicating',
        ),
        {
          generation: 1,
        },
      )
      t.match(stampVerify(devices[at]!, logs[at]!, { requireAll: true, blocks: load.blocks }), { ok: true })
      await flush(source, name)
      t.equal(await difference(devices[at]!, await farPath(sites, name)), '', name)
    }
  }
  t.notOk((await source.events()).some(({ text }) => text.includes('WORKER_ENDED')))
})

t.test('a stream whose pool never comes back is shown, with its reason, and can be removed', async (t) => {
  const { source, folder } = await twoThinSites(t, { via: 'https' })
  const name = 'together-gone'
  await createPool(source, folder, 'gone-pool')
  await source.cli('volume', 'create', name, '--pool', 'gone-pool', '--size', '16MiB')
  await mirror(source, name, [name])
  await source.terminate()
  const file = join(folder, 'gone-pool.img')
  renameSync(file, `${file}.away`)
  await source.start()
  const shown = await source.cli<StreamView[]>('stream', 'status')
  t.match(shown, [{ name, state: 'failed', reason: /VOLUME_AWAY.*tidemark stream remove together-gone/ }])
  await t.rejects(source.cli('stream', 'resume', name), /VOLUME_AWAY/)
  const foreign = join(folder, 'other-pool.img')
  const other = await Agent.start(t, folder, 'other')
  await createPool(other, folder, 'other-pool')
  await other.cli('volume', 'create', name, '--pool', 'other-pool', '--size', '16MiB')
  await other.cli('pool', 'export', 'other-pool')
  const refused = source.cli('pool', 'import', foreign)
  await t.rejects(
    refused,
    /NAME_IN_USE.*stream together-gone has a journal/,
    'the volume of another pool is not taken for it',
  )
  await t.rejects(source.cli('destination', 'remove', 'far'), /exit code 1/, 'its destination is kept')
  await source.cli('stream', 'remove', name)
  t.same(await source.cli('stream', 'status'), [])
  await source.cli('destination', 'remove', 'far')
  await source.cli('volume', 'create', name, '--pool', 'near-pool', '--size', '16MiB')
})
