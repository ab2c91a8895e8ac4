/** Volumes that a failed stream kept from their hosts get their devices back when that is over, by whatever ended it. */
import { spawn } from 'node:child_process'
import { renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { VolumeView } from '../../src/api/agent-operations.js'
import { mirror } from '../fixtures/agent.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { createPool, thinVolume, twoThinSites } from '../fixtures/thin-sites.js'

const sites = await twoThinSites(t)
const { source, folder } = sites
await source.cli('volume', 'create', 'waits-plain', '--path', join(folder, 'waits.img'), '--size', '16MiB')
const { device } = await source.cli<VolumeView>('volume', 'attach', 'waits-plain')
await createPool(source, folder, 'waits-pool')
const poolFile = join(folder, 'waits-pool.img')
await thinVolume(source, 'waits-thin', '16MiB', 'waits-pool')
await mirror(source, 'waits', ['waits-plain', 'waits-thin'])

const shown = (): Promise<VolumeView> => source.get<VolumeView>('volumes', 'waits-plain')

/** One write, past the page cache: resolves to its exit code. */
function write(): { readonly code: Promise<number | null>; readonly over: () => boolean } {
  const dd = spawn('dd', ['if=/dev/zero', `of=${device}`, 'bs=4096', 'count=1', 'oflag=direct', 'conv=notrunc'], {
    stdio: 'ignore',
  })
  const pid = dd.pid!
  remember({ kind: 'process', pid })
  let over = false
  const code = new Promise<number | null>((resolve) =>
    dd.on('close', (code) => {
      over = true
      forget({ kind: 'process', pid })
      resolve(code)
    }),
  )
  return { code, over: () => over }
}

/** The agent dies, and the next one finds the stream as `breakIt` left it: a host waits. */
async function hostWaits(t: Test, breakIt: () => void): Promise<ReturnType<typeof write>> {
  await source.kill()
  breakIt()
  const host = write()
  await source.start()
  t.match(await source.streamStatus('waits'), { state: 'failed' })
  t.equal((await shown()).device, null, 'the agent does not serve it')
  t.notOk(host.over(), 'its host waits')
  return host
}

async function served(t: Test, host: ReturnType<typeof write>): Promise<void> {
  t.equal(await host.code, 0, 'its write is done')
  t.equal((await source.until(shown, (volume) => volume.device !== null)).device, device, 'by the same device')
}

t.test('when the pool of another volume of the stream is imported', async (t) => {
  const host = await hostWaits(t, () => renameSync(poolFile, `${poolFile}.away`))
  renameSync(`${poolFile}.away`, poolFile)
  await source.cli('pool', 'import', poolFile)
  await served(t, host)
  await source.until(
    () => source.streamStatus('waits'),
    ({ state }) => state === 'replicating',
  )
})

t.test('when what failed is tried again by itself', async (t) => {
  const { buffer } = await source.streamStatus('waits')
  const host = await hostWaits(t, () => {
    renameSync(buffer.directory, `${buffer.directory}.away`)
    writeFileSync(buffer.directory, '')
  })
  renameSync(buffer.directory, `${buffer.directory}.file`)
  renameSync(`${buffer.directory}.away`, buffer.directory)
  await served(t, host)
  await source.until(
    () => source.streamStatus('waits'),
    ({ state }) => state === 'replicating',
  )
})

t.test('when the stream is removed', async (t) => {
  const host = await hostWaits(t, () => renameSync(poolFile, `${poolFile}.away`))
  t.match(await source.run('stream', 'remove', 'waits'), { code: 1, errorCode: 'JOURNAL_NOT_REPLAYED' })
  await source.cli('stream', 'remove', 'waits', '--discard-journal')
  await served(t, host)
})
