/**
 * A run of the model test: random steps on a pool in another process, and a model in this one that knows what every
 * sector of every volume and snapshot must read as. See content.ts for what is certain after a crash.
 */
import { join } from 'node:path'
import { releaseFolder } from '../../fixtures/leftovers.js'
import { Bench, type Layout } from './bench.js'
import type { OpenSettings } from './child-calls.js'
import { request } from './host-io.js'
import { refreshImage } from './image.js'
import { checkOffline } from './offline-check.js'
import type { OpenFile } from './open-file.js'
import { Operations } from './operations.js'
import { PoolChild } from './pool-child.js'
import { cutPower } from './power-cut.js'
import { Random } from './random.js'
import type { ModelVolume } from './shadow.js'
import { storm } from './storm.js'
import { Mismatch, verifyAll } from './verify.js'

export interface RunOptions {
  readonly seed: number
  readonly steps: number
  /** Where the pool's devices and the mount points are: the caller's, to give back. */
  readonly folder: string
  /** kill -9 between steps and in the midst of running I/O. */
  readonly kills: boolean
  /** Of the kills, some lose what was not durable, as a power cut does. */
  readonly powerCuts: boolean
  /** Stop after so long although steps are left, but not before the figures have reached these. */
  readonly limitMs?: number
  readonly least?: Partial<RunFigures>
}

export interface RunFigures {
  steps: number
  kills: number
  powerCuts: number
  storms: number
  verifications: number
  refusals: number
  checks: number
  /** Snapshots that were written to, at the most at once. */
  written: number
}

/** A write waits so long for space before it is refused. */
const settings: OpenSettings = { waitForSpaceMs: 150 }
const stepsBetweenVerifications = 120
const devicesAtMost = 5

const kinds = {
  ...{ request: 60, createVolume: 2.5, removeVolume: 1, createSnapshot: 4, removeSnapshot: 3, createClone: 1.5 },
  ...{ writeSnapshot: 2.5, discardWrites: 0.8 },
  ...{ rollback: 1.5, resize: 2, rename: 0.7, image: 1.5, tidy: 0.7, attach: 1.5, close: 1.5, look: 3, storm: 2 },
  ...{ reopen: 0.3, kill: 0, extend: 0.1 },
}

class Run {
  readonly #options: RunOptions
  readonly #bench: Bench
  readonly #operations: Operations
  readonly figures: RunFigures = {
    ...{ steps: 0, kills: 0, powerCuts: 0, storms: 0, verifications: 0, refusals: 0, checks: 0, written: 0 },
  }

  constructor(options: RunOptions, layout: Layout) {
    this.#options = options
    this.#bench = new Bench(options.seed, options.folder, layout)
    this.#operations = new Operations(this.#bench)
  }

  get #random(): Random {
    return this.#bench.random
  }

  async begin(sizes: readonly number[]): Promise<void> {
    const { layout } = this.#bench
    const devices = layout.paths.map((path, index) => ({ path, kind: 'file' as const, sizeBytes: sizes[index]! }))
    this.#bench.child = await PoolChild.start(layout.paths, settings, {
      name: 'model',
      devices,
      unitBytes: layout.unitBytes,
      blockBytes: layout.blockBytes,
    })
    await this.#operations.createVolume()
  }

  async step(): Promise<void> {
    const bench = this.#bench
    bench.step += 1
    this.figures.steps += 1
    if (bench.refusals > 0) await this.#makeRoom()
    await this.#one(this.#random.weighted({ ...kinds, kill: this.#options.kills ? 1.5 : 0 }))
    if (bench.step % stepsBetweenVerifications === 0) await this.verify()
  }

  async #one(kind: keyof typeof kinds): Promise<void> {
    const operations = this.#operations
    if (kind === 'request') {
      const volume = operations.someWritable()
      if (volume) await request(this.#bench, volume)
      else await operations.createVolume()
    } else if (kind === 'image') await refreshImage(this.#bench, operations)
    else if (kind === 'attach') await this.#attach()
    else if (kind === 'close') await this.#close()
    else if (kind === 'look') await this.#lookAtSnapshot()
    else if (kind === 'storm') await this.#storm()
    else if (kind === 'reopen') await this.#reopenInGoodOrder()
    else if (kind === 'kill') await this.#kill()
    else if (kind === 'extend') await this.#extend()
    else await operations[kind]()
  }

  async #attach(): Promise<void> {
    const volume = this.#operations.someWritable()
    if (!volume) return
    const file = await this.#bench.open(volume)
    this.#bench.note(`${file.attached ? 'detach' : 'attach'} ${volume.name}`)
    await (file.attached ? file.detach() : file.attach())
  }

  async #close(): Promise<void> {
    const volume = this.#operations.someWritable(({ name }) => this.#bench.files.has(name))
    if (volume) await this.#bench.close(volume)
  }

  async #lookAtSnapshot(): Promise<void> {
    const found = this.#operations.someSnapshot()
    if (found) await this.#verifySnapshot(found.volume, found.snapshot.name, 'running')
  }

  async #extend(): Promise<void> {
    if (this.#bench.layout.paths.length < devicesAtMost) {
      await this.#operations.extend((this.#random.between(1, 5) << 20) + 2 * this.#bench.layout.unitBytes)
    }
  }

  async #makeRoom(): Promise<void> {
    const { shadow } = this.#bench
    this.figures.refusals += this.#bench.refusals
    this.#bench.refusals = 0
    const way = this.#random.weighted({ snapshots: 5, volume: 3, tidy: 2, extend: 0.5 })
    if (way === 'extend') await this.#extend()
    else if (way === 'tidy') await this.#operations.tidy()
    else if (way === 'snapshots') {
      for (let count = this.#random.between(1, 4); count > 0; count--) await this.#operations.removeSnapshot()
    } else {
      const volume = this.#operations.someVolume(
        ({ snapshots }) => ![...snapshots.values()].some(({ hidden }) => hidden),
      )
      if (!volume || shadow.volumes.size < 2) return
      for (const snapshot of [...volume.snapshots.values()]) {
        await this.#operations.closeWritten(snapshot)
        await this.#operations.perform(this.#operations.snapshotRemoval(volume, snapshot.name))
      }
      await this.#bench.close(volume)
      await this.#operations.perform(this.#operations.removal(volume))
    }
  }

  async #storm(): Promise<void> {
    this.figures.storms += 1
    const killed = this.#options.kills && this.#random.chance(0.6)
    await storm(this.#bench, this.#operations, killed)
    if (killed) await this.#recover()
  }

  async #kill(): Promise<void> {
    this.#bench.note('kill')
    this.#bench.killing = true
    await this.#bench.child.kill()
    await this.#recover()
  }

  /** The process is dead. Maybe the power fails too. Then everything must be there that has to be. */
  async #recover(): Promise<void> {
    const bench = this.#bench
    const powerCut = this.#options.powerCuts && this.figures.kills % 2 === 0
    this.figures.kills += 1
    for (const file of bench.files.values()) await file.abandon()
    bench.files.clear()
    if (powerCut) {
      this.figures.powerCuts += 1
      bench.note(`power cut: ${await cutPower(bench.layout.paths, this.#random)}`)
    } else if (this.#random.chance(0.2)) await this.#check()
    for (let again = 0; again < 2 && this.#random.chance(0.25); again++) {
      bench.note('kill during recovery')
      await PoolChild.interrupt(bench.layout.paths, settings, this.#random.below(60))
    }
    bench.killing = false
    bench.child = await PoolChild.start(bench.layout.paths, settings)
    bench.note('opened again')
    const listed = await bench.child.pool('volumes')
    const { pending } = this.#operations
    this.#operations.pending = undefined
    if (pending) {
      const happened = pending.operation.happened(new Map(listed.map((volume) => [volume.name, volume])))
      bench.note(`${pending.operation.text}: ${happened ?? 'perhaps'}`)
      if (happened) pending.operation.apply(pending.issued)
      if (happened === false) pending.operation.attempted?.()
      if (happened === undefined) pending.operation.perhaps?.(pending.issued)
    }
    bench.shadow.clock.releaseAll()
    const wrong = bench.shadow.matchList(listed, powerCut)
    if (wrong.length > 0) throw new Mismatch(wrong.join('\n'))
    await this.verify(powerCut ? 'power cut' : 'process crash', new Map(listed.map((v) => [v.name, v.sizeBytes])))
    bench.shadow.commit(bench.shadow.clock.tick())
  }

  async #reopenInGoodOrder(): Promise<void> {
    const bench = this.#bench
    await this.closePool()
    await this.#check()
    bench.child = await PoolChild.start(bench.layout.paths, settings)
    const wrong = bench.shadow.matchList(await bench.child.pool('volumes'), false)
    if (wrong.length > 0) throw new Mismatch(wrong.join('\n'))
  }

  async closePool(): Promise<void> {
    const bench = this.#bench
    bench.note('close the pool')
    for (const volume of bench.shadow.writable) await bench.close(volume)
    await bench.child.close()
    bench.child = undefined
  }

  async #check(): Promise<void> {
    this.figures.checks += 1
    this.#bench.note('check')
    const findings = await checkOffline(this.#bench.layout.paths)
    if (findings.length > 0) throw new Mismatch(`pool check: ${findings.join('\n  ')}`)
  }

  /** Read every byte of everything, and compare what the pool says is mapped with what is there. */
  async verify(
    after: 'running' | 'process crash' | 'power cut' = 'running',
    sizes?: Map<string, number>,
  ): Promise<void> {
    this.#bench.note('verify everything')
    this.figures.verifications += 1
    await this.#bench.child.own('audit')
    for (const volume of this.#bench.shadow.volumes.values()) {
      await this.#verifyVolume(volume, after, sizes?.get(volume.name))
      for (const name of volume.snapshots.keys()) await this.#verifySnapshot(volume, name, after)
    }
    this.figures.written = Math.max(this.figures.written, this.#bench.shadow.writable.filter(({ of }) => of).length)
  }

  async #verifyVolume(
    volume: ModelVolume,
    after: 'running' | 'process crash' | 'power cut',
    size?: number,
  ): Promise<void> {
    const bench = this.#bench
    const wasOpen = bench.files.has(volume.name)
    const file = await bench.open(volume)
    const { otherwise } = volume
    volume.otherwise = undefined
    const tick = bench.shadow.clock.tick()
    try {
      if (otherwise && volume.content.sectors * 512 !== size) throw new Mismatch('it has the other size')
      await verifyAll(volume.name, file, volume.content, after, bench.origin, tick)
    } catch (error) {
      if (!otherwise || !(error instanceof Mismatch)) throw error
      volume.content = otherwise
      await verifyAll(volume.name, file, volume.content, after, bench.origin, tick)
    }
    await this.#compareMapped(volume, null)
    const [first] = await bench.child.pool('mapped', volume.name, null)
    const next = await bench.child.own('nextMapped', file.mountPoint, 0)
    if (next !== (first?.offset ?? null))
      throw new Mismatch(`${volume.name}: nextMapped() ${next}, not ${first?.offset}`)
    if (!wasOpen && this.#random.chance(0.8)) await bench.close(volume)
  }

  async #verifySnapshot(
    volume: ModelVolume,
    name: string,
    after: 'running' | 'process crash' | 'power cut',
  ): Promise<void> {
    const { content, written } = volume.snapshots.get(name)!
    const bench = this.#bench
    if (written) await this.#verifyWritten(written, after)
    bench.note(`verify ${volume.name}@${name}`)
    const tick = bench.shadow.clock.tick()
    await bench.withSnapshot(volume.name, name, (file: OpenFile) =>
      verifyAll(`${volume.name}@${name}`, file, content, after, bench.origin, tick),
    )
    await this.#compareMapped(volume, name)
  }

  async #verifyWritten(written: ModelVolume, after: 'running' | 'process crash' | 'power cut'): Promise<void> {
    const bench = this.#bench
    const wasOpen = bench.files.has(written.name)
    const file = await bench.open(written)
    const tick = bench.shadow.clock.tick()
    await verifyAll(`${written.name} as it was written to`, file, written.content, after, bench.origin, tick)
    if (!wasOpen && this.#random.chance(0.8)) await bench.close(written)
  }

  /** Every block with data is mapped, and extents are blocks in ascending order. */
  async #compareMapped(volume: ModelVolume, snapshot: string | null): Promise<void> {
    const bench = this.#bench
    const { blockBytes } = bench.layout
    const content = snapshot === null ? volume.content : volume.snapshots.get(snapshot)!.content
    const mapped = new Set<number>()
    let end = 0
    for (const extent of await bench.child.pool('mapped', volume.name, snapshot)) {
      const last = extent.offset + extent.lengthBytes
      const whole = extent.offset % blockBytes === 0 && (last % blockBytes === 0 || last === content.sectors * 512)
      if (extent.offset < end || !whole) throw new Mismatch(`mapped: ${JSON.stringify(extent)} after ${end}`)
      end = last
      for (let offset = extent.offset; offset < last; offset += blockBytes) mapped.add(offset / blockBytes)
    }
    if (end > content.sectors * 512) throw new Mismatch(`mapped goes beyond the end of ${volume.name}`)
    const missing = content.blocksWithData(bench.blockSectors).filter((block) => !mapped.has(block))
    if (missing.length > 0) {
      throw new Mismatch(`${volume.name}@${snapshot}: mapped() leaves out blocks ${missing.slice(0, 8)}`)
    }
  }

  async end(): Promise<void> {
    await this.verify()
    await this.closePool()
    await this.#check()
  }

  async giveUp(error: unknown): Promise<string> {
    let complaints = ''
    try {
      complaints = this.#bench.child.complaints
      await this.#bench.child.kill()
    } catch {
      // There was none.
    }
    for (const file of this.#bench.files.values()) await file.abandon()
    releaseFolder(this.#bench.folder)
    const volume = error instanceof Mismatch ? /^[a-z]+\d+/.exec(error.message)?.[0] : undefined
    return `${this.#bench.trail(volume)}\n${complaints}`
  }
}

/** Random sizes of everything, small enough that units are used again, the log wraps and the pool runs full at times. */
function someLayout(random: Random, folder: string): { layout: Layout; sizes: number[] } {
  const blockBytes = random.pick([4096, 4096, 16_384, 65_536])
  const unitBytes = blockBytes * random.pick([8, 8, 16, 64])
  const sizes = Array.from(
    { length: random.between(1, 3) },
    () => Math.max(2 << 20, unitBytes * 8) + random.below(20 << 20),
  )
  return {
    layout: { blockBytes, unitBytes, paths: sizes.map((_, index) => join(folder, `device-${index}`)) },
    sizes: sizes.map((size) => size - (size % 4096)),
  }
}

/** @throws Error with the seed, the last steps and what is wrong */
export async function runModel(options: RunOptions): Promise<RunFigures> {
  const { layout, sizes } = someLayout(new Random(options.seed ^ 0x5eed), options.folder)
  const run = new Run(options, layout)
  const deadline = Date.now() + (options.limitMs ?? Number.POSITIVE_INFINITY)
  const least = Object.entries(options.least ?? {}) as [keyof RunFigures, number][]
  const goesOn = (): boolean => Date.now() < deadline || least.some(([name, count]) => run.figures[name] < count)
  try {
    await run.begin(sizes)
    for (let step = 0; step < options.steps && goesOn(); step++) await run.step()
    await run.end()
    return run.figures
  } catch (error) {
    const trail = await run.giveUp(error)
    const where = `seed ${options.seed}, step ${run.figures.steps}, ${JSON.stringify(layout)} ${sizes}`
    throw new Error(`${where}\n${trail}\n${(error as Error).stack ?? error}`, { cause: error })
  }
}
