import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import type { InboundView, VolumeView } from '../../../src/api/agent-operations.js'
import { KiB, MiB } from '../../../src/block/units.js'
import { Agent, delay, flush, mirror, pair } from '../../fixtures/agent.js'
import { anotherBoot, PowerCutDevice } from '../../fixtures/power-cut.js'
import { difference, farPath, type Sites } from '../../fixtures/sites.js'
import { stampVerify, startStamp } from '../../fixtures/stamp.js'
import type { Random } from '../../pool/model/random.js'
import { stampBlocks, volumes } from './recording.js'
import { sectorIds } from './slot-host.js'

/** Names are machine-wide. */
const stream = `pc-live-${process.pid}`
const names = { linear: `${stream}-linear`, thin: `${stream}-thin` }
const losers = ['source', 'destination', 'both'] as const

/** What a power cut interrupts: a catch-up is begun by another power cut, at the source. */
export const liveCourses = ['steady', 'initialize', 'catch-up'] as const
export type LiveCourse = (typeof liveCourses)[number]

/** A copy takes it in steps of 32 MiB. */
const linearBytes = 72 * MiB
const diskBytes = 512 * MiB
/** All regions of a round stay in the record, so a catch-up has several epochs. */
const config =
  'journal:\n  segment: 4MiB\n  limit: 32MiB\nregions:\n  size: 64KiB\n  limit: 256MiB\nbuffer:\n  limit: 64MiB\n'
/** Between two blocks that are written there is no gap worth skipping by a copy. */
const dataEveryBytes = 512 * KiB
const stillLimitMs = 60_000

interface Teardown {
  teardown(done: () => Promise<void> | void): void
}

interface Site {
  readonly agent: Agent
  readonly disk: PowerCutDevice
}

/** Two agents, each with all it has on a power-cut device of its own, mirroring a volume on a file and a thin one. */
export class LiveSites {
  readonly #base: string
  readonly #source: Site
  readonly #destination: Site
  readonly #sites: Sites
  #round = 0
  #generation = 1

  private constructor(base: string, source: Site, destination: Site) {
    this.#base = base
    this.#source = source
    this.#destination = destination
    this.#sites = { folder: base, source: source.agent, destination: destination.agent }
  }

  /** @param inPool what arrives lies in a thin pool of the destination; otherwise in files */
  static async start(test: Teardown, base: string, inPool: boolean): Promise<LiveSites> {
    anotherBoot(base)
    const farPool = `${stream}-far-pool`
    const source = await startSite(test, base, 'source', config)
    const farConfig = inPool ? `${config}inbound: { pool: ${farPool} }\n` : config
    const destination = await startSite(test, base, 'destination', farConfig)
    mkdirSync(join(base, 'between'))
    await pair(source.agent, destination.agent, { via: 'folder', folder: join(base, 'between') })
    const { mountPoint } = source.disk
    await source.agent.volume(mountPoint, names.linear, `${linearBytes}`)
    await createPool(source, `${stream}-pool`, '128MiB')
    if (inPool) await createPool(destination, farPool, '320MiB')
    await source.agent.cli('volume', 'create', names.thin, '--pool', `${stream}-pool`, '--size', '4MiB')
    await source.agent.cli('volume', 'attach', names.thin)
    await mirror(
      source.agent,
      stream,
      volumes.map((kind) => names[kind]),
      '100ms',
    )
    return new LiveSites(base, source, destination)
  }

  /** Hosts write, the power goes at one site or both, and comes back. @returns what is wrong then, in words */
  async round(random: Random, course: LiveCourse): Promise<string[]> {
    const wrong: string[] = []
    // In nine rounds each of them has each course once.
    const loser = losers[(this.#round + Math.floor(this.#round / losers.length)) % losers.length]!
    this.#round++
    const devices = await this.#devices()
    for (const device of devices) execFileSync('blkdiscard', ['--force', device], { stdio: 'pipe' })
    await writeHereAndThere(devices[0]!)
    await flush(this.#sites.source, stream)
    const logs = volumes.map((kind) => join(this.#base, `${kind}-${this.#round}.log`))
    const load = { threads: 1, blocks: stampBlocks, seconds: 600, fsyncEvery: random.between(1, 40), rate: 400 }
    const writers = devices.map((device, at) => startStamp(device, logs[at]!, { ...load, seed: random.next() }))
    await delay(random.between(400, 1500))
    await this.#beginCopy(course, random)
    const losing = { source: [this.#source], destination: [this.#destination], both: [this.#destination, this.#source] }
    for (const site of losing[loser]) await losePower(site, this.#base, random)
    if (loser !== 'source') await startAgain(this.#destination, this.#base, random)
    if (loser === 'destination') await this.#sites.source.cli('stream', 'pause', stream)
    const far = await this.#judgeFar(logs, wrong)
    if (loser === 'destination') await this.#sites.source.cli('stream', 'resume', stream)
    else await startAgain(this.#source, this.#base, random)
    for (const writer of writers) await writer.stop()
    const sourceLost = loser !== 'destination' || course === 'catch-up'
    await this.#judgeSource(sourceLost, logs, far, wrong)
    return wrong.map((text) => `${course}, ${loser}: ${text}`)
  }

  /** A copy is under way when it resolves, or was. */
  async #beginCopy(course: LiveCourse, random: Random): Promise<void> {
    if (course === 'steady') return
    if (course === 'catch-up') {
      await losePower(this.#source, this.#base, random)
      await this.#source.agent.start()
    } else {
      await this.#sites.source.cli('stream', 'initialize', stream)
      this.#generation++
    }
    await delay(random.between(0, 600))
  }

  async #devices(): Promise<string[]> {
    const views = volumes.map((kind) => this.#sites.source.get<VolumeView>('volumes', names[kind]))
    return (await Promise.all(views)).map(({ device }) => device!)
  }

  /** Both images are moments of their volumes, also while what is to take their place grows. @returns what they hold */
  async #judgeFar(logs: readonly string[], wrong: string[]): Promise<Uint32Array[]> {
    const deadline = performance.now() + stillLimitMs
    for (;;) {
      const before = await this.#destination.agent.inbound(stream)
      const seen: Uint32Array[] = []
      const found: string[] = []
      for (const [at, kind] of volumes.entries()) {
        const image = await farPath(this.#sites, stream, names[kind])
        const verdict = stampVerify(image, logs[at]!, { blocks: stampBlocks })
        if (!verdict.ok) found.push(`${kind} at the far side: ${JSON.stringify(verdict)}`)
        seen.push(sectorIds(readFileSync(image)))
      }
      const after = await this.#destination.agent.inbound(stream)
      if (showsStates(before) && showsStates(after) && isSame(before, after)) {
        wrong.push(...found)
        return seen
      }
      if (performance.now() > deadline) throw new Error(`no state to look at: ${JSON.stringify(after)}`)
      await delay(100)
    }
  }

  async #judgeSource(hasLost: boolean, logs: string[], far: Uint32Array[], wrong: string[]): Promise<void> {
    const { source } = this.#sites
    const devices = await this.#devices()
    const status = await source.streamStatus(stream)
    const isCaughtUp =
      status.catchUp !== null || (await source.events()).some(({ code }) => code === 'CATCH_UP_STARTED')
    if (hasLost && !isCaughtUp) wrong.push(`nothing is caught up: ${JSON.stringify(status)}`)
    for (const [at, kind] of volumes.entries()) {
      // Nothing was issued since: whatever was acknowledged to be flushed was so before the cut.
      const options = {
        powerCut: Number.MAX_SAFE_INTEGER,
        blocks: stampBlocks,
        ...(hasLost ? {} : { requireAll: true }),
      }
      const verdict = stampVerify(devices[at]!, logs[at]!, options)
      if (!verdict.ok) wrong.push(`${kind} at the source: ${JSON.stringify(verdict)}`)
      const mine = sectorIds(
        execFileSync('dd', [`if=${devices[at]}`, 'bs=1M', 'iflag=direct', 'status=none'], {
          maxBuffer: 2 * linearBytes,
        }),
      )
      const ahead = far[at]!.findIndex((serial, sector) => serial > mine[sector]!)
      if (ahead >= 0) wrong.push(`${kind}: the far side was ahead of the source, in sector ${ahead}`)
    }
    await flush(source, stream)
    for (const [at, kind] of volumes.entries()) {
      const differ = await difference(devices[at]!, await farPath(this.#sites, stream, names[kind]))
      if (differ !== '') wrong.push(`${kind}: the sides differ: ${differ}`)
    }
    // What a catch-up sends again is the same: both sides may be equal before it ends.
    const after = await source.until(
      () => source.streamStatus(stream),
      ({ state }) => state !== 'catching-up',
      stillLimitMs,
    )
    if (after.generation !== this.#generation || after.state !== 'replicating') wrong.push(JSON.stringify(after))
  }
}

async function createPool({ agent, disk }: Site, name: string, size: string): Promise<void> {
  const file = join(disk.mountPoint, 'pool.img')
  await agent.cli('pool', 'create', name, '--file', file, '--size', size, '--unit', '1MiB')
}

async function startSite(test: Teardown, base: string, name: string, config: string): Promise<Site> {
  const folder = join(base, `${name}-disk`)
  mkdirSync(folder)
  const disk = await PowerCutDevice.start(folder, diskBytes, 4096)
  test.teardown(() => disk.close())
  await disk.format('ext4')
  await disk.mount()
  const file = join(base, `${name}.yaml`)
  writeFileSync(file, config)
  const agent = await Agent.start(test, disk.mountPoint, name, ['--config', file])
  return { agent, disk }
}

/** Nothing runs any more, the disk has lost what it had not written, and the machine starts anew. */
async function losePower({ agent, disk }: Site, base: string, random: Random): Promise<void> {
  await agent.killWithDevices()
  const position = await disk.position()
  await disk.unmount()
  await disk.cut(position, random.next(), 4096)
  await disk.adopt()
  anotherBoot(base)
  await disk.mount()
}

/** The power is back; in one case of three it goes once more, while the agent recovers or right behind that. */
async function startAgain(site: Site, base: string, random: Random): Promise<void> {
  await site.agent.start()
  if (!random.chance(1 / 3)) return
  await delay(random.between(0, 500))
  await losePower(site, base, random)
  await site.agent.start()
}

/** Nothing is applied in part: whoever reads the images sees a state. */
function showsStates({ state, reason, appliedEpoch }: InboundView): boolean {
  const waits = state === 'stalled' && reason.startsWith(`epoch ${appliedEpoch + 1} part`)
  return state === 'consistent' || state === 'initializing' || waits
}

function isSame(one: InboundView, other: InboundView): boolean {
  return one.generation === other.generation && one.appliedEpoch === other.appliedEpoch
}

async function writeHereAndThere(device: string): Promise<void> {
  const host = await open(device, 'r+')
  try {
    const block = Buffer.alloc(4096, 1)
    for (let offset = 4 * MiB; offset < linearBytes; offset += dataEveryBytes) await host.write(block, 0, 4096, offset)
    await host.datasync()
  } finally {
    await host.close()
  }
}
