/**
 * The disk of a source buffer, or of what arrives, is gone, fails or hangs: every way out of a state answers within a bound,
 * and, asked for again when the disk is mended, ends well.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { StreamView } from '../../src/api/agent-operations.js'
import { Agent, delay, flush, mirror, pair } from '../fixtures/agent.js'
import { badDisk } from '../fixtures/bad-disk.js'
import { scratchFolder } from '../fixtures/paths.js'
import type { PowerCutDevice } from '../fixtures/power-cut.js'
import { command, difference, farPath, type Sites } from '../fixtures/sites.js'

// Those that wait for minutes last, all at once.
const kinds = ['gone', 'fails', 'hangs'] as const
type Kind = (typeof kinds)[number]
/** A change has its turn, or is refused, after two minutes, and is answered after two more, done or not. */
const boundMs = 270_000
/** What an operator may be told instead of being obeyed. */
const refusals = [
  'CHANGE_PENDING',
  'AGENT_BUSY',
  'BUFFER_UNAVAILABLE',
  'JOURNAL_UNAVAILABLE',
  'REGIONS_UNWRITABLE',
  'BAD_DIRECTORY',
  'DESTINATION_UNAVAILABLE',
  // It has ended: the disk can still be read.
  'BUFFER_NOT_MOVING',
]

t.jobs = 3

interface LostSites extends Sites {
  readonly disk: PowerCutDevice
  /** Below the mount point of the disk. */
  readonly lost: string
}

async function sitesWith(t: Test, name: string, near: string, far: string): Promise<LostSites> {
  const folder = scratchFolder(t, name)
  const disk = await badDisk(t, folder, 'disk', 256 << 20)
  await disk.format('ext4')
  await disk.mount()
  const lost = join(disk.mountPoint, 'lost')
  mkdirSync(lost, { mode: 0o700 })
  const [nearFile, farFile] = [join(folder, 'near.yaml'), join(folder, 'far.yaml')]
  writeFileSync(nearFile, `journal: { segment: 4MiB, limit: 16MiB }\n${near.replace('LOST', lost)}\n`)
  writeFileSync(farFile, `${far.replace('LOST', lost)}\n`)
  const source = await Agent.start(t, folder, 'source', ['--config', nearFile])
  const destination = await Agent.start(t, folder, 'destination', ['--config', farFile])
  // Runs before the agents end: one that waits for the disk cannot.
  t.teardown(() => disk.goOn())
  await pair(source, destination, { via: 'https' })
  return { folder, source, destination, disk, lost }
}

async function lose({ disk }: LostSites, kind: Kind): Promise<void> {
  // What is in memory is not read from the disk.
  await command('bash', '-c', 'sync -f "$0"; echo 1 > /proc/sys/vm/drop_caches', disk.mountPoint)
  if (kind === 'gone') await command('umount', '-l', disk.mountPoint)
  else if (kind === 'fails') await disk.fail('write', 0, 'all')
  else disk.hang()
}

/** A file system that has failed is none any more until it is mounted anew, which takes the end of who uses it. */
async function mend({ disk }: LostSites, kind: Kind, user: Agent): Promise<void> {
  if (kind === 'hangs') return disk.goOn()
  await user.terminate()
  if (kind === 'fails') {
    await disk.mend()
    await disk.unmount()
  }
  // It may have lost a part of its journal. 1: that was corrected.
  const check = () => command('bash', '-c', 'e2fsck -fy "$0" || [ $? -eq 1 ]', disk.device)
  await disk.mount().catch(() => check().then(() => disk.mount()))
  await user.start()
}

/** 0, or the code of the refusal, which is one that says what to do. */
async function answered(t: Test, agent: Agent, ...words: string[]): Promise<string | number> {
  const from = performance.now()
  const ended = agent.run(...words).then(({ code, errorCode }) => (code === 0 ? 0 : String(errorCode)))
  const answer = await Promise.race([ended, delay(boundMs).then(() => 'it waits')])
  const seconds = ((performance.now() - from) / 1000).toFixed(1)
  t.ok(answer === 0 || refusals.includes(String(answer)), `${words.join(' ')}: ${answer} after ${seconds} s`)
  return answer
}

/** A while at the most: where the journal hangs its hosts wait in the kernel, whoever ends them. */
const write = (device: string, at: number): Promise<unknown> => {
  const words = ['if=/dev/urandom', `of=${device}`, 'bs=1M', 'count=2', `seek=${at}`, 'oflag=direct', 'conv=fsync']
  return Promise.race([command('dd', ...words).catch(() => undefined), delay(10_000)])
}

function loseBuffers(place: 'files' | 'all', kind: Kind): void {
  t.test(`the disk of ${place === 'all' ? 'a buffer directory' : 'moved buffers'} ${kind}`, async (t) => {
    const prefix = `lost-${place}-${kind}`
    const sites = await sitesWith(t, prefix, place === 'all' ? 'buffer: { directory: LOST }' : '', '')
    const { source, folder, lost } = sites
    const [paused, removed, begun, moved, called] = ['pause', 'remove', 'init', 'move', 'abort'].map(
      (name) => `${prefix}-${name}`,
    ) as [string, string, string, string, string]
    const names = [paused, removed, begun, moved, called]
    const devices = new Map<string, string>()
    for (const name of names) {
      devices.set(name, (await source.volume(folder, name, '16MiB')).device)
      await mirror(source, name, [name])
      if (place === 'files') await source.cli('buffer', 'move', name, lost, '--wait')
      // Files wait in the buffer.
      await source.cli('stream', 'pause', name)
      await write(devices.get(name)!, 0)
    }
    const well = `${prefix}-well`
    const { device: wellDevice } = await source.volume(folder, well, '16MiB')
    await mirror(source, well, [well])
    // Its stream is to be made while the disk of all buffers hangs.
    const late = place === 'all' && kind === 'hangs' ? `${prefix}-late` : undefined
    if (late) devices.set(late, (await source.volume(folder, late, '16MiB')).device)
    const status = (name: string) => (): Promise<StreamView> => source.streamStatus(name)
    for (const name of names) await source.until(status(name), ({ buffer }) => buffer.usedBytes > 2 << 20)
    await lose(sites, kind)
    for (const name of [paused, begun]) await answered(t, source, 'stream', 'resume', name)
    await Promise.all(names.map((name) => write(devices.get(name)!, 4)))
    await delay(2000)

    const elsewhere = join(folder, 'elsewhere')
    // First: a buffer that is moved keeps the turn of all for two minutes.
    const create = ['stream', 'create', late ?? '', '--volume', late ?? '', '--destination', 'far']
    // At once, where what it asks the disk for is in memory.
    if (late) t.match(String(await answered(t, source, ...create)), /^(0|CHANGE_PENDING)$/)
    const changes = [
      answered(t, source, 'stream', 'remove', removed),
      answered(t, source, 'stream', 'initialize', begun),
      answered(t, source, 'buffer', 'move', moved, elsewhere),
      answered(t, source, 'buffer', 'move', called, elsewhere),
      delay(1000).then(() => answered(t, source, 'buffer', 'abort', called)),
    ]
    for (const name of names) {
      const from = performance.now()
      if (name !== removed) t.equal(await answered(t, source, 'stream', 'pause', name), 0, `${name} is paused`)
      t.ok(performance.now() - from < 20_000, 'at once')
    }
    if (place === 'files') {
      await write(wellDevice, 0)
      t.equal(await answered(t, source, 'stream', 'flush', well, '--wait'), 0, 'a stream with another buffer goes on')
    }
    t.match(await source.streamStatus(paused), { state: /paused|mapping|waiting|failed|diverged/ })
    await Promise.all(changes)
    const image = join(folder, 'after.img')
    const made = answered(t, source, 'volume', 'create', `${prefix}-after`, '--path', image, '--size', '1MiB')
    t.equal(await made, 0, 'what does not touch that disk can be changed')

    await mend(sites, kind, source)
    const gone = async (): Promise<boolean> => {
      const { code, errorCode } = await source.run('stream', 'remove', removed)
      return code === 0 || errorCode === 'NO_SUCH_STREAM'
    }
    await source.until(gone, Boolean)
    for (const name of [paused, begun, moved, called, late].filter((each) => each !== undefined)) {
      await source.until(
        async () => (await source.run('stream', 'resume', name)).code,
        (code) => code === 0,
      )
      const { state } = await source.until(
        status(name),
        // Mapping, for good: what was written while the mount point was empty lies below the disk now.
        ({ state, buffer }) => /replicating|diverged|mapping|new/.test(state) && buffer.move === null,
      )
      t.comment(`${name}: ${state}`)
      await source.cli('stream', 'initialize', name, '--wait')
      const device = (await source.cli<{ device: string }>('volume', 'show', name)).device
      await write(device, 6)
      await flush(source, name)
      t.equal(await difference(device, await farPath(sites, name)), '', 'both sides are equal')
    }
  })
}

function loseArrivals(kind: Kind): void {
  t.test(`the disk of what arrives ${kind}`, async (t) => {
    const name = `lost-inbound-${kind}`
    const sites = await sitesWith(t, name, '', 'inbound: { directory: LOST }')
    const { source, destination, folder } = sites
    const { device } = await source.volume(folder, name, '16MiB')
    await mirror(source, name, [name])
    await lose(sites, kind)
    await write(device, 4)
    await delay(2000)
    const answer = await answered(t, destination, 'inbound', 'remove', name, '--yes')
    t.comment(String(answer))
    await mend(sites, kind, destination)
    const gone = async (): Promise<boolean> =>
      (await destination.run('inbound', 'remove', name, '--yes')).errorCode === 'NO_SUCH_STREAM'
    await destination.until(gone, Boolean)
    await source.cli('stream', 'initialize', name, '--wait')
    await flush(source, name)
    t.equal(await difference(device, await farPath(sites, name)), '', 'both sides are equal')
  })
}

for (const kind of kinds) {
  loseBuffers('files', kind)
  loseBuffers('all', kind)
  loseArrivals(kind)
}
