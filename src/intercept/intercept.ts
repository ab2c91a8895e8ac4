import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { StorageError } from '../block/storage-error.js'
import type { Lsn, VolumeIndex } from '../block/units.js'
import type {
  Grant,
  Intercept,
  JournalCounters,
  JournalOptions,
  NativeJournal,
  NativeVolume,
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
  abandon(): void {
    attempt('journal abandon', this.#name, () => this.native.abandon())
  }
  close(): Promise<void> {
    return attemptLater('journal close', this.#name, () => this.native.close())
  }
}

class Volume implements NativeVolume {
  readonly sizeBytes: number
  readonly logicalBlockBytes: number
  readonly isBlockDevice: boolean
  readonly #native: NativeVolume
  readonly #name: string

  constructor(native: NativeVolume, name: string) {
    this.#native = native
    this.#name = name
    this.sizeBytes = native.sizeBytes
    this.logicalBlockBytes = native.logicalBlockBytes
    this.isBlockDevice = native.isBlockDevice
  }

  attach(mountPoint: string): Promise<{ readonly device: string }> {
    return attemptLater('volume attach', this.#name, () => this.#native.attach(mountPoint))
  }
  detach(): Promise<void> {
    return attemptLater('volume detach', this.#name, () => this.#native.detach())
  }
  setJournal(journal: NativeJournal | null, index: VolumeIndex): Promise<void> {
    assert(journal === null || journal instanceof Journal, 'a journal opened by this module')
    return attemptLater('volume journal', this.#name, () => this.#native.setJournal(journal?.native ?? null, index))
  }
  syncBacking(): Promise<void> {
    return attemptLater('volume sync', this.#name, () => this.#native.syncBacking())
  }
  grant(grants: readonly Grant[]): void {
    attempt('volume grant', this.#name, () => this.#native.grant(grants))
  }
  refuse(blocks: readonly number[], errno: number): void {
    attempt('volume refuse', this.#name, () => this.#native.refuse(blocks, errno))
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
    return attempt('volume open', options.name, () => new Volume(addon().openVolume(options), options.name))
  },
  javascriptCalls(): number {
    return addon().javascriptCalls()
  },
  releaseStale(mountPoint: string): Promise<void> {
    return attemptLater('release stale device', mountPoint, () => addon().releaseStale(mountPoint))
  },
}
