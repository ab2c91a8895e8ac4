/**
 * Disks that are full, and system calls that fail, one after the other, in everything that a write passes through. Hosts
 * see none of it, nothing is told to be kept that is not, and all goes on when the disk does.
 */
import { execFileSync } from 'node:child_process'
import { closeSync, openSync, readdirSync, rmSync, statfsSync, writeFileSync, writeSync } from 'node:fs'
import { basename, join } from 'node:path'
import t, { type Test } from 'tap'
import type { InboundView, StreamView } from '../../src/api/agent-operations.js'
import { epochNumber, KiB, MiB } from '../../src/block/units.js'
import { partFileName } from '../../src/replication-file/part-file-name.js'
import { TEMPORARY_SUFFIX } from '../../src/transport/transport.js'
import { Agent, delay, flush, mirror, pair, tidemark } from '../fixtures/agent.js'
import { type Injection, inject, workersOf } from '../fixtures/inject.js'
import { scratchFolder } from '../fixtures/paths.js'
import { difference, farPath, type Sites } from '../fixtures/sites.js'
import { mountSmallDisk } from '../fixtures/small-disk.js'
import { type StampWriter, stampVerify, startStamp } from '../fixtures/stamp.js'
import { farPool, poolFacts, thinVolume, twoThinSites } from '../fixtures/thin-sites.js'
import { newSeed, Random } from '../pool/model/random.js'

const seed = newSeed()
t.comment(`seed ${seed} (SEED=${seed} repeats it)`)

interface Parts {
  readonly sites: Sites
  /** File systems of their own: the source's state; its journal and replication files; the destination's state; arrivals and images. */
  readonly disks: {
    readonly state: string
    readonly buffer: string
    readonly farState: string
    readonly inbound: string
  }
}

async function sitesOnDisks(t: Test): Promise<Parts> {
  const folder = scratchFolder(t, 'disk-faults')
  const disk = async (sizeBytes: number): Promise<string> => {
    const { directory, unmount } = await mountSmallDisk(sizeBytes)
    t.teardown(() => unmount())
    return directory
  }
  const [state, farState] = [await disk(24 * MiB), await disk(64 * MiB)]
  const [buffer, inbound] = [await disk(160 * MiB), await disk(160 * MiB)]
  const nearConfig = join(folder, 'near.yaml')
  const farConfig = join(folder, 'far.yaml')
  const journal = 'journal: { segment: 4MiB, limit: 64MiB }'
  // So small that the record is written all the time.
  const regions = 'regions: { size: 64KiB, limit: 1MiB }'
  writeFileSync(nearConfig, `buffer: { directory: ${buffer}/b, limit: 64MiB }\n${journal}\n${regions}\n`)
  writeFileSync(farConfig, `inbound: { directory: ${inbound}/i }\n`)
  const source = await Agent.start(t, state, 'source', ['--config', nearConfig])
  const destination = await Agent.start(t, farState, 'destination', ['--config', farConfig])
  await pair(source, destination, { via: 'https' })
  return { sites: { folder, source, destination }, disks: { state, buffer, farState, inbound } }
}

/** One volume with its stream, and a host that writes until the end of its test. */
class Host {
  readonly name: string
  readonly log: string
  readonly #sites: Sites
  #device = ''
  #writer: StampWriter | undefined

  constructor(sites: Sites, name: string) {
    this.#sites = sites
    this.name = name
    this.log = join(sites.folder, `${name}.log`)
  }

  async begin(): Promise<void> {
    const { source, folder } = this.#sites
    const { device } = await source.volume(folder, this.name, '16MiB')
    this.#device = device
    await mirror(source, this.name, [this.name])
    const load = { threads: 2, sizes: '512-65536', rate: 60, seconds: 900, fsyncEvery: 20, seed: 4 }
    this.#writer = startStamp(device, this.log, load)
  }

  /** The host has seen no error, and after what was broken is whole both sides are equal. */
  async end(t: Test): Promise<void> {
    const { source } = this.#sites
    const run = await this.#writer!.stop()
    t.equal(run.errno, 0, `the host has seen nothing in ${run.writes} writes`)
    t.match(stampVerify(this.#device, this.log, { requireAll: true }), { ok: true }, 'nothing acknowledged is missing')
    await flush(source, this.name)
    const far = await farPath(this.#sites, this.name)
    t.equal(await difference(this.#device, far), '', 'both sides are equal')
    t.match(stampVerify(far, this.log, { requireAll: true }), { ok: true })
  }
}

/** Leaves nothing free on a disk. */
class Filler {
  readonly #directory: string
  readonly #file: string

  constructor(directory: string) {
    this.#directory = directory
    this.#file = join(directory, 'filler')
  }

  /** Take what is free, also what was given back since the last time. */
  take(): void {
    const fd = openSync(this.#file, 'a')
    try {
      for (const bytes of [64 * KiB, 4 * KiB]) writeUntilFull(fd, Buffer.alloc(bytes, 1))
    } finally {
      closeSync(fd)
    }
  }

  get isFull(): boolean {
    return statfsSync(this.#directory).bavail === 0
  }

  free(): void {
    rmSync(this.#file)
  }
}

function writeUntilFull(fd: number, piece: Buffer): void {
  try {
    while (writeSync(fd, piece) === piece.length);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
  }
}

interface Seen {
  readonly near: StreamView
  readonly far: InboundView
}

/** How each disk shows that it is full. */
const showsFull: Readonly<Record<keyof Parts['disks'], (now: Seen, before: Seen) => boolean>> = {
  // What is to be remembered has its room in advance: epochs are cut and applied on a disk that has nothing free.
  state: ({ near }, before) => near.epoch.applied > before.near.epoch.cut + 5,
  buffer: ({ near }) => near.state === 'waiting' && near.reason.startsWith('BUFFER_DISK_FULL'),
  farState: ({ near }) => near.state === 'waiting' && near.reason.startsWith('REMOTE_FULL'),
  inbound: ({ far }) => far.state === 'stalled' && far.reason.startsWith('DESTINATION_FULL'),
}

t.test('ENOSPC for a while on each disk in turn: hosts go on, and so does the stream', async (t) => {
  const { sites, disks } = await sitesOnDisks(t)
  const host = new Host(sites, 'full-disks')
  await host.begin()
  const { source, destination } = sites
  // What lacks room later is what arrives, not the image: so the image stays a moment of the source.
  execFileSync('fallocate', ['--length', `${16 * MiB}`, await farPath(sites, host.name)])
  const look = async (): Promise<Seen> => ({
    near: await source.streamStatus(host.name),
    far: await destination.inbound(host.name),
  })
  for (const [title, disk] of Object.entries(disks) as [keyof Parts['disks'], string][]) {
    const before = await look()
    const filler = new Filler(disk)
    const filled = (): Promise<Seen> => {
      filler.take()
      return look()
    }
    const full = await source.until(filled, (now) => filler.isFull && showsFull[title](now, before))
    const { near, far } = full
    t.comment(`${title} full: ${near.state} (${near.reason}); far side ${far.state} (${far.reason})`)
    t.ok(filler.isFull, `${title}: nothing is free`)
    if (title === 'inbound') await staysAMoment(t, sites, host, full)
    filler.free()
    await source.until(look, (now) => now.near.state === 'replicating' && now.far.state === 'consistent')
    await source.cli('stream', 'flush', host.name, '--wait')
    t.match(await source.streamStatus(host.name), { state: 'replicating', generation: 1 }, `${title}: no new copy`)
  }
  await host.end(t)
})

/** Nothing more of the stream is applied while its destination is full, and what is there is a moment of the source. */
async function staysAMoment(t: Test, sites: Sites, { name, log }: Host, { far }: Seen): Promise<void> {
  const image = await farPath(sites, name)
  for (let look = 0; look < 3; look++) {
    const verdict = stampVerify(image, log)
    t.ok(verdict.ok, `${name} at epoch ${far.appliedEpoch}: ${JSON.stringify(verdict)}`)
    t.match(await sites.destination.inbound(name), { state: 'stalled', appliedEpoch: far.appliedEpoch })
    await delay(500)
  }
}

t.test('a pool of the destination that is full: arrivals wait until it is extended, without a new copy', async (t) => {
  const name = 'full-pool'
  const sites = await twoThinSites(t, { withoutFarPool: true, destinationConfig: 'pool:\n  wait: 2s\n' })
  const { source, destination, folder } = sites
  const files = [join(folder, 'first.pool'), join(folder, 'second.pool')] as const
  await destination.cli('pool', 'create', farPool, '--file', files[0], '--size', '24MiB', '--unit', '1MiB')
  const device = await thinVolume(source, name, '64MiB')
  await mirror(source, name, [name])
  const log = join(folder, `${name}.log`)
  const writer = startStamp(device, log, { threads: 2, sizes: '512-65536', rate: 200, seconds: 900, seed })
  const inbound = (): Promise<InboundView> => destination.inbound(name)
  // For a while: of a batch that does not fit the first epochs may.
  let since = performance.now()
  let last = -1
  const stalled = await source.until(inbound, ({ state, appliedEpoch }) => {
    if (state !== 'stalled' || appliedEpoch !== last) since = performance.now()
    last = appliedEpoch
    return performance.now() - since > 5000
  })
  t.match(stalled.reason, /BACKING_FULL.*pool extend/, stalled.reason)
  t.match(await poolFacts(destination, farPool), { state: 'full' })
  const image = await farPath(sites, name)
  // Blocks of epochs that were begun may be there already: of each block the source has held what is there.
  t.match(stampVerify(image, log), { torn: 0, foreign: 0 })
  await destination.cli('pool', 'extend', farPool, '--file', files[1], '--size', '256MiB')
  await source.until(
    inbound,
    ({ state, appliedEpoch }) => state === 'consistent' && appliedEpoch > stalled.appliedEpoch,
  )
  t.equal((await writer.stop()).errno, 0, 'hosts have seen nothing')
  await flush(source, name)
  t.equal(await difference(device, image), '', 'both sides are equal')
  t.match(stampVerify(image, log, { requireAll: true }), { ok: true })
  t.match(await source.streamStatus(name), { state: 'replicating', generation: 1 }, 'no new copy')
  await destination.terminate()
  const { code, json } = await tidemark(['--json', 'pool', 'check', ...files])
  t.match({ code, json }, { code: 0, json: { clean: true, findings: [] } })
})

const isLong = process.env.TORTURE_ROUNDS !== undefined

/** Of each sweep one fault, at length one of each kind: the n-th call of each thread, or that and all after it. */
function faultsOf(random: Random): Pick<Injection, 'error' | 'when'>[] {
  const all = (['EIO', 'ENOSPC'] as const).flatMap((error) =>
    [`${random.between(1, 3)}` as const, `${random.between(1, 2)}+` as const].map((when) => ({ error, when })),
  )
  return isLong ? all : [random.pick(all)]
}

/** Names of files that are to come: strace knows no folders. */
function partNames({ generation, epoch }: StreamView): string[] {
  return Array.from({ length: 500 }, (_, index) =>
    partFileName({ generation, epoch: epochNumber(epoch.cut + index + 1), part: 0, partCount: 1 }),
  )
}

interface Sweep {
  readonly title: string
  readonly pid: () => number
  readonly calls: readonly string[]
  /** Which files, given the names of the parts to come; default: any. */
  readonly paths?: (parts: readonly string[]) => string[]
  /** Has calls made, where the load makes none. */
  readonly provoke?: () => Promise<void>
  /** What the stream says of it. */
  readonly event?: string
  /** A call that fails once is made again, and nothing is said. */
  readonly madeAgain?: boolean
}

const one = (pids: number[]): number => {
  if (pids.length !== 1) throw new Error(`${pids.length} such workers`)
  return pids[0]!
}

/** The one folder or file of this name somewhere below a folder. */
function below(folder: string, name: string): string {
  const found = readdirSync(folder, { recursive: true, encoding: 'utf8' }).find((each) => basename(each) === name)
  if (found === undefined) throw new Error(`no ${name} in ${folder}`)
  return join(folder, found)
}

t.test('the n-th call of each kind fails, in each process a write passes through', async (t) => {
  const random = new Random(seed)
  const { sites, disks } = await sitesOnDisks(t)
  const host = new Host(sites, 'bad-calls')
  await host.begin()
  const { source, destination } = sites
  const status = (): Promise<StreamView> => source.streamStatus(host.name)
  const saidOf = async (code: string): Promise<number> =>
    (await source.events()).filter((event) => event.code === code).length
  const packer = (): number => one(workersOf(source.pid, 'pack-worker'))
  const destager = (): number => one(workersOf(destination.pid, 'destage-worker'))
  const near = join(disks.buffer, 'b')
  const segments = (): string[] => {
    const journal = below(near, 'journal')
    const spares = Array.from({ length: 200 }, (_, index) => `spare-${index}.seg`)
    return [...readdirSync(journal), ...spares, 'new.tmp'].map((name) => join(journal, name))
  }
  const files = (await status()).buffer.directory
  const inbox = below(join(destination.state, 'inbox'), (await status()).id)
  const arrival = below(join(disks.inbound, 'i'), 'arrival')
  const copies = (parts: readonly string[]): string[] =>
    parts.map((name) => join(arrival, `${name}.${destination.pid}.tmp`))
  let moves = 0
  /** A move of files that wait. */
  const moveBuffer = async (): Promise<void> => {
    await source.cli('stream', 'pause', host.name)
    await source.until(status, ({ epoch }) => epoch.cut > epoch.sent + 15)
    await source.cli('buffer', 'move', host.name, join(disks.buffer, `moved-${++moves}`), '--wait')
    await source.cli('stream', 'resume', host.name)
  }
  const sweeps: Sweep[] = [
    { title: 'source buffer', pid: packer, calls: ['fdatasync'] },
    { title: 'source buffer', pid: packer, calls: ['fsync'] },
    { title: 'source buffer', pid: packer, calls: ['rename'] },
    { title: 'source buffer', pid: packer, calls: ['openat'] },
    {
      title: 'source buffer',
      pid: packer,
      calls: ['pwrite64'],
      paths: (parts) => parts.map((name) => join(files, `${name}.tmp`)),
    },
    {
      title: 'source buffer',
      pid: () => source.pid,
      calls: ['unlink'],
      paths: (parts) => parts.map((name) => join(files, name)),
    },
    { title: 'images', pid: destager, calls: ['fdatasync'] },
    { title: 'images', pid: destager, calls: ['pwrite64'] },
    { title: 'images', pid: destager, calls: ['openat'] },
    { title: 'arrival buffer', pid: () => destination.pid, calls: ['rename'] },
    { title: 'arrival buffer', pid: () => destination.pid, calls: ['unlink'] },
    { title: 'arrival buffer', pid: () => destination.pid, calls: ['fsync'] },
    { title: 'arrival buffer', pid: () => destination.pid, calls: ['mkdir'] },
    { title: 'arrival buffer', pid: () => destination.pid, calls: ['write'], paths: copies },
    {
      title: 'arrival buffer',
      pid: () => destination.pid,
      calls: ['openat'],
      paths: (parts) => [...copies(parts), ...parts.map((name) => join(arrival, name)), arrival],
    },
    {
      title: 'inbox',
      pid: () => destination.pid,
      calls: ['pwrite64', 'pwritev'],
      paths: (parts) => parts.map((name) => join(inbox, name + TEMPORARY_SUFFIX)),
    },
    { title: 'journal', pid: () => source.pid, calls: ['fdatasync'], paths: segments, event: 'STREAM_MAPPING' },
    {
      title: 'journal',
      pid: () => source.pid,
      calls: ['pwrite64', 'fallocate'],
      paths: segments,
      event: 'STREAM_MAPPING',
      madeAgain: true,
    },
    { title: 'source buffer', pid: () => source.pid, calls: ['link'], provoke: moveBuffer },
  ]
  let faults = 0
  const fail = async (sweep: Sweep, fault: Pick<Injection, 'error' | 'when'>): Promise<void> => {
    const { title, pid, calls, paths, provoke, event, madeAgain = false } = sweep
    const before = await status()
    const said = event === undefined || (madeAgain && !fault.when.endsWith('+')) ? undefined : await saidOf(event)
    const tracer = await inject({ pid: pid(), calls, ...fault, ...(paths && { paths: paths(partNames(before)) }) })
    try {
      await provoke?.()
      for (let waitedMs = 0; tracer.count === 0 && waitedMs < 60_000; waitedMs += 100) await delay(100)
      if (said !== undefined) await source.until(async () => (await saidOf(event!)) > said, Boolean)
      await delay(300)
    } finally {
      await tracer.stop()
    }
    const where = `${title}: ${fault.error} of ${calls.join(' and ')} ${fault.when}`
    t.ok(tracer.count > 0, `${where}: ${tracer.count} calls have failed`)
    faults++
  }
  const recovers = async (title: string, generation: number): Promise<void> => {
    // What the far side said of the fault may be heard a moment later: what is looked at is one view, not the next one too.
    const recovered = await source.until(status, ({ state }) => ['replicating', 'diverged'].includes(state), 120_000)
    t.match(recovered, { state: 'replicating', generation }, `${title}: no new copy`)
    await source.cli('stream', 'flush', host.name, '--wait')
    t.equal((await status()).generation, generation, `${title}: nor when all has arrived`)
    t.ok(source.running && destination.running, `${title}: both agents run`)
  }
  for (const sweep of sweeps) {
    for (const { error, when } of faultsOf(random)) {
      const { generation } = await status()
      // As many threads may make them as there are calls.
      const ofFew = when.endsWith('+') ? '1+' : '1'
      await fail(sweep, { error, when: sweep.provoke ? ofFew : when })
      await recovers(`${sweep.title}: ${sweep.calls.join(' and ')}`, generation)
    }
  }
  t.equal(await saidOf('STREAM_DIVERGED'), 0, 'a journal that fails ends in a mapping, never in a new copy')

  // Without its record a stream goes on; when it loses the journal as well nobody knows what the far side lacks.
  const record = (): string[] => [below(near, 'regions')]
  const onRecord = { title: 'region record', pid: () => source.pid, paths: record, event: 'REGIONS_UNWRITABLE' }
  for (const calls of [['pwrite64'], ['fdatasync']]) {
    const { generation } = await status()
    await fail({ ...onRecord, calls }, random.pick(faultsOf(random)))
    await recovers(`region record: ${calls}`, generation)
    await fail(
      { title: 'journal', pid: () => source.pid, calls: ['fdatasync'], paths: segments, event: 'STREAM_DIVERGED' },
      { error: 'EIO', when: '1' },
    )
    t.match(await status(), { state: 'diverged', generation }, 'record and journal lost')
    await source.cli('stream', 'initialize', host.name, '--wait')
    await recovers('record and journal lost, initialized', generation + 1)
  }
  t.comment(JSON.stringify({ faults }))
  await host.end(t)
})
