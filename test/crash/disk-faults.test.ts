/**
 * Disks that are full, and system calls that fail, one after the other, in everything that a write passes through. Hosts
 * see none of it, nothing is told to be kept that is not, and all goes on when the disk does.
 */
import { closeSync, openSync, readdirSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { MiB } from '../../src/block/units.js'
import { Agent, delay, flush, mirror, pair } from '../fixtures/agent.js'
import { type Injection, inject, workersOf } from '../fixtures/inject.js'
import { scratchFolder } from '../fixtures/paths.js'
import { difference, farPath, type Sites } from '../fixtures/sites.js'
import { mountSmallDisk } from '../fixtures/small-disk.js'
import { type StampWriter, stampVerify, startStamp } from '../fixtures/stamp.js'

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
  writeFileSync(nearConfig, `buffer: { directory: ${buffer}/b, limit: 64MiB }\n${journal}\n`)
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
  #image = ''

  constructor(sites: Sites, name: string) {
    this.#sites = sites
    this.name = name
    this.log = join(sites.folder, `${name}.log`)
  }

  get image(): string {
    return this.#image
  }

  async begin(): Promise<void> {
    const { source, folder } = this.#sites
    const { device, path } = await source.volume(folder, this.name, '16MiB')
    this.#device = device
    this.#image = path
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

/** Leave nothing free. */
function fill(directory: string): { free(): void } {
  const file = join(directory, 'filler')
  const fd = openSync(file, 'w')
  const piece = Buffer.alloc(64 * 1024, 1)
  try {
    for (;;) writeSync(fd, piece)
  } catch {
    // It is full.
  } finally {
    closeSync(fd)
  }
  return { free: () => rmSync(file) }
}

t.test('ENOSPC for a while on each disk in turn: hosts go on, and so does the stream', async (t) => {
  const { sites, disks } = await sitesOnDisks(t)
  const host = new Host(sites, 'full-disks')
  await host.begin()
  const { source, destination } = sites
  const stateOf = async (): Promise<string> => (await source.streamStatus(host.name)).state
  for (const [title, disk] of Object.entries(disks)) {
    const filled = fill(disk)
    await delay(2000)
    const [near, far] = [await source.streamStatus(host.name), await destination.inbound(host.name)]
    t.comment(`${title} full: ${near.state} (${near.reason}); far side ${far.state} (${far.reason})`)
    t.ok(near.state !== 'failed', `${title}: the source gives nothing up`)
    filled.free()
    await source.until(stateOf, (state) => state === 'replicating', 60_000)
    await source.cli('stream', 'flush', host.name, '--wait')
    t.match(await source.streamStatus(host.name), { state: 'replicating', generation: 1 }, `${title}: no new copy`)
  }
  await host.end(t)
})

const isLong = process.env.TORTURE_ROUNDS !== undefined

/** Of each sweep one fault; at length all of them. */
function faultsOf(index: number): (readonly [Injection['error'], Injection['when']])[] {
  const all = [
    ['EIO', '1'],
    ['ENOSPC', '2+'],
    ['ENOSPC', '1'],
    ['EIO', '3+'],
  ] as const
  return isLong ? [...all] : [all[index % 2]!]
}

interface Sweep {
  readonly title: string
  readonly pid: () => number
  readonly calls: readonly string[]
  readonly paths?: () => string[]
  /** What fails may end the stream's journal: then a new copy is the way back. */
  readonly mayDiverge?: boolean
}

t.test('the n-th call of each kind fails, in each process a write passes through', async (t) => {
  const { sites, disks } = await sitesOnDisks(t)
  const host = new Host(sites, 'bad-calls')
  await host.begin()
  const { source, destination } = sites
  const one = (pids: number[]): number => {
    if (pids.length === 0) throw new Error('no such worker')
    return pids[0]!
  }
  const segments = (): string[] => {
    const all = readdirSync(join(disks.buffer, 'b'), { recursive: true, encoding: 'utf8' })
    const journal = all.find((name) => name.endsWith('.seg'))
    if (!journal) throw new Error('no journal')
    const folder = join(disks.buffer, 'b', journal, '..')
    return [
      ...all.filter((name) => name.endsWith('.seg')).map((name) => join(disks.buffer, 'b', name)),
      join(folder, 'new.tmp'),
    ]
  }
  const sweeps: Sweep[] = [
    { title: 'source buffer', pid: () => one(workersOf(source.pid, 'pack-worker')), calls: ['fdatasync', 'fsync'] },
    { title: 'source buffer', pid: () => one(workersOf(source.pid, 'pack-worker')), calls: ['rename'] },
    { title: 'source buffer', pid: () => one(workersOf(source.pid, 'pack-worker')), calls: ['openat'] },
    { title: 'images', pid: () => one(workersOf(destination.pid, 'destage-worker')), calls: ['fdatasync'] },
    { title: 'images', pid: () => one(workersOf(destination.pid, 'destage-worker')), calls: ['pwrite64'] },
    { title: 'images', pid: () => one(workersOf(destination.pid, 'destage-worker')), calls: ['openat'] },
    { title: 'arrival buffer', pid: () => destination.pid, calls: ['rename', 'unlink'] },
    { title: 'arrival buffer', pid: () => destination.pid, calls: ['fsync'] },
    { title: 'journal', pid: () => source.pid, calls: ['fdatasync'], paths: segments, mayDiverge: true },
    { title: 'journal', pid: () => source.pid, calls: ['pwrite64', 'fallocate'], paths: segments, mayDiverge: true },
  ]
  let injected = 0
  for (const [index, { title, pid, calls, paths, mayDiverge = false }] of sweeps.entries()) {
    for (const [error, when] of faultsOf(index)) {
      const before = await source.streamStatus(host.name)
      const tracer = await inject({ pid: pid(), calls, error, when, ...(paths && { paths: paths() }) })
      for (let waitedMs = 0; tracer.count === 0 && waitedMs < 10_000; waitedMs += 100) await delay(100)
      await delay(300)
      const { count } = tracer
      await tracer.stop()
      injected += count
      const where = `${title}: ${error} of ${calls.join(' and ')} ${when}, ${count} times`
      const settled = await source.until(
        () => source.streamStatus(host.name),
        ({ state }) => state === 'replicating' || state === 'diverged',
        60_000,
      )
      t.comment(`${where}: ${settled.state}${settled.state === 'diverged' ? ` (${settled.reason})` : ''}`)
      if (!mayDiverge) t.equal(settled.state, 'replicating', where)
      if (settled.state === 'diverged') await source.cli('stream', 'initialize', host.name, '--wait')
      await source.cli('stream', 'flush', host.name, '--wait')
      const after = await source.streamStatus(host.name)
      const copies = settled.state === 'diverged' ? 1 : 0
      t.equal(after.generation, before.generation + copies, `${where}: a new copy only when it had to be`)
      t.ok(source.running && destination.running, `${where}: both agents run`)
    }
  }
  t.ok(injected >= sweeps.length, `${injected} calls have failed`)
  await host.end(t)
})
