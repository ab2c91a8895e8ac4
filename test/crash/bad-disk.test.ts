/**
 * Disks that answer EIO for a while: below a volume of its own, and below pools on either side. Hosts get errors or nothing,
 * never a success that is not true; what was acknowledged by a flush is there afterwards; all goes on when the disk does, at the
 * latest with a restart of the agent.
 */
import { execFile, execFileSync } from 'node:child_process'
import { closeSync, openSync, readSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import type { PoolCheckView, PoolView, VolumeView } from '../../src/api/agent-operations.js'
import { MiB } from '../../src/block/units.js'
import { Agent, delay, flush, mirror, pair } from '../fixtures/agent.js'
import { badDisk } from '../fixtures/bad-disk.js'
import { scratchFolder } from '../fixtures/paths.js'
import type { PowerCutDevice } from '../fixtures/power-cut.js'
import { difference, farPath, type Sites } from '../fixtures/sites.js'
import { mountSmallDisk } from '../fixtures/small-disk.js'
import { stampVerify, startStamp } from '../fixtures/stamp.js'
import { newSeed, Random } from '../pool/model/random.js'

const run = promisify(execFile)
const isLong = process.env.TORTURE_ROUNDS !== undefined
const journal = 'journal: { segment: 4MiB, limit: 16MiB }\n'
const blocks = (8 * MiB) / 4096
const load = { threads: 2, sizes: '512-65536', fsyncEvery: 20, seconds: 120, blocks }

interface SitesWithDisk extends Sites {
  readonly disk: PowerCutDevice
}

async function sites(t: Test, name: string, farConfig = ''): Promise<SitesWithDisk> {
  const folder = scratchFolder(t, name)
  const disk = await badDisk(t, folder, 'disk', 64 * MiB)
  const [nearFile, farFile] = [join(folder, 'near.yaml'), join(folder, 'far.yaml')]
  writeFileSync(nearFile, journal)
  writeFileSync(farFile, farConfig)
  const source = await Agent.start(t, folder, 'source', ['--config', nearFile])
  const destination = await Agent.start(t, folder, 'destination', ['--config', farFile])
  await pair(source, destination, { via: 'https' })
  return { folder, source, destination, disk }
}

t.jobs = isLong ? 1 : 7

async function attached(agent: Agent, name: string): Promise<string> {
  const { device } = await agent.cli<VolumeView>('volume', 'attach', name)
  return device!
}

/** Zeros everywhere, and every block has its place: what follows needs no room. */
async function filled(device: string): Promise<void> {
  const dd = (from: string, size: string, count: number) =>
    run('dd', [`if=${from}`, `of=${device}`, `bs=${size}`, `count=${count}`, 'oflag=direct', 'conv=fsync'])
  await dd('/dev/urandom', '1M', 16)
  // Less than a block at a time: zeros for a whole block would give its place back.
  await dd('/dev/zero', '16K', 1024)
}

/** A stream whose volume lies on a bad disk, under load from before the disk fails until after it is mended. */
async function streamOn(
  t: Test,
  name: string,
  make: (agent: Agent, disk: PowerCutDevice) => Promise<void>,
  fault: (disk: PowerCutDevice) => Promise<void>,
  rate: number,
) {
  const both = await sites(t, name)
  const { source, folder, disk } = both
  await make(source, disk)
  const device = await attached(source, name)
  await filled(device)
  await mirror(source, name, [name])
  const log = join(folder, 'stamps')
  const writer = startStamp(device, log, { ...load, rate, seed: 11 })
  await delay(500)
  await fault(disk)
  const status = () => source.streamStatus(name)
  const after = async (): Promise<void> => {
    await disk.mend()
    t.ok((await disk.failed()) > 0, `${await disk.failed()} requests have failed`)
    const { writes, errno } = await writer.stop()
    t.not(errno, 0, `the host was told, after ${writes} writes: errno ${errno}`)
    await source.terminate()
    await source.start()
    await source.until(status, ({ state }) => state === 'replicating')
    const again = (await source.cli<VolumeView>('volume', 'show', name)).device!
    const near = stampVerify(again, log, { requireAll: true, blocks })
    t.match(near, { ok: true }, `nothing acknowledged is missing: ${JSON.stringify(near).slice(0, 300)}`)
    await flush(source, name)
    t.equal(await difference(again, await farPath(both, name)), '', 'both sides are equal')
    t.match(await status(), { state: 'replicating', generation: 1 }, 'no new copy')
  }
  return { ...both, device, status, after }
}

const adopted = async (agent: Agent, disk: PowerCutDevice, name: string): Promise<void> => {
  await agent.cli('volume', 'adopt', name, '--path', disk.device)
}

const thin = async (agent: Agent, disk: PowerCutDevice, name: string): Promise<void> => {
  await agent.cli('pool', 'create', `${name}-pool`, '--device', disk.device)
  await agent.cli('volume', 'create', name, '--pool', `${name}-pool`, '--size', '16MiB')
}

async function checkedClean(t: Test, agent: Agent, volume: string, pool: string): Promise<void> {
  await agent.cli('stream', 'remove', volume).catch(() => undefined)
  await agent.cli('volume', 'detach', volume)
  const checked = await agent.cli<PoolCheckView>('pool', 'check', pool)
  t.match(checked, { clean: true }, JSON.stringify(checked.findings))
}

t.test(
  'one flush of an adopted device fails: the stream says so, goes on sending, and a restart mends it',
  async (t) => {
    const name = 'bad-adopted'
    const { status, source, after } = await streamOn(
      t,
      name,
      (agent, disk) => adopted(agent, disk, name),
      (disk) => disk.fail('flush', 0, 1),
      60,
    )
    const told = await source.until(status, ({ state }) => state === 'waiting')
    t.match(told.reason, /BACKING_UNSYNCED.*restart the agent/)
    const { lsn } = told
    await source.until(status, (now) => BigInt(now.lsn.applied) >= BigInt(lsn.journal))
    await after()
  },
)

t.test('a pool that cannot be written: the journal that has what it lost is not given up, however full', async (t) => {
  const name = 'bad-thin'
  const { status, source, after, device } = await streamOn(
    t,
    name,
    (agent, disk) => thin(agent, disk, name),
    (disk) => disk.fail('write', 0, 'all'),
    600,
  )
  const told = await source.until(status, ({ state }) => state === 'blocked', 60_000)
  t.match(told.reason, /restart the agent/)
  const pool = await source.cli<PoolView>('pool', 'show', `${name}-pool`)
  t.match(pool, { state: 'failed', mappedBytes: 16 * MiB })
  await t.rejects(run('dd', ['if=/dev/zero', `of=${device}`, 'bs=64K', 'count=1', 'seek=200', 'oflag=direct']))
  await after()
  await checkedClean(t, source, name, `${name}-pool`)
})

// At length only: the n-th request below is a read, too, now and then.
if (isLong) {
  t.test('a disk that cannot be read stops nobody who does not read it', async (t) => {
    const name = 'bad-read'
    const both = await sites(t, name)
    const { source, folder, disk } = both
    await adopted(source, disk, name)
    const device = await attached(source, name)
    await filled(device)
    await disk.fail('read', 0, 'all')
    await source.cli('stream', 'create', name, '--volume', name, '--destination', 'far', '--epoch', '200ms')
    await source.cli('stream', 'initialize', name)
    const status = () => source.streamStatus(name)
    // What was just written may be read from memory.
    await run('bash', ['-c', 'echo 1 > /proc/sys/vm/drop_caches'])
    const told = await source.until(status, ({ state }) => state === 'waiting' || state === 'replicating')
    t.comment(`${told.state}: ${told.reason}, ${await disk.failed()} reads have failed`)
    const log = join(folder, 'stamps')
    const writer = startStamp(device, log, { ...load, sizes: '4096', rate: 100, seed: 5 })
    await delay(1000)
    await disk.mend()
    await source.until(status, ({ state }) => state === 'replicating', 60_000)
    t.equal((await writer.stop()).errno, 0, 'hosts that write whole blocks see nothing')
    await flush(source, name)
    t.equal(await difference(device, await farPath(both, name)), '', 'both sides are equal')
    t.match(await status(), { generation: 1 })
  })
}

t.test('a pool whose sync failed shows nothing that its volumes never held', async (t) => {
  const name = 'bad-stale'
  const folder = scratchFolder(t, name)
  const disk = await badDisk(t, folder, 'disk', 48 * MiB)
  const source = await Agent.start(t, folder, 'source')
  // What somebody else left on the disk.
  execFileSync('bash', [
    '-c',
    `tr '\\0' 'S' </dev/zero | dd of=${disk.device} bs=1M count=48 iflag=fullblock oflag=direct status=none`,
  ])
  await thin(source, disk, name)
  const device = await attached(source, name)
  const write = (letter: string, at: number) =>
    run('bash', [
      '-c',
      `tr '\\0' ${letter} </dev/zero | dd of=${device} bs=64K seek=${at} count=16 iflag=fullblock oflag=direct conv=notrunc,fsync status=none`,
    ])
  await write('A', 0)
  await disk.fail('write', 0, 'all')
  await t.rejects(write('B', 16), /Input\/output error/, 'the host is told')
  await source.until(
    () => source.cli<{ state: string }>('pool', 'show', `${name}-pool`),
    ({ state }) => state === 'failed',
  )
  await disk.mend()
  await source.terminate()
  await source.start()
  const seen = lettersOf((await source.cli<VolumeView>('volume', 'show', name)).device!, 2 * MiB)
  t.match(seen.slice(0, 16).join(''), /^A+$/, 'what was flushed is there')
  t.match(seen.slice(16, 32).join(''), /^[0B]+$/, 'of what was not, nothing but what was written')
  await checkedClean(t, source, name, `${name}-pool`)
})

/** What each block of 64 KiB holds: a letter, 0 for zeros, or ? for several. */
function lettersOf(device: string, lengthBytes: number): string[] {
  const bytes = Buffer.alloc(lengthBytes)
  const fd = openSync(device, 'r')
  readSync(fd, bytes, 0, lengthBytes, 0)
  closeSync(fd)
  return Array.from({ length: lengthBytes / 65536 }, (_, block) => {
    const piece = bytes.subarray(block * 65536, (block + 1) * 65536)
    const [first] = piece
    if (!piece.every((byte) => byte === first)) return '?'
    return first === 0 ? '0' : String.fromCharCode(first!)
  })
}

t.test(
  'the pool of a destination fails: arrivals wait, the source says why, and a restart there mends it',
  async (t) => {
    const name = 'bad-far'
    const both = await sites(t, name, 'inbound: { pool: bad-far-pool }\n')
    const { source, destination, folder, disk } = both
    await destination.cli('pool', 'create', 'bad-far-pool', '--device', disk.device)
    const { device } = await source.volume(folder, name, '16MiB')
    await mirror(source, name, [name])
    const log = join(folder, 'stamps')
    const writer = startStamp(device, log, { ...load, rate: 60, seed: 6 })
    await delay(500)
    await disk.fail('write', 0, 'all')
    const status = () => source.streamStatus(name)
    const told = await source.until(status, ({ state }) => state === 'waiting')
    t.match(told.reason, /^destination: /)
    t.comment(told.reason)
    const stuck = await destination.inbound(name)
    t.equal(stuck.state, 'stalled')
    t.comment(stuck.reason)
    await disk.mend()
    await destination.terminate()
    await destination.start()
    await source.until(status, ({ state }) => state === 'replicating', 60_000)
    t.equal((await writer.stop()).errno, 0, 'hosts of the source see nothing')
    await flush(source, name)
    const image = await farPath(both, name)
    t.equal(await difference(device, image), '', 'both sides are equal')
    t.match(stampVerify(image, log, { requireAll: true, blocks }), { ok: true })
    t.match(await status(), { generation: 1 }, 'no new copy')
  },
)

t.test('the file system below the file of a pool is full: hosts are told, and go on when it has room', async (t) => {
  const name = 'bad-full'
  const folder = scratchFolder(t, name)
  const small = await mountSmallDisk(24 * MiB)
  t.teardown(() => small.unmount())
  const source = await Agent.start(t, folder, 'source')
  const file = join(small.directory, 'pool')
  await source.cli('pool', 'create', `${name}-pool`, '--file', file, '--size', '64MiB')
  await source.cli('volume', 'create', name, '--pool', `${name}-pool`, '--size', '32MiB')
  const device = await attached(source, name)
  const write = (letter: string, at: number, count: number) =>
    run('bash', [
      '-c',
      `tr '\\0' ${letter} </dev/zero | dd of=${device} bs=64K seek=${at} count=${count} iflag=fullblock oflag=direct conv=notrunc,fsync status=none`,
    ])
  await write('A', 0, 16)
  await t.rejects(write('B', 16, 496), /No space left|Input.output error/, 'the host is told')
  const before = lettersOf(device, 32 * MiB).join('')
  t.match(before, /^A{16}B+[0B?]*0+$/, 'what found room is there, nothing else has changed')
  t.match(await source.cli('pool', 'show', `${name}-pool`), { state: 'online' })
  await run('mount', ['-o', 'remount,size=128M', small.directory])
  await write('C', 16, 496)
  t.match(lettersOf(device, 32 * MiB).join(''), /^A{16}C{496}$/, 'hosts go on, without a restart')
  await checkedClean(t, source, name, `${name}-pool`)
})

t.test('the n-th write, flush or read of a pool fails, for a while: nothing acknowledged is lost', async (t) => {
  const seed = newSeed()
  const random = new Random(seed)
  t.comment(`seed ${seed} (SEED=${seed} repeats its choices)`)
  const name = 'bad-nth'
  const both = await sites(t, name)
  const { source, folder, disk } = both
  await thin(source, disk, name)
  let device = await attached(source, name)
  await mirror(source, name, [name])
  const log = join(folder, 'stamps')
  const status = () => source.streamStatus(name)
  let failed = 0
  for (let round = 1; round <= (isLong ? 15 : 1); round++) {
    const writer = startStamp(device, log, { ...load, rate: 150, seed: seed + round, append: true })
    await delay(300)
    const kind = random.pick(['write', 'flush', 'read'] as const)
    const [skip, count] = [random.below(kind === 'write' ? 60 : 4), random.between(1, 6)]
    await disk.fail(kind, skip, count)
    for (let waitedMs = 0; (await disk.failed()) === failed && waitedMs < 8000; waitedMs += 100) await delay(100)
    await delay(random.between(0, 1500))
    const now = await disk.failed()
    await disk.mend()
    const { errno, writes } = await writer.stop()
    const told = await status()
    t.comment(`${kind} ${skip}+${count}, ${now - failed} failed, ${writes} writes, errno ${errno}: ${told.state}`)
    failed = now
    await (random.chance(0.5) ? source.terminate() : source.kill())
    await source.start()
    await source.until(status, ({ state, catchUp }) => state === 'replicating' && catchUp === null, 60_000)
    device = (await source.cli<VolumeView>('volume', 'show', name)).device!
    const verdict = stampVerify(device, log, { requireAll: true, blocks })
    t.match(verdict, { ok: true }, JSON.stringify(verdict).slice(0, 300))
    await flush(source, name)
    t.equal(await difference(device, await farPath(both, name)), '', 'both sides are equal')
  }
  t.ok(failed > 0, `${failed} requests have failed`)
  t.match(await status(), { generation: 1 }, 'no new copy')
  await checkedClean(t, source, name, `${name}-pool`)
})
