/** Changes to the pool's catalog, chosen at random: each is asked of the pool and then done in the model. */
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import type { ImageOrigin, ThinVolumeFacts } from '../../../src/pool/thin-pool.js'
import type { Bench } from './bench.js'
import { Content } from './content.js'
import { ChildGone, PoolError } from './pool-child.js'
import type { ModelSnapshot, ModelVolume } from './shadow.js'
import { sectorBytes } from './stamps.js'

export interface Operation {
  readonly text: string
  call(): Promise<unknown>
  /** The same in the model. `issued`: tick at which it was asked for. */
  apply(issued: number): void
  /** Whether it happened, by what the pool lists after a crash; undefined when that does not tell: see `perhaps`. */
  happened(listed: ReadonlyMap<string, ThinVolumeFacts>): boolean | undefined
  /** In the model: it may have happened or not. */
  perhaps?(issued: number): void
  /** In the model: it did not happen, and may have left traces. */
  attempted?(): void
  /** A power cut may undo it. */
  readonly volatile?: boolean
  /** It needs space: it may be refused. */
  readonly needsSpace?: boolean
}

/** The operation that was under way when the process died, for reopen(). */
export interface Pending {
  readonly operation: Operation
  readonly issued: number
}

function isBusy({ written }: ModelSnapshot, busy: ReadonlySet<ModelVolume>): boolean {
  return written !== undefined && busy.has(written)
}

const limits = { volumes: 7, snapshots: 5, mebibytes: 8 }

function isRefusal({ code, message }: PoolError): boolean {
  return ['POOL_FULL', 'POOL_NEARLY_FULL'].includes(code) || (code === 'IO_FAILED' && /No space|ENOSPC/.test(message))
}

export class Operations {
  readonly #bench: Bench
  /** Undefined when nothing is under way. */
  pending: Pending | undefined

  constructor(bench: Bench) {
    this.#bench = bench
  }

  /** @returns whether it was done: it may be refused for want of space. @throws ChildGone with `pending` left set */
  async perform(operation: Operation): Promise<boolean> {
    const bench = this.#bench
    bench.note(operation.text)
    const issued = bench.shadow.clock.hold()
    this.pending = { operation, issued }
    try {
      await operation.call()
    } catch (error) {
      if (error instanceof ChildGone) throw error
      this.pending = undefined
      bench.shadow.clock.release(issued)
      if (operation.needsSpace && error instanceof PoolError && isRefusal(error)) {
        operation.attempted?.()
        bench.note(`refused: ${error.code}`)
        bench.refusals += 1
        return false
      }
      throw new Error(`${operation.text}: ${(error as Error).message}`, { cause: error })
    }
    operation.apply(issued)
    this.pending = undefined
    bench.shadow.clock.release(issued)
    if (!operation.volatile) bench.shadow.commit(issued)
    return true
  }

  someVolume(where: (volume: ModelVolume) => boolean = () => true): ModelVolume | undefined {
    const volumes = [...this.#bench.shadow.volumes.values()].filter(where)
    return volumes.length === 0 ? undefined : this.#bench.random.pick(volumes)
  }

  someSnapshot(visible = false): { volume: ModelVolume; snapshot: ModelSnapshot } | undefined {
    const all = [...this.#bench.shadow.volumes.values()].flatMap((volume) =>
      [...volume.snapshots.values()].map((snapshot) => ({ volume, snapshot })),
    )
    const eligible = all.filter(({ snapshot }) => !visible || !snapshot.hidden)
    return eligible.length === 0 ? undefined : this.#bench.random.pick(eligible)
  }

  /** A volume, or what is written to a snapshot. */
  someWritable(where: (volume: ModelVolume) => boolean = () => true): ModelVolume | undefined {
    const writable = this.#bench.shadow.writable.filter(where)
    return writable.length === 0 ? undefined : this.#bench.random.pick(writable)
  }

  async createVolume(): Promise<void> {
    const { random, shadow, blockSectors } = this.#bench
    if (shadow.volumes.size >= limits.volumes) return
    const sectors = random.chance(0.3)
      ? random.between(1, limits.mebibytes * 2048)
      : blockSectors * random.between(1, Math.ceil((limits.mebibytes * 2048) / blockSectors))
    await this.perform(this.creation(shadow.newName('v'), sectors))
  }

  creation(name: string, sectors: number): Operation {
    const { child, shadow } = this.#bench
    return {
      text: `create ${name} of ${sectors} sectors`,
      call: () => child.pool('createVolume', name, sectors * sectorBytes),
      apply: () => shadow.add(name, new Content(sectors)),
      happened: (listed) => listed.has(name),
      needsSpace: true,
    }
  }

  async removeVolume(): Promise<void> {
    const volume = this.someVolume(({ snapshots }) => snapshots.size === 0)
    if (!volume) return
    await this.#bench.close(volume)
    await this.perform(this.removal(volume))
  }

  removal(volume: ModelVolume): Operation {
    const { child, shadow } = this.#bench
    const { name } = volume
    return {
      text: `remove ${name}`,
      call: () => child.pool('removeVolume', name),
      apply: () => shadow.volumes.delete(name),
      happened: (listed) => !listed.has(name),
    }
  }

  /** Also while it is written. */
  async createSnapshot(volume = this.someVolume()): Promise<void> {
    const { random, shadow } = this.#bench
    if (!volume || volume.snapshots.size >= limits.snapshots) return
    await this.perform(this.snapshot(volume, shadow.newName('s'), { durable: random.chance(0.6) }))
  }

  snapshot(volume: ModelVolume, name: string, options: { hidden?: boolean; durable?: boolean }): Operation {
    const { child, shadow } = this.#bench
    const durable = options.durable !== false
    return {
      text: `snapshot ${volume.name}@${name}${durable ? '' : ' not durable'}`,
      call: () => child.pool('createSnapshot', volume.name, name, options),
      apply: (issued) => {
        const content = volume.content.freeze(issued)
        volume.snapshots.set(name, {
          name,
          content,
          hidden: options.hidden ?? false,
          made: shadow.clock.tick(),
          durable,
          written: undefined,
        })
      },
      happened: (listed) => listed.get(volume.name)?.snapshots.some((snapshot) => snapshot.name === name) ?? false,
      volatile: !durable,
      needsSpace: true,
    }
  }

  /** @param busy what has to stay open */
  async removeSnapshot(busy: ReadonlySet<ModelVolume> = new Set()): Promise<void> {
    const found = this.someSnapshot(true)
    if (!found || isBusy(found.snapshot, busy)) return
    await this.closeWritten(found.snapshot)
    await this.perform(this.snapshotRemoval(found.volume, found.snapshot.name))
  }

  async closeWritten({ written }: ModelSnapshot): Promise<void> {
    if (written) await this.#bench.close(written)
  }

  /** A host begins to write to a snapshot that nobody wrote to. */
  async writeSnapshot(): Promise<void> {
    const { child, shadow } = this.#bench
    const found = this.someSnapshot(true)
    if (!found || found.snapshot.written) return
    const { volume, snapshot } = found
    await this.perform({
      text: `write to ${volume.name}@${snapshot.name}`,
      call: () => child.own('beginToWrite', volume.name, snapshot.name),
      apply: (issued) => shadow.write(volume, snapshot, snapshot.content.freeze(issued)),
      // Nothing was written: nobody sees it.
      happened: () => false,
      needsSpace: true,
    })
  }

  /** @param busy what has to stay open */
  async discardWrites(busy: ReadonlySet<ModelVolume> = new Set()): Promise<void> {
    const { child } = this.#bench
    const written = this.someWritable(({ of }) => of !== undefined)
    const snapshot = written?.of?.volume.snapshots.get(written.of.snapshot)
    if (!written?.of || !snapshot || isBusy(snapshot, busy)) return
    const { volume } = written.of
    await this.closeWritten(snapshot)
    await this.perform({
      text: `discard what was written to ${written.name}`,
      call: () => child.pool('discardWrites', volume.name, snapshot.name),
      apply: () => {
        snapshot.written = undefined
      },
      happened: (listed) =>
        listed.get(volume.name)?.snapshots.find(({ name }) => name === snapshot.name)?.writtenBytes === null,
    })
  }

  /** Hidden snapshots that no image needs any more go. Sometimes an image becomes a volume like others first. */
  async tidy(): Promise<void> {
    const { random, shadow } = this.#bench
    const volumes = [...shadow.volumes.values()]
    const image = this.someVolume((volume) => volume.image !== null)
    if (image && random.chance(0.4)) await this.perform(this.setImage(image, null))
    const needed = new Set(volumes.flatMap(({ image }) => (image ? [image.base, image.own] : [])))
    for (const volume of volumes) {
      for (const { name, hidden } of [...volume.snapshots.values()]) {
        if (hidden && !needed.has(name)) await this.perform(this.snapshotRemoval(volume, name))
      }
    }
  }

  /** Add a device, a file that is made for it. */
  async extend(sizeBytes: number): Promise<void> {
    const { child, layout, folder } = this.#bench
    const path = join(folder, `device-${layout.paths.length}`)
    await this.perform({
      text: `extend by ${sizeBytes} bytes`,
      call: async () => {
        await child.pool('extend', path, sizeBytes)
        layout.paths.push(path)
      },
      apply: () => undefined,
      happened: () => false,
    })
  }

  snapshotRemoval(volume: ModelVolume, name: string): Operation {
    const { child } = this.#bench
    return {
      text: `remove ${volume.name}@${name}`,
      call: () => child.pool('removeSnapshot', volume.name, name),
      apply: () => volume.snapshots.delete(name),
      happened: (listed) => !listed.get(volume.name)?.snapshots.some((snapshot) => snapshot.name === name),
    }
  }

  async createClone(): Promise<void> {
    const { child, shadow } = this.#bench
    const found = this.someSnapshot()
    if (!found || shadow.volumes.size >= limits.volumes) return
    const { volume, snapshot } = found
    const name = shadow.newName('c')
    await this.perform({
      text: `clone ${volume.name}@${snapshot.name} as ${name}`,
      call: () => child.pool('createClone', name, volume.name, snapshot.name),
      apply: (issued) => shadow.add(name, snapshot.content.freeze(issued)),
      happened: (listed) => listed.has(name),
      needsSpace: true,
    })
  }

  /** @param busy volumes that have to stay open */
  async rollback(busy: ReadonlySet<ModelVolume> = new Set()): Promise<void> {
    const { child } = this.#bench
    const found = this.someSnapshot(true)
    if (!found || busy.has(found.volume)) return
    const { volume, snapshot } = found
    await this.#bench.close(volume)
    const apply = (issued: number): void => {
      volume.content = snapshot.content.freeze(issued)
    }
    await this.perform({
      text: `rollback ${volume.name} to ${snapshot.name}`,
      call: () => child.pool('rollback', volume.name, snapshot.name),
      apply,
      happened: () => undefined,
      perhaps: (issued) => {
        volume.otherwise = volume.content
        apply(issued)
      },
    })
  }

  async resize(growOnly = false): Promise<void> {
    const { random, blockSectors } = this.#bench
    const volume = this.someVolume()
    if (!volume) return
    const most = limits.mebibytes * 2048
    const now = volume.content.sectors
    const grow = growOnly || random.chance(0.6)
    if (grow && now >= most) return
    const wanted = grow ? random.between(now + 1, most) : random.between(1, now)
    const sectors = random.chance(0.5) ? wanted : Math.ceil(wanted / blockSectors) * blockSectors
    if (sectors < now) await this.#bench.close(volume)
    await this.perform(this.resizing(volume, sectors))
  }

  resizing(volume: ModelVolume, sectors: number): Operation {
    const { child, blockSectors } = this.#bench
    return {
      text: `resize ${volume.name} from ${volume.content.sectors} to ${sectors} sectors`,
      call: () => child.pool('resizeVolume', volume.name, sectors * sectorBytes),
      apply: () => volume.content.resize(sectors),
      happened: (listed) => listed.get(volume.name)?.sizeBytes === sectors * sectorBytes,
      needsSpace: true,
      // The rest of the last block that stays is cleared first.
      attempted: () => {
        const { content } = volume
        const end = Math.min(content.sectors, Math.ceil(sectors / blockSectors) * blockSectors)
        if (sectors < end) content.issue(sectors, end - sectors, () => 0)
      },
    }
  }

  async rename(): Promise<void> {
    const { child, shadow } = this.#bench
    const volume = this.someVolume()
    if (!volume) return
    const { name } = volume
    await this.#bench.close(volume)
    const newName = shadow.newName('n')
    await this.perform({
      text: `rename ${name} to ${newName}`,
      call: () => child.pool('renameVolume', name, newName),
      apply: () => {
        const written = [...volume.snapshots.values()].flatMap((each) => each.written ?? [])
        const before = written.map((each) => [each.name, each] as const)
        shadow.volumes.delete(name)
        volume.name = newName
        shadow.volumes.set(newName, volume)
        for (const [old, each] of before) this.#bench.renamed(old, each)
      },
      happened: (listed) => listed.has(newName),
    })
  }

  setImage(volume: ModelVolume, image: ImageOrigin | null): Operation {
    const { child } = this.#bench
    return {
      text: `image of ${volume.name}: ${JSON.stringify(image)}`,
      call: () => child.pool('setImage', volume.name, image),
      apply: () => {
        volume.image = image
      },
      happened: (listed) => isDeepStrictEqual(listed.get(volume.name)?.image, image),
    }
  }
}
