/**
 * An inbox that hangs, as one on a share whose server is gone does: every call there waits in the kernel, and whoever waits
 * cannot be killed.
 */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { MiB } from '../../src/block/units.js'
import { Agent, delay, flush, pair } from '../fixtures/agent.js'
import { badDisk } from '../fixtures/bad-disk.js'
import { mountFreezableDisk } from '../fixtures/freezable-disk.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { scratchFolder } from '../fixtures/paths.js'
import { command, difference, farPath } from '../fixtures/sites.js'

/** More than a process has threads for files, so that it has none left. */
const streamCount = 5
/** A command that waits for that inbox does so for ever. */
const commandMs = 30_000
/** An inbox that gives no answer for two minutes hangs. */
const saidMs = 180_000

const folder = scratchFolder(t, 'hung-inbox')
const source = await Agent.start(t, folder, 'source')
const destination = await Agent.start(t, folder, 'destination')
const sites = { folder, source, destination }
const devices = new Map<string, string>()

async function mirrored(name: string, via: string): Promise<void> {
  devices.set(name, (await source.volume(folder, name, '32MiB')).device)
  await source.cli('stream', 'create', name, '--volume', name, '--destination', via, '--epoch', '200ms')
  await source.cli('stream', 'initialize', name, '--wait')
}

const write = (name: string): Promise<string> =>
  command('timeout', '60', 'dd', 'if=/dev/urandom', `of=${devices.get(name)}`, 'bs=1M', 'count=4', 'conv=fsync')

const reason = async (name: string): Promise<string> => (await destination.inbound(name)).reason
const hangs = (text: string): boolean => text.startsWith('INBOX_UNAVAILABLE')

/** What the agent says, or that it waits. */
async function answered(...words: string[]): Promise<number | string | null> {
  const ended = destination.run(...words).then(({ code, stderr }) => (code === 0 ? 0 : stderr))
  return Promise.race([ended, delay(commandMs).then(() => 'it waits')])
}

const equal = async (name: string): Promise<string> =>
  difference(devices.get(name)!, await farPath(sites, name, name).catch(String))

/** Whatever else the agent does goes on. */
async function goesOn(t: Test, title: string): Promise<void> {
  await write('inbox-well')
  const flushed = flush(source, 'inbox-well').then(() => 'flushed')
  t.equal(await Promise.race([flushed, delay(commandMs).then(() => 'it waits')]), 'flushed', title)
  t.equal(await equal('inbox-well'), '', title)
}
await pair(source, destination, { via: 'https' }, 'inbox-well')
await mirrored('inbox-well', 'inbox-well')

t.test('an inbox in which writing hangs holds up nothing else, and its streams go on by themselves', async (t) => {
  const disk = await mountFreezableDisk(folder, 512 * MiB)
  remember({ kind: 'mount', path: disk.directory })
  t.teardown(async () => {
    await disk.thaw()
    await command('umount', '-l', disk.directory)
    forget({ kind: 'mount', path: disk.directory })
  })
  await pair(source, destination, { via: 'folder', folder: disk.directory }, 'share')
  const names = Array.from({ length: streamCount }, (_, index) => `hung-inbox-${index}`)
  for (const name of names) await mirrored(name, 'share')

  // What has arrived when the share hangs is taken, and cannot be removed.
  process.kill(destination.pid, 'SIGSTOP')
  const arrived = (): number =>
    readdirSync(disk.directory, { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.tmr')).length
  for (const name of names) await write(name)
  await source.until(
    async () => arrived(),
    (count) => count >= streamCount,
  )
  await disk.freeze()
  process.kill(destination.pid, 'SIGCONT')
  await delay(2_000)

  await goesOn(t, 'another stream')
  const [first = '', second = ''] = names
  const image = join(folder, 'new.img')
  t.equal(await answered('volume', 'create', 'new', '--path', image, '--size', '16MiB'), 0)
  t.equal(await answered('inbound', 'list'), 0)
  t.equal(await answered('inbound', 'remove', first, '--yes'), 0)
  t.match(
    await destination.until(
      () => destination.inbound(second),
      ({ reason }) => hangs(reason),
      saidMs,
    ),
    { state: 'stalled' },
  )
  const told = (await destination.events()).filter(({ code }) => code === 'INBOX_UNAVAILABLE')
  t.ok(told.some(({ object }) => object === second))
  t.ok(told.length <= streamCount + 1, `${told.length} events`)

  await disk.thaw()
  for (const name of names.slice(1)) {
    await flush(source, name)
    t.equal(await equal(name), '', name)
  }
})

t.test(
  'an agent begins and ends beside an inbox in which reading hangs, and takes from it when it answers',
  async (t) => {
    const disk = await badDisk(t, folder, 'cold', 256 * MiB)
    t.teardown(() => disk.goOn())
    await disk.format('ext4')
    await disk.mount()
    await pair(source, destination, { via: 'folder', folder: disk.mountPoint }, 'cold')
    await mirrored('cold', 'cold')
    await destination.terminate()
    await write('cold')
    await source.until(
      () => source.streamStatus('cold'),
      ({ epoch, oldestUnsentSeconds }) => epoch.sent > epoch.applied && oldestUnsentSeconds === 0,
    )
    // Nothing of it is in memory any more.
    await disk.unmount()
    await disk.mount()
    disk.hang()
    await destination.start()
    await goesOn(t, 'another stream')
    t.equal(await answered('inbound', 'show', 'cold'), 0)
    t.match(await answered('pairing', 'create', '--folder', join(disk.mountPoint, 'other')), /INBOX_UNAVAILABLE/)
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      // Not agent.kill(): what hangs keeps the pipe to this test open.
      process.kill(destination.pid, signal)
      await destination.until(
        async () => destination.running,
        (running) => !running,
      )
      await destination.start()
      await goesOn(t, `beside an agent that began after ${signal}`)
    }
    await destination.until(() => reason('cold'), hangs, saidMs)
    disk.goOn()
    await flush(source, 'cold')
    t.equal(await equal('cold'), '')
    t.ok((await destination.events()).some(({ code, object }) => code === 'DESTAGE_RESUMED' && object === 'cold'))
  },
)
