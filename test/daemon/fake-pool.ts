import assert from 'node:assert/strict'
import { readFile, rm, writeFile } from 'node:fs/promises'
import type { CheckProgressView, PoolCheckView } from '../../src/api/agent-operations.js'
import { StorageError } from '../../src/block/storage-error.js'
import type { PoolEngine, PoolFailure } from '../../src/daemon/pool-engine.js'
import type {
  ByteExtent,
  CreatePoolOptions,
  ImageOrigin,
  OpenThinVolume,
  PoolFacts,
  ThinPool,
  ThinVolumeFacts,
} from '../../src/pool/thin-pool.js'

type Changeable<T> = { -readonly [K in keyof T]: T[K] }

/** A pool without data: its catalog in memory, with the refusals of the real one. */
export class FakePool implements ThinPool {
  readonly name: string
  readonly id: string
  readonly paths: string[]
  holder: string | null = null
  afterCrash = false
  /** As where the log cannot be written. */
  holdFails = false
  closed = false
  /** What the real one would refuse to close for. */
  busy = false
  extents: ByteExtent[] = []
  readonly #volumes = new Map<string, Changeable<ThinVolumeFacts>>()

  constructor(name: string, id: string, paths: readonly string[]) {
    this.name = name
    this.id = id
    this.paths = [...paths]
  }

  facts(): PoolFacts {
    return {
      name: this.name,
      id: this.id,
      devices: this.paths.map((path) => ({ path, sizeBytes: 1024 ** 3 })),
      unitBytes: 8 * 1024 ** 2,
      blockBytes: 64 * 1024,
      sizeBytes: this.paths.length * 1024 ** 3,
      allocatedBytes: 0,
      mappedBytes: 0,
      virtualBytes: 0,
      marks: [70, 85, 95],
      state: 'online',
      reason: 'all is well',
      background: null,
    }
  }

  volumes(): ThinVolumeFacts[] {
    return [...this.#volumes.values()].map((facts) => ({ ...facts }))
  }

  volume(name: string): ThinVolumeFacts {
    return this.#get(name)
  }

  async createVolume(name: string, sizeBytes: number, role: 'volume' | 'inbound' = 'volume'): Promise<void> {
    if (this.#volumes.has(name)) throw refusal('ALREADY_EXISTS', name)
    const fresh = {
      origin: null,
      image: null,
      stream: null,
      snapshots: [],
      allocatedBytes: 0,
      createdAt: '2026-01-01T00:00:00.000Z',
    }
    this.#volumes.set(name, { name, sizeBytes, role, ...fresh })
  }

  async removeVolume(name: string): Promise<void> {
    if (this.#get(name).snapshots.length > 0) throw refusal('HAS_SNAPSHOTS', name)
    this.#volumes.delete(name)
  }

  async renameVolume(): Promise<void> {
    assert.fail('not asked for here')
  }

  async resizeVolume(name: string, sizeBytes: number): Promise<void> {
    this.#get(name).sizeBytes = sizeBytes
  }

  async createSnapshot(volume: string, name: string, options: { hidden?: boolean } = {}): Promise<void> {
    const facts = this.#get(volume)
    if (facts.snapshots.some((known) => known.name === name)) throw refusal('ALREADY_EXISTS', `${volume}@${name}`)
    const { sizeBytes } = facts
    const hidden = options.hidden ?? false
    const snapshot = {
      name,
      sizeBytes,
      hidden,
      createdAt: '2026-01-02T00:00:00.000Z',
      allocatedBytes: 0,
      writtenBytes: null,
    }
    facts.snapshots = [...facts.snapshots, snapshot]
  }

  async removeSnapshot(volume: string, name: string): Promise<void> {
    const facts = this.#get(volume)
    facts.snapshots = facts.snapshots.filter((known) => known.name !== name)
  }

  async discardWrites(volume: string, name: string): Promise<void> {
    const facts = this.#get(volume)
    facts.snapshots = facts.snapshots.map((known) => (known.name === name ? { ...known, writtenBytes: null } : known))
  }

  /** As a host that wrote to the snapshot leaves it. */
  write(volume: string, name: string, writtenBytes: number): void {
    const facts = this.#get(volume)
    facts.snapshots = facts.snapshots.map((known) => (known.name === name ? { ...known, writtenBytes } : known))
  }

  async rollback(volume: string, snapshot: string): Promise<void> {
    this.#get(volume).sizeBytes = this.#get(volume).snapshots.find(({ name }) => name === snapshot)!.sizeBytes
  }

  async createClone(name: string, volume: string, snapshot: string): Promise<void> {
    await this.createVolume(name, this.#get(volume).sizeBytes)
    this.#get(name).origin = `${volume}@${snapshot}`
  }

  async setImage(name: string, image: ImageOrigin | null): Promise<void> {
    this.#get(name).image = image
  }

  async setStream(name: string, stream: string | null): Promise<void> {
    this.#get(name).stream = stream
  }

  async diff(): Promise<ByteExtent[]> {
    return this.extents
  }

  async mapped(): Promise<ByteExtent[]> {
    return this.extents
  }

  async open(): Promise<OpenThinVolume> {
    return assert.fail('nothing is opened here')
  }

  async extend(device: string): Promise<void> {
    if (device.endsWith('bad')) throw refusal('DEVICE_FAILED', device)
    await writeFile(device, this.id)
    this.paths.push(device)
  }

  async hold(holder: string): Promise<void> {
    if (this.holdFails) throw refusal('POOL_FAILED', this.name)
    this.holder = holder
    for (const facts of this.#volumes.values()) facts.stream = null
  }

  async close(): Promise<void> {
    if (this.busy) throw refusal('VOLUME_OPEN', this.name)
    this.closed = true
  }

  #get(name: string): Changeable<ThinVolumeFacts> {
    const facts = this.#volumes.get(name)
    if (facts) return facts
    throw refusal('NO_SUCH_VOLUME', name)
  }
}

/** Pools that are files holding their ids; what they contain is remembered here. */
export class FakeEngine implements PoolEngine {
  readonly pools = new Map<string, FakePool>()
  readonly checks: { paths: readonly string[]; repair: boolean; afterFailure: boolean }[] = []
  /** Thrown by the next call of create or open. */
  failNext: Error | undefined
  /** What was said of the pool when it was opened last. */
  opened: PoolFailure | undefined
  /** The check ends when this does. */
  checking: Promise<void> = Promise.resolve()

  async create({ name, devices }: CreatePoolOptions): Promise<void> {
    const id = String(this.pools.size + 1).padStart(32, '0')
    for (const { path } of devices) await writeFile(path, id)
    this.#maybeFail()
    this.pools.set(
      id,
      new FakePool(
        name,
        id,
        devices.map(({ path }) => path),
      ),
    )
  }

  async open(paths: readonly string[], failure: PoolFailure): Promise<ThinPool> {
    this.#maybeFail()
    this.opened = failure
    const ids = new Set(await Promise.all(paths.map((path) => this.identify(path))))
    const [id] = ids
    const pool = id === undefined ? undefined : this.pools.get(id)
    if (!pool || ids.size > 1) throw refusal('NOT_A_POOL_DEVICE', paths.join(', '))
    if (pool.paths.length !== paths.length) throw refusal('DEVICE_MISSING', pool.name)
    pool.closed = false
    pool.paths.splice(0, Number.POSITIVE_INFINITY, ...paths)
    return pool
  }

  async check(
    paths: readonly string[],
    options: { readonly repair: boolean; readonly afterFailure: boolean },
    onProgress: (progress: CheckProgressView) => void,
  ): Promise<PoolCheckView> {
    this.checks.push({ paths, ...options })
    onProgress({ donePages: 3, totalPages: 4 })
    await this.checking
    const none = { volumes: 0, snapshots: 0, sizeBytes: 0, allocatedBytes: 0, mappedBytes: 0 }
    return { pool: 'p', id: '', devices: paths, clean: true, usable: true, findings: [], ...none }
  }

  async identify(path: string): Promise<string | undefined> {
    const id = await readFile(path, 'utf8').catch(() => '')
    return this.pools.has(id) ? id : undefined
  }

  async erase(path: string): Promise<void> {
    await rm(path)
  }

  async close(): Promise<void> {}

  #maybeFail(): void {
    const failure = this.failNext
    this.failNext = undefined
    if (failure) throw failure
  }
}

function refusal(code: string, object: string): StorageError {
  return new StorageError(code, { op: 'fake', object, hint: 'Do this.' })
}
