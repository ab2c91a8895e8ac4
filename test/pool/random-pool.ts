import assert from 'node:assert/strict'
import { StorageError } from '../../src/block/storage-error.js'
import { MiB } from '../../src/block/units.js'
import { type FakeVolume, RefusedError } from './fake-native.js'
import type { FakeRig } from './fake-rig.js'
import type { Random } from './model/random.js'
import { SectorModel, sectorBytes, stamped } from './sector-model.js'

interface Snapshot {
  readonly name: string
  readonly model: SectorModel
  /** What hosts made of it. */
  written?: Volume | undefined
}

interface Volume {
  name: string
  readonly number: number
  model: SectorModel
  snapshots: Snapshot[]
  open: { fake: FakeVolume; close: () => Promise<void> } | undefined
}

function writtenTo({ snapshots }: Volume): Volume[] {
  return snapshots.flatMap(({ written }) => written ?? [])
}

type Loose = 'no' | 'for-now' | 'for-good'

const volumeLimit = 6
const snapshotLimit = 4
const sizes = [MiB / 4, MiB / 2, MiB - 512]

/** Random operations on a pool, compared with what a host would expect. The log of what was done is for who looks. */
export class RandomPool {
  readonly rig: FakeRig
  readonly done: string[] = []
  readonly #random: Random
  #volumes: Volume[] = []
  #next = 1
  #stamp = 1
  refused = 0

  constructor(rig: FakeRig, random: Random) {
    this.rig = rig
    this.#random = random
  }

  async step(crashes: 'none' | 'process' | 'power' | 'both'): Promise<void> {
    const kill = crashes === 'process' || crashes === 'both' ? 1 : 0
    const cut = crashes === 'power' || crashes === 'both' ? 1 : 0
    const action = this.#random.weighted({
      create: this.#volumes.length < volumeLimit ? 4 : 0,
      open: 8,
      write: 40,
      snapshot: 8,
      together: 4,
      removeSnapshot: 5,
      clone: this.#volumes.length < volumeLimit ? 3 : 0,
      rollback: 2,
      writeSnapshot: 5,
      discard: 1,
      close: 4,
      removeVolume: 2,
      rename: 1,
      replace: 1,
      resize: 2,
      diff: 3,
      flush: 3,
      storm: 4,
      compare: 4,
      settle: 2,
      checkpoint: 2,
      reopen: 1,
      kill,
      cut,
    })
    this.done.push(action)
    try {
      await this[action]()
    } catch (error) {
      if (!(error instanceof StorageError) || error.code !== 'POOL_NEARLY_FULL') throw error
    }
  }

  async create(): Promise<void> {
    const volume = this.#newVolume(new SectorModel(this.#random.pick(sizes)))
    await this.rig.pool.createVolume(volume.name, volume.model.sizeBytes)
    this.#volumes.push(volume)
    this.#allSynced()
  }

  /** A host begins to write to a snapshot, or goes on. */
  async writeSnapshot(): Promise<void> {
    const volume = this.#pick((candidate) => candidate.snapshots.length > 0)
    if (!volume) return
    const snapshot = this.#random.pick(volume.snapshots)
    if (snapshot.written?.open) return
    const open = await this.rig.openVolume(volume.name, snapshot.name, false)
    snapshot.written ??= { ...this.#newVolume(snapshot.model.copy()), name: `written-${snapshot.name}` }
    snapshot.written.open = open
  }

  async discard(): Promise<void> {
    const volume = this.#pick((candidate) => writtenTo(candidate).length > 0)
    const snapshot = volume?.snapshots.find(({ written }) => written)
    if (!volume || !snapshot?.written) return
    await this.#close(snapshot.written)
    await this.rig.pool.discardWrites(volume.name, snapshot.name)
    snapshot.written = undefined
    this.#allSynced()
  }

  async open(): Promise<void> {
    const volume = this.#pick((candidate) => !candidate.open)
    if (volume) volume.open = await this.rig.openVolume(volume.name)
  }

  /** Several at once, in places of their own; at times a snapshot among them, which may show each or not. */
  async write(): Promise<void> {
    const volume = this.#pickOpen()
    if (!volume?.open) return
    const may = this.#volumes.includes(volume) && volume.snapshots.length < snapshotLimit
    const snapshot = this.#random.chance(0.2) && may ? this.#name('s') : undefined
    const taken = volume.model.copy()
    let anyRefused = false
    const running = this.#places(volume).map(async ({ offset, lengthBytes }) => {
      const stamp = this.#random.chance(0.25) ? 0 : this.#stamp++
      const { fake } = volume.open!
      taken.maybe(offset, lengthBytes, stamp)
      this.done.push(`${volume.name}:${offset / 512}+${lengthBytes / 512}=${stamp}`)
      try {
        if (stamp === 0 && this.#random.chance(0.5)) await fake.trim(offset, lengthBytes)
        else
          await fake.write(
            offset,
            stamp === 0 ? Buffer.alloc(lengthBytes) : stamped(volume.number, offset, lengthBytes, stamp),
          )
        volume.model.write(offset, lengthBytes, stamp)
      } catch (error) {
        if (!(error instanceof RefusedError) || error.errno !== 28) throw error
        this.refused += 1
        this.done.push(`refused:${stamp}`)
        anyRefused = true
        volume.model.maybe(offset, lengthBytes, stamp)
      }
    })
    const durable = this.#random.chance(0.5)
    const taking = snapshot && this.rig.pool.createSnapshot(volume.name, snapshot, { durable })
    const [outcome] = await Promise.allSettled([taking, ...running])
    await Promise.all(running)
    if (anyRefused) {
      const bytes = await volume.open.fake.read(0, volume.model.sizeBytes)
      volume.model.check(bytes, `${volume.name} after a refused write`, 'for-now')
    }
    if (outcome.status === 'rejected') throw outcome.reason
    if (!snapshot) return
    this.done.push(`snap:${snapshot}`)
    volume.snapshots.push({ name: snapshot, model: taken })
    await this.#compareSnapshot(volume, volume.snapshots.at(-1)!, 'for-now')
    // A snapshot that need not be durable is not looked for after a power cut: it is made durable here.
    await this.flush()
  }

  async snapshot(): Promise<void> {
    const volume = this.#pick((candidate) => candidate.snapshots.length < snapshotLimit)
    if (!volume) return
    const name = this.#name('s')
    await this.rig.pool.createSnapshot(volume.name, name, { hidden: this.#random.chance(0.3) })
    volume.snapshots.push({ name, model: volume.model.copy() })
    this.#allSynced()
  }

  /** A snapshot while the volume is being opened or closed, and others are busy. */
  async together(): Promise<void> {
    const volume = this.#pick((candidate) => candidate.snapshots.length < snapshotLimit)
    if (!volume) return
    const name = this.#name('s')
    const changing = volume.open ? this.#close(volume) : this.rig.openVolume(volume.name)
    for (let turns = this.#random.below(6); turns > 0; turns -= 1) await new Promise(setImmediate)
    const others = [this.rig.pool.checkpoint(), this.rig.pool.mapped(volume.name, null)]
    const [taken, changed] = await Promise.allSettled([
      this.rig.pool.createSnapshot(volume.name, name),
      changing,
      ...others,
    ])
    if (changed.status === 'rejected') throw changed.reason
    if (changed.value) volume.open = changed.value
    if (taken.status === 'rejected') throw taken.reason
    volume.snapshots.push({ name, model: volume.model.copy() })
    this.#allSynced()
  }

  async removeSnapshot(): Promise<void> {
    const volume = this.#pick((candidate) => candidate.snapshots.length > 0)
    if (!volume) return
    const gone = this.#random.pick(volume.snapshots)
    if (gone.written) await this.#close(gone.written)
    await this.rig.pool.removeSnapshot(volume.name, gone.name)
    volume.snapshots = volume.snapshots.filter((snapshot) => snapshot !== gone)
    this.#allSynced()
  }

  async clone(): Promise<void> {
    const source = this.#pick((candidate) => candidate.snapshots.length > 0)
    if (!source) return
    const snapshot = this.#random.pick(source.snapshots)
    const volume = this.#newVolume(snapshot.model.copy())
    await this.rig.pool.createClone(volume.name, source.name, snapshot.name)
    this.#volumes.push(volume)
    this.#allSynced()
  }

  async rollback(): Promise<void> {
    const volume = this.#pick((candidate) => candidate.snapshots.length > 0)
    if (!volume) return
    await this.#close(volume)
    const snapshot = this.#random.pick(volume.snapshots)
    await this.rig.pool.rollback(volume.name, snapshot.name)
    volume.model = snapshot.model.copy()
    this.#allSynced()
  }

  async close(): Promise<void> {
    const volume = this.#pickOpen()
    if (volume) await this.#close(volume)
  }

  async removeVolume(): Promise<void> {
    const volume = this.#pick((candidate) => candidate.snapshots.length === 0)
    if (!volume) return
    await this.#close(volume)
    await this.rig.pool.removeVolume(volume.name)
    this.#volumes = this.#volumes.filter((other) => other !== volume)
    this.#allSynced()
  }

  async rename(): Promise<void> {
    const volume = this.#pick(() => true)
    if (!volume) return
    const name = this.#name('v')
    await this.rig.pool.renameVolume(volume.name, name)
    volume.name = name
    this.#allSynced()
  }

  async replace(): Promise<void> {
    const volume = this.#pick(() => true)
    const replaced = this.#pick((candidate) => candidate !== volume)
    if (!volume || !replaced || volume.snapshots.length + replaced.snapshots.length > snapshotLimit) return
    await this.#close(replaced)
    await this.rig.pool.renameVolume(volume.name, replaced.name, true)
    volume.name = replaced.name
    volume.snapshots = [...replaced.snapshots, ...volume.snapshots]
    this.#volumes = this.#volumes.filter((other) => other !== replaced)
    this.#allSynced()
  }

  async resize(): Promise<void> {
    const volume = this.#pick(() => true)
    if (!volume) return
    const sizeBytes = this.#random.between(128, 2400) * sectorBytes
    if (sizeBytes < volume.model.sizeBytes) await this.#close(volume)
    try {
      await this.rig.pool.resizeVolume(volume.name, sizeBytes)
    } catch (error) {
      // The rest of a block is filled with zeros, which may need a place.
      if (!(error instanceof RefusedError) || error.errno !== 28) throw error
      this.refused += 1
      return
    }
    volume.model.resize(sizeBytes)
    this.#allSynced()
  }

  async diff(): Promise<void> {
    const volume = this.#pick((candidate) => candidate.snapshots.length > 0)
    if (!volume) return
    const from = this.#random.pick(volume.snapshots)
    const to = this.#random.chance(0.4) ? undefined : this.#random.pick(volume.snapshots)
    const end = to?.model ?? volume.model
    const changed = coverage(await this.rig.pool.diff(volume.name, from.name, to?.name ?? null))
    for (const offset of from.model.differences(end)) {
      if (offset < end.sizeBytes) assert(changed(offset), `the diff of ${volume.name} has byte ${offset}`)
    }
    const mapped = coverage(await this.rig.pool.mapped(volume.name, to?.name ?? null))
    for (let offset = 0; offset < end.sizeBytes; offset += sectorBytes) {
      if (!end.isZero(offset)) assert(mapped(offset), `the map of ${volume.name} has byte ${offset}`)
    }
  }

  async flush(): Promise<void> {
    const volume = this.#pickOpen()
    if (!volume?.open) return
    await volume.open.fake.flush()
    this.#allSynced()
  }

  async compare(): Promise<void> {
    const volume = this.#pick(() => true)
    if (volume) await this.#compare(volume, 'no')
  }

  async settle(): Promise<void> {
    await this.rig.pool.settled()
    await this.rig.pool.audit()
  }

  async checkpoint(): Promise<void> {
    await this.rig.pool.checkpoint()
    this.#allSynced()
  }

  async reopen(): Promise<void> {
    for (const volume of this.#writable) await this.#close(volume)
    await this.rig.pool.close()
    await this.rig.open(this.#settings)
    this.#allSynced()
  }

  kill(): Promise<void> {
    return this.#crash('process')
  }

  cut(): Promise<void> {
    return this.#crash('power')
  }

  /** Everything, everywhere. */
  async compareAll(loose: Loose): Promise<void> {
    for (const volume of this.#volumes) await this.#compare(volume, loose)
  }

  readonly #settings = { waitForSpaceMs: 30, marks: [50, 98] }

  async begin(): Promise<void> {
    await this.rig.pool.close()
    await this.rig.open(this.#settings)
  }

  /** Trims and writes one after the other, with nothing in between that would make them durable. */
  async storm(): Promise<void> {
    for (let round = this.#random.between(5, 25); round > 0; round -= 1) {
      const volume = this.#pickOpen()
      if (!volume?.open) return
      const blocks = Math.floor(volume.model.sizeBytes / 4096)
      const offset = this.#random.below(blocks) * 4096
      const lengthBytes = Math.min(this.#random.between(1, 20) * 4096, blocks * 4096 - offset)
      const stamp = this.#random.chance(0.5) ? 0 : this.#stamp++
      this.done.push(`${volume.name}:${offset / 512}+${lengthBytes / 512}=${stamp}`)
      try {
        if (stamp === 0) await volume.open.fake.trim(offset, lengthBytes)
        else await volume.open.fake.write(offset, stamped(volume.number, offset, lengthBytes, stamp))
        volume.model.write(offset, lengthBytes, stamp)
      } catch (error) {
        if (!(error instanceof RefusedError) || error.errno !== 28) throw error
        this.refused += 1
        volume.model.maybe(offset, lengthBytes, stamp)
        volume.model.check(await volume.open.fake.read(0, volume.model.sizeBytes), volume.name, 'for-now')
      }
    }
  }

  /** Writes are under way when it happens: their sectors are old or new. */
  async #crash(kind: 'process' | 'power'): Promise<void> {
    if (this.#random.chance(0.7)) await this.storm()
    const volume = this.#pickOpen()
    if (volume?.open) {
      const { fake } = volume.open
      for (const { offset, lengthBytes } of this.#places(volume)) {
        const stamp = this.#stamp++
        volume.model.maybe(offset, lengthBytes, stamp)
        fake.write(offset, stamped(volume.number, offset, lengthBytes, stamp)).catch(() => undefined)
      }
    }
    const settle = this.#beginOperation()
    for (let turns = this.#random.below(30); turns > 0; turns -= 1) await new Promise(setImmediate)
    if (kind === 'process') this.rig.kill()
    else this.rig.cutPower()
    for (const each of this.#writable) each.open = undefined
    await this.rig.open(this.#settings)
    settle()
    await this.rig.pool.audit()
    await this.compareAll('for-good')
  }

  /** An operation that the crash comes between; afterwards it has happened or not. */
  #beginOperation(): () => void {
    const { pool } = this.rig
    const volume = this.#pick((candidate) => candidate.snapshots.length < snapshotLimit)
    const begun = (operation: Promise<void>): void => void operation.catch(() => undefined)
    const now = (name: string) => this.rig.pool.volumes().find((facts) => facts.name === name)
    const [snapshot] = volume?.snapshots ?? []
    switch (this.#random.pick(['nothing', 'snapshot', 'removeSnapshot', 'create', 'discard'] as const)) {
      case 'discard': {
        if (!volume || !snapshot?.written || snapshot.written.open) break
        begun(pool.discardWrites(volume.name, snapshot.name))
        return () => {
          const facts = now(volume.name)?.snapshots.find(({ name }) => name === snapshot.name)
          if (facts?.writtenBytes === null) snapshot.written = undefined
        }
      }
      case 'snapshot': {
        if (!volume) break
        const name = this.#name('s')
        const model = volume.model.copy()
        begun(pool.createSnapshot(volume.name, name))
        return () => {
          if (now(volume.name)?.snapshots.some((snapshot) => snapshot.name === name))
            volume.snapshots.push({ name, model })
        }
      }
      case 'removeSnapshot': {
        const gone = snapshot
        if (!volume || !gone) break
        begun(pool.removeSnapshot(volume.name, gone.name))
        return () => {
          if (now(volume.name)?.snapshots.some(({ name }) => name === gone.name)) return
          volume.snapshots = volume.snapshots.filter((snapshot) => snapshot !== gone)
        }
      }
      case 'create': {
        const created = this.#newVolume(new SectorModel(this.#random.pick(sizes)))
        begun(pool.createVolume(created.name, created.model.sizeBytes))
        return () => {
          if (now(created.name)) this.#volumes.push(created)
        }
      }
    }
    return () => {}
  }

  async #compare(volume: Volume, loose: Loose): Promise<void> {
    const wasOpen = volume.open
    const opened = wasOpen ?? (await this.rig.openVolume(volume.name))
    const bytes = await opened.fake.read(0, volume.model.sizeBytes)
    volume.model.check(bytes, volume.name, loose)
    if (!wasOpen) await opened.close()
    for (const snapshot of volume.snapshots) await this.#compareSnapshot(volume, snapshot, loose)
  }

  async #compareSnapshot(volume: Volume, snapshot: Snapshot, loose: Loose): Promise<void> {
    const { fake, close } = await this.rig.openVolume(volume.name, snapshot.name)
    const bytes = await fake.read(0, fake.sizeBytes)
    snapshot.model.check(bytes, `${volume.name}@${snapshot.name}`, loose)
    await close()
    if (!snapshot.written) return
    const { open, model } = snapshot.written
    const opened = open ?? (await this.rig.openVolume(volume.name, snapshot.name, false))
    const name = `${volume.name}@${snapshot.name} as it was written to`
    model.check(await opened.fake.read(0, model.sizeBytes), name, loose)
    if (!open) await opened.close()
  }

  async #close(volume: Volume): Promise<void> {
    await volume.open?.close()
    volume.open = undefined
  }

  /** Some extents of a volume that do not overlap. */
  #places(volume: Volume): { offset: number; lengthBytes: number }[] {
    const count = this.#random.between(1, 6)
    const stride = Math.floor(volume.model.sizeBytes / sectorBytes / count)
    return Array.from({ length: count }, (_, index) => {
      const whole = this.#random.chance(0.5)
      const first = this.#random.below(stride)
      const length = this.#random.between(1, Math.min(stride - first, this.#random.pick([2, 16, 200])))
      const at = index * stride + first
      if (!whole || stride < 16) return { offset: at * sectorBytes, lengthBytes: length * sectorBytes }
      // Whole blocks, as far as they do not meet the next one's.
      const begin = Math.ceil((index * stride) / 8) * 8
      const end = Math.floor(((index + 1) * stride) / 8) * 8
      if (end <= begin) return { offset: at * sectorBytes, lengthBytes: length * sectorBytes }
      const blocks = (end - begin) / 8
      const from = this.#random.below(blocks)
      const some = this.#random.between(1, Math.min(blocks - from, 24))
      return { offset: (begin + from * 8) * sectorBytes, lengthBytes: some * 8 * sectorBytes }
    })
  }

  #newVolume(model: SectorModel): Volume {
    return { name: this.#name('v'), number: this.#next, model, snapshots: [], open: undefined }
  }

  #name(letter: string): string {
    return `${letter}${this.#next++}`
  }

  #pick(fits: (volume: Volume) => boolean): Volume | undefined {
    const candidates = this.#volumes.filter(fits)
    return candidates.length === 0 ? undefined : this.#random.pick(candidates)
  }

  /** Volumes, and what was written to snapshots. */
  get #writable(): Volume[] {
    return this.#volumes.flatMap((volume) => [volume, ...writtenTo(volume)])
  }

  #pickOpen(): Volume | undefined {
    const open = this.#writable.filter((volume) => volume.open !== undefined)
    return open.length === 0 ? undefined : this.#random.pick(open)
  }

  #allSynced(): void {
    for (const volume of this.#writable) {
      volume.model.synced()
      for (const snapshot of volume.snapshots) snapshot.model.synced()
    }
  }
}

function coverage(extents: readonly { offset: number; lengthBytes: number }[]): (offset: number) => boolean {
  const covered = new Set<number>()
  let end = -1
  for (const { offset, lengthBytes } of extents) {
    assert(offset > end, 'extents are in order and apart from each other')
    end = offset + lengthBytes
    for (let at = offset; at < end; at += sectorBytes) covered.add(at)
  }
  return (offset) => covered.has(offset)
}
