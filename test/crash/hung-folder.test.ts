/** A destination's folder that hangs, as a share whose server is gone does: every call there waits in the kernel. */
import { closeSync, mkdirSync, openSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { VolumeView } from '../../src/api/agent-operations.js'
import { Agent, delay, flush, mirror, pair } from '../fixtures/agent.js'
import { mountFreezableDisk } from '../fixtures/freezable-disk.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { scratchFolder } from '../fixtures/paths.js'
import { command, difference, farPath } from '../fixtures/sites.js'

/** More than a process has threads for files, so that it has none left. */
const streamCount = 5
/** A command that waits for that folder does so for ever. */
const commandMs = 30_000

const folder = scratchFolder(t, 'hung-folder')
const source = await Agent.start(t, folder, 'source')
const destination = await Agent.start(t, folder, 'destination')
const disk = await mountFreezableDisk(folder, 512 << 20)
remember({ kind: 'mount', path: disk.directory })
t.teardown(async () => {
  await disk.thaw()
  for (const agent of [source, destination]) await agent.stop()
  await command('umount', '-l', disk.directory)
  forget({ kind: 'mount', path: disk.directory })
})
mkdirSync(join(disk.directory, 'between'))
await pair(source, destination, { via: 'folder', folder: join(disk.directory, 'between') })
await pair(source, destination, { via: 'https' }, 'well')

const names = Array.from({ length: streamCount }, (_, index) => `hung-${index}`)
const devices = new Map<string, string>()
for (const name of names) {
  devices.set(name, (await source.volume(folder, name, '32MiB')).device)
  await mirror(source, name, [name])
}
const well = await source.volume(folder, 'well', '32MiB')
await source.cli('stream', 'create', 'well', '--volume', 'well', '--destination', 'well', '--epoch', '200ms')
await source.cli('stream', 'initialize', 'well', '--wait')

const write = (device: string): Promise<string> =>
  command('timeout', '60', 'dd', 'if=/dev/urandom', `of=${device}`, 'bs=1M', 'count=4', 'oflag=direct', 'conv=fsync')

/** What it says, or that it waits. */
async function answered(...words: string[]): Promise<number | string | null> {
  const ended = source.run(...words).then(({ code, stderr }) => (code === 0 ? 0 : stderr))
  return Promise.race([ended, delay(commandMs).then(() => 'it waits')])
}

t.test('streams to a folder that hangs hold up nothing else, and can be paused and removed', async (t) => {
  await disk.freeze()
  for (const device of devices.values()) await write(device)
  // Each stream has a file under way now.
  await delay(2_000)
  await write(well.device)
  await flush(source, 'well')
  t.equal(await difference(well.device, await farPath({ folder, source, destination }, 'well')), '')
  const [first = '', second = ''] = names
  const image = join(folder, 'new.img')
  t.equal(await answered('volume', 'create', 'new', '--path', image, '--size', '16MiB'), 0)
  t.equal(await answered('stream', 'pause', first), 0)
  t.equal(await answered('stream', 'remove', first), 0)
  t.equal(await answered('stream', 'initialize', second), 0)
})

t.test('an agent that is stopped or killed meanwhile ends, and the next one goes on with its devices', async (t) => {
  const device = devices.get(names[2]!)!
  // In use all the time: it is not detached.
  const held = openSync(device, 'r')
  t.teardown(() => closeSync(held))
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    // Not agent.kill(): what hangs keeps the pipe to this test open.
    process.kill(source.pid, signal)
    await source.until(
      async () => source.running,
      (running) => !running,
    )
    const host = write(device)
    await source.start()
    await host
    t.match(await source.get('volumes', names[2]!), { state: 'attached', device })
    // A file is under way again.
    await delay(2_000)
  }
  await disk.thaw()
  for (const name of names.slice(1)) await flush(source, name)
  for (const name of names.slice(2)) {
    const far = await farPath({ folder, source, destination }, name)
    // One that nobody used was detached, and has perhaps another device now.
    const { device: now } = await source.get<VolumeView>('volumes', name)
    t.equal(await difference(now!, far), '', name)
  }
})
