import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createPool } from '../../src/pool/create-pool.js'
import { pageBytes, superblockOffsets } from '../../src/pool/geometry.js'
import { decodeLabel } from '../../src/pool/label.js'
import { type OpenPoolOptions, Pool } from '../../src/pool/pool.js'
import { decodeSuperblock, encodeSuperblock } from '../../src/pool/superblock.js'
import type { OpenThinVolume } from '../../src/pool/thin-pool.js'
import { FakeDisk, type Lost } from './fake-disk.js'
import { FakeNative, type FakeVolume } from './fake-native.js'
import { Random } from './model/random.js'

export interface FakeRigOptions {
  readonly deviceBytes?: readonly number[]
  readonly unitBytes?: number
  readonly blockBytes?: number
  readonly random?: Random
}

type Settings = Partial<Omit<OpenPoolOptions, 'intercept'>>

/** A pool on files, with native code that is a fake: it can be killed, and the power be cut, at any moment. */
export class FakeRig {
  readonly random: Random
  readonly folder = mkdtempSync(path.join(tmpdir(), 'pool-'))
  readonly events: { code: string; severity: string; text: string }[] = []
  #disks: FakeDisk[] = []
  #generation = 0
  readonly #opened = new Set<OpenThinVolume>()
  #fake: FakeNative | undefined
  #pool: Pool | undefined

  private constructor(random: Random) {
    this.random = random
  }

  static async create(options: FakeRigOptions = {}, settings: Settings = {}): Promise<FakeRig> {
    const { deviceBytes = [4 << 20], unitBytes = 32 << 10, blockBytes = 4 << 10, random = new Random(1) } = options
    const rig = new FakeRig(random)
    const devices = deviceBytes.map((sizeBytes, index) => ({
      kind: 'file' as const,
      path: rig.#path(index),
      sizeBytes,
    }))
    await createPool({ name: 'pool', unitBytes, blockBytes, devices })
    rig.#disks = devices.map((device) => new FakeDisk(device.path))
    await rig.open(settings)
    return rig
  }

  get pool(): Pool {
    assert(this.#pool, 'the pool is open')
    return this.#pool
  }

  get fake(): FakeNative {
    assert(this.#fake, 'the pool is open')
    return this.#fake
  }

  get paths(): string[] {
    return this.#disks.map((disk) => disk.path)
  }

  async open(settings: Settings = {}): Promise<Pool> {
    const fake = new FakeNative(this.random, new Map(this.#disks.map((disk) => [disk.path, disk])))
    this.#fake = fake
    const report: OpenPoolOptions['report'] = (event) => {
      if (!fake.isDead) this.events.push(event)
    }
    this.#pool = await Pool.open(this.paths, { report, ...settings, intercept: fake })
    return this.#pool
  }

  async openVolume(
    name: string,
    snapshot: string | null = null,
    readOnly = snapshot !== null,
  ): Promise<{ fake: FakeVolume; close: () => Promise<void> }> {
    const options = { readOnly, threads: 1, onLost: () => {} }
    const opened = await this.pool.open(name, snapshot, options)
    this.#opened.add(opened)
    const close = async (): Promise<void> => {
      await opened.close()
      this.#opened.delete(opened)
    }
    return { fake: opened.native as FakeVolume, close }
  }

  /** The process is gone from one turn to the next; what it still does goes to files nobody looks at. */
  kill(): void {
    this.fake.kill()
    this.#generation += 1
    this.#disks = this.#disks.map((disk, index) => {
      copyFileSync(disk.path, this.#path(index))
      const copy = disk.copyTo(this.#path(index))
      disk.close()
      rmSync(disk.path)
      return copy
    })
    void bury(this.pool, [...this.#opened])
    this.#opened.clear()
    this.#fake = undefined
    this.#pool = undefined
  }

  /** The machine goes down: what was not synced may be lost. */
  cutPower(lost: Lost = this.random.pick(['everything', 'some', 'some', 'some', 'nothing'])): void {
    this.kill()
    for (const disk of this.#disks) disk.cutPower(this.random, lost)
    this.#otherBoot()
  }

  /** A new file for extend(). */
  addDisk(): string {
    const disk = FakeDisk.create(this.#path(this.#disks.length))
    this.#disks.push(disk)
    this.#fake?.addDisk(disk)
    return disk.path
  }

  async close(): Promise<void> {
    // A pool with open volumes refuses to be closed, and the garbage collector would close its files, and complain.
    for (const volume of this.#opened) await volume.close()
    await this.#pool?.close().catch(() => undefined)
    for (const disk of this.#disks) disk.close()
    rmSync(this.folder, { recursive: true, force: true })
  }

  #path(index: number): string {
    return path.join(this.folder, `${this.#generation}-${index}`)
  }

  /** The superblocks say that another machine wrote them. */
  #otherBoot(): void {
    const [head] = this.#disks
    const label = decodeLabel(head!.read(0, pageBytes))
    assert(typeof label === 'object')
    const bootId = randomBytes(16)
    for (const slot of [0, 1] as const) {
      const superblock = decodeSuperblock(head!.read(superblockOffsets[slot], pageBytes), label.poolId, slot)
      if (typeof superblock !== 'object') continue
      head!.write(superblockOffsets[slot], encodeSuperblock({ ...superblock, bootId }))
    }
    head!.sync()
  }
}

/** Close the files of a pool whose native side is dead. */
async function bury(pool: Pool, opened: readonly OpenThinVolume[]): Promise<void> {
  for (const volume of opened) await volume.close()
  await pool.close().catch(() => undefined)
}
