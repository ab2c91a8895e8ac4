/**
 * A source is put back to an older state, as when its machine is restored from a snapshot: the far side has epochs that it
 * has never cut, and the next ones it cuts have the numbers of those.
 */
import { cpSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { flush, mirror } from '../fixtures/agent.js'
import { command, difference, farPath, twoSites } from '../fixtures/sites.js'

const sites = await twoSites(t)
const { source, destination, folder } = sites
const image = join(folder, 'restored.img')
const older = join(folder, 'older')

/** 64 KiB that no other write has. */
async function dd(device: string, seek = 0): Promise<void> {
  const how = ['bs=64k', `seek=${seek}`, 'count=1', 'oflag=direct', 'conv=fsync,notrunc', 'status=none']
  await command('dd', 'if=/dev/urandom', `of=${device}`, ...how)
}

/** Each makes an epoch of its own. */
async function write(device: string): Promise<void> {
  await dd(device)
  await flush(source, 's')
}

async function attached(): Promise<string> {
  const { device } = await source.get<{ device: string | null }>('volumes', 'restored')
  if (device === null) throw new Error(`it has no device: ${source.log().slice(-3000)}`)
  return device
}

async function putBack(): Promise<void> {
  await source.stop()
  rmSync(source.state, { recursive: true })
  renameSync(join(older, 'state'), source.state)
  renameSync(join(older, 'restored.img'), image)
  await source.start()
}

function remember(): void {
  cpSync(source.state, join(older, 'state'), { recursive: true, filter: (file) => !file.endsWith('.sock') })
  cpSync(image, join(older, 'restored.img'))
}

async function timesTold(): Promise<number> {
  return (await source.events()).filter(({ code }) => code === 'STREAM_DIVERGED').length
}

async function divergedAndInitialized(t: Test, generation: number): Promise<void> {
  const before = await timesTold()
  const device = await attached()
  await dd(device)
  const far = await farPath(sites, 's')
  const { appliedEpoch } = await destination.inbound('s')
  const view = await source.until(
    () => source.streamStatus('s'),
    ({ state }) => state === 'diverged',
  )
  t.match(view.reason, /put back to an older state.*Run: tidemark stream initialize s/)
  t.equal((await timesTold()) - before, 1, 'said once')
  t.equal((await destination.inbound('s')).appliedEpoch, appliedEpoch, 'nothing was mixed')
  await dd(device, 8)
  t.not(await difference(image, far), '', 'hosts go on')
  await source.cli('stream', 'initialize', 's', '--wait')
  await write(device)
  t.equal(await difference(device, await farPath(sites, 's')), '')
  t.equal((await destination.inbound('s')).generation, generation)
}

t.test('a source put back to an older state says so, mixes nothing, and begins anew', async (t) => {
  const { device } = await source.volume(folder, 'restored', '4MiB')
  await mirror(source, 's', ['restored'])
  await write(device)
  await source.stop()
  remember()
  await source.start()
  for (let count = 0; count < 5; count++) await write(await attached())
  await putBack()
  await divergedAndInitialized(t, 2)
})

t.test('also when the far side has a generation that it does not know', async (t) => {
  await source.stop()
  remember()
  await source.start()
  for (let count = 0; count < 2; count++) await source.cli('stream', 'initialize', 's', '--wait')
  await putBack()
  await divergedAndInitialized(t, 5)
})
