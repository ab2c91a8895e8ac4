import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { StorageError } from '../block/storage-error.js'
import type { Lsn, VolumeIndex } from '../block/units.js'
import type {
  Attachment,
  Grant,
  Intercept,
  JournalCounters,
  JournalOptions,
  KeeperOptions,
  NativeJournal,
  NativePool,
  NativeRegions,
  NativeVolume,
  PoolDevice,
  PoolOptions,
  ProcessMemory,
  RegionCounters,
  RegionOptions,
  VolumeCounters,
  VolumeOptions,
} from './addon.js'
import { adviceFor } from './hints.js'

interface NativeError extends Error {
  readonly code: string
  readonly errno: number
}

function isNativeError(error: unknown): error is NativeError {
  return error instanceof Error && 'code' in error && 'errno' in error && typeof error.code === 'string'
}

/** A mistake in our own call is a broken invariant and stays what it is; the rest an operator, disk or kernel caused. */
function storageError(op: string, object: string, error: unknown): unknown {
  if (!isNativeError(error) || error.code === 'INVALID_ARGUMENT' || error.code === 'WRONG_THREAD') return error
  return new StorageError(error.code, { op, object, cause: error, ...adviceFor(error.code) })
}

function attempt<T>(op: string, object: string, step: () => T): T {
  try {
    return step()
  } catch (error) {
    throw storageError(op, object, error)
  }
}

async function attemptLater<T>(op: string, object: string, step: () => Promise<T>): Promise<T> {
  try {
    return await step()
  } catch (error) {
    throw storageError(op, object, error)
  }
}

class Journal implements NativeJournal {
  readonly native: NativeJournal
  readonly #name: string

  constructor(native: NativeJournal, name: string) {
    this.native = native
    this.#name = name
  }

  counters(): JournalCounters {
    return attempt('journal counters', this.#name, () => this.native.counters())
  }
  sync(): Promise<Lsn> {
    return attemptLater('journal sync', this.#name, () => this.native.sync())
  }
  trim(below: Lsn): void {
    attempt('journal trim', this.#name, () => this.native.trim(below))
  }
  appendMarker(payload: Buffer): Promise<Lsn> {
    return attemptLater('journal marker', this.#name, () => this.native.appendMarker(payload))
  }
  refuse(refused: boolean): void {
    attempt('journal refuse', this.#name, () => this.native.refuse(refused))
  }
  doubt(doubted: boolean): void {
    attempt('journal doubt', this.#name, () => this.native.doubt(doubted))
  }
  abandon(): void {
    attempt('journal abandon', this.#name, () => this.native.abandon())
  }
  close(): Promise<void> {
    return attemptLater('journal close', this.#name, () => this.native.close())
  }
}

class Regions implements NativeRegions {
  readonly native: NativeRegions
  readonly #name: string

  constructor(native: NativeRegions, name: string) {
    this.native = native
    this.#name = name
  }

  rotate(carry: boolean): Promise<void> {
    return attemptLater('regions rotate', this.#name, () => this.native.rotate(carry))
  }
  drop(): Promise<void> {
    return attemptLater('regions drop', this.#name, () => this.native.drop())
  }
  giveUp(): void {
    attempt('regions give up', this.#name, () => this.native.giveUp())
  }
  active(): Buffer {
    return attempt('regions active', this.#name, () => this.native.active())
  }
  counters(): RegionCounters {
    return attempt('regions counters', this.#name, () => this.native.counters())
  }
  close(): void {
    attempt('regions close', this.#name, () => this.native.close())
  }
}

class Pool implements NativePool {
  readonly native: NativePool
  readonly #name: string

  constructor(native: NativePool, name: string) {
    this.native = native
    this.#name = name
  }

  take(): Buffer {
    return attempt('pool take', this.#name, () => this.native.take())
  }
  append(bytes: Buffer): bigint {
    return attempt('pool append', this.#name, () => this.native.append(bytes))
  }
  sync(): Promise<bigint> {
    return attemptLater('pool sync', this.#name, () => this.native.sync())
  }
  trim(tail: bigint): void {
    attempt('pool trim', this.#name, () => this.native.trim(tail))
  }
  head(): bigint {
    return attempt('pool head', this.#name, () => this.native.head())
  }
  committed(): bigint {
    return attempt('pool committed', this.#name, () => this.native.committed())
  }
  discard(ranges: readonly { readonly location: number; readonly count: number }[]): Promise<boolean> {
    return attemptLater('pool discard', this.#name, () => this.native.discard(ranges))
  }
  addDevice(device: PoolDevice): void {
    attempt('pool extend', device.path, () => this.native.addDevice(device))
  }
  close(): Promise<void> {
    return attemptLater('pool close', this.#name, () => this.native.close())
  }
}

class Volume implements NativeVolume {
  readonly logicalBlockBytes: number
  readonly isBlockDevice: boolean
  readonly #native: NativeVolume
  readonly #name: string
  #sizeBytes: number

  constructor(native: NativeVolume, name: string) {
    this.#native = native
    this.#sizeBytes = native.sizeBytes
    this.#name = name
    this.logicalBlockBytes = native.logicalBlockBytes
    this.isBlockDevice = native.isBlockDevice
  }

  get sizeBytes(): number {
    return this.#sizeBytes
  }
  attach(mountPoint: string, options: { readonly readOnly?: boolean } = {}): Promise<Attachment> {
    return attemptLater('volume attach', this.#name, () => this.#native.attach(mountPoint, options))
  }
  serve(mountPoint: string): Promise<void> {
    return attemptLater('volume serve', this.#name, () => this.#native.serve(mountPoint))
  }
  unserve(): Promise<void> {
    return attemptLater('volume unserve', this.#name, () => this.#native.unserve())
  }
  detach(): Promise<void> {
    return attemptLater('volume detach', this.#name, () => this.#native.detach())
  }
  setJournal(journal: NativeJournal | null, index: VolumeIndex, regions: NativeRegions | null = null): Promise<void> {
    assert(journal === null || journal instanceof Journal, 'a journal opened by this module')
    assert(regions === null || regions instanceof Regions, 'a region record opened by this module')
    return attemptLater('volume journal', this.#name, () =>
      this.#native.setJournal(journal?.native ?? null, index, regions?.native ?? null),
    )
  }
  syncBacking(): Promise<void> {
    return attemptLater('volume sync', this.#name, () => this.#native.syncBacking())
  }
  grant(grants: readonly Grant[]): void {
    attempt('volume grant', this.#name, () => this.#native.grant(grants))
  }
  loadLeaf(leaf: number, entries: Float64Array | null): void {
    attempt('volume leaf', this.#name, () => this.#native.loadLeaf(leaf, entries))
  }
  freeze(
    layer: number,
    operation: Buffer,
  ): Promise<{ readonly dropped: readonly { block: number; location: number }[] }> {
    return attemptLater('volume freeze', this.#name, () => this.#native.freeze(layer, operation))
  }
  async resize(sizeBytes: number): Promise<void> {
    await attemptLater('volume resize', this.#name, () => this.#native.resize(sizeBytes))
    this.#sizeBytes = sizeBytes
  }
  refuse(blocks: readonly number[], errno: number): void {
    attempt('volume refuse', this.#name, () => this.#native.refuse(blocks, errno))
  }
  setHoles(allowed: boolean): void {
    attempt('volume holes', this.#name, () => this.#native.setHoles(allowed))
  }
  counters(): VolumeCounters {
    return attempt('volume counters', this.#name, () => this.#native.counters())
  }
  close(): Promise<void> {
    return attemptLater('volume close', this.#name, () => this.#native.close())
  }
}

let loaded: Intercept | undefined

/** Loaded at first use: the main thread of an agent is the only place where it can be. */
function addon(): Intercept {
  loaded ??= attempt('load', 'tidemark.node', () => {
    const require = createRequire(import.meta.url)
    try {
      return require('../../../build/Release/tidemark.node') as Intercept
    } catch (cause) {
      throw new StorageError('ADDON_MISSING', {
        op: 'load',
        object: 'build/Release/tidemark.node',
        cause,
        hint: 'Build it: node tools/build-addon.mjs',
      })
    }
  })
  return loaded
}

/** With the pool as native code made it. */
function unwrapped(options: VolumeOptions): VolumeOptions {
  if (options.pool === undefined) return options
  const { pool, layer } = options.pool
  assert(pool instanceof Pool, 'a pool opened by this module')
  return { ...options, pool: { pool: pool.native, layer } }
}

/** The native filter. Whatever it throws is a StorageError with a hint. */
export const intercept: Intercept = {
  openJournal(options: JournalOptions): NativeJournal {
    return attempt(
      'journal open',
      options.directory,
      () => new Journal(addon().openJournal(options), options.directory),
    )
  },
  openVolume(options: VolumeOptions): NativeVolume {
    return attempt('volume open', options.name, () => new Volume(addon().openVolume(unwrapped(options)), options.name))
  },
  openPool(options: PoolOptions): NativePool {
    return attempt('pool open', options.name, () => new Pool(addon().openPool(options), options.name))
  },
  openRegions(options: RegionOptions): NativeRegions {
    return attempt('regions open', options.path, () => new Regions(addon().openRegions(options), options.path))
  },
  javascriptCalls(): number {
    return addon().javascriptCalls()
  },
  releaseStale(mountPoint: string): Promise<void> {
    return attemptLater('release stale device', mountPoint, () => addon().releaseStale(mountPoint))
  },
  openKeeper(options: KeeperOptions): Promise<readonly string[]> {
    return attemptLater('keeper', options.directory, () => addon().openKeeper(options))
  },
  giveUpKept(mountPoint: string): Promise<void> {
    return attemptLater('give up device', mountPoint, () => addon().giveUpKept(mountPoint))
  },
  protectProcess(program: string, words: readonly string[]): ProcessMemory {
    return addon().protectProcess(program, words)
  },
}
