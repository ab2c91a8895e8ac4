import assert from 'node:assert/strict'
import { rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { makeFolder } from '../block/durable-file.js'
import { Exclusive } from '../block/exclusive.js'
import { StorageError } from '../block/storage-error.js'
import { type VolumeIndex, volumeIndex } from '../block/units.js'
import type { Intercept, NativeJournal, NativeVolume, VolumeCounters } from '../intercept/addon.js'
import { deviceLink, makeLink, removeLink } from './device-link.js'

export interface VolumeDefinition {
  readonly name: string
  readonly path: string
  readonly kind: 'file' | 'raw'
  readonly sizeBytes: number
  /** Wanted: an agent that starts attaches it again. */
  readonly attached: boolean
}

export interface VolumeOptions {
  readonly intercept: Intercept
  /** Holds the mount point of each volume. */
  readonly runDirectory: string
  readonly threads: number
  readonly direct: boolean
  /** The device was lost: what the kernel said. */
  readonly onLost: (volume: Volume, message: string) => void
}

/** Where a volume's writes are recorded. */
interface Capture {
  readonly journal: NativeJournal
  readonly index: VolumeIndex
}

const idle: VolumeCounters = {
  reads: 0,
  writes: 0,
  flushes: 0,
  trims: 0,
  readBytes: 0,
  writtenBytes: 0,
  faults: 0,
  inFlight: 0,
  errors: 0,
}

/**
 * One volume of this agent: its backing, and while attached its device.
 *
 * The backing is open only while attached; detached, it belongs to the administrator. A journal that was set stays set
 * across detach and attach: no write ever passes a volume of a running stream unrecorded.
 */
export class Volume {
  readonly definition: VolumeDefinition
  readonly #options: VolumeOptions
  readonly #exclusive = new Exclusive()
  #native: NativeVolume | undefined
  #device: string | null = null
  #lost: string | undefined
  /** Why the backing may lack what was acknowledged. */
  #unsynced: unknown
  #capture: Capture | null = null

  constructor(definition: VolumeDefinition, options: VolumeOptions) {
    this.definition = definition
    this.#options = options
  }

  get name(): string {
    return this.definition.name
  }

  get device(): string | null {
    return this.#device
  }

  get link(): string | null {
    return this.#device === null ? null : deviceLink(this.name)
  }

  /** Why hosts get errors, or undefined. */
  get lost(): string | undefined {
    return this.#lost
  }

  get logicalBlockBytes(): number {
    return this.#native?.logicalBlockBytes ?? 0
  }

  counters(): VolumeCounters {
    return this.#native?.counters() ?? idle
  }

  /** @throws StorageError DEVICE_BUSY, LINK_TAKEN, ALREADY_ATTACHED, SIZE_CHANGED */
  attach(): Promise<string> {
    return this.#exclusive.run(async () => {
      if (this.#native) {
        if (!this.#lost && this.#device !== null) return this.#device
        // What it could not sync is remembered; the host needs its device.
        await this.#release().catch((error) => {
          if (this.#native) throw error
        })
      }
      const mountPoint = await this.#mountPoint()
      await this.#options.intercept.releaseStale(mountPoint)
      const native = this.#open()
      try {
        if (this.#capture) await native.setJournal(this.#capture.journal, this.#capture.index)
        const { device } = await native.attach(mountPoint)
        this.#native = native
        this.#device = device
        this.#lost = undefined
        await makeLink(this.name, device)
        return device
      } catch (error) {
        if (this.#native) await this.#release()
        else await this.#closeNative(native)
        throw error
      }
    })
  }

  /**
   * The backing holds, durably, every acknowledged write when this resolves.
   * @throws StorageError DEVICE_BUSY, and IO_FAILED: detached, but the backing may lack acknowledged writes
   */
  detach(): Promise<void> {
    return this.#exclusive.run(async () => {
      if (this.#native) await this.#release()
    })
  }

  /** Record every write from here on in this journal, or no longer. */
  setJournal(journal: NativeJournal | null, index: VolumeIndex = volumeIndex(0)): Promise<void> {
    return this.#exclusive.run(async () => {
      assert(journal === null || this.#capture === null, `${this.name} is recorded twice`)
      await this.#native?.setJournal(journal, index)
      this.#capture = journal && { journal, index }
    })
  }

  /** Everything acknowledged so far is durable on the backing. @throws StorageError, for good once a sync has failed */
  async syncBacking(): Promise<void> {
    if (this.#unsynced !== undefined) throw this.#unsynced
    await this.#native?.syncBacking()
  }

  #open(): NativeVolume {
    const { name, path: backing, kind, sizeBytes } = this.definition
    const native = this.#options.intercept.openVolume({
      name,
      path: backing,
      sizeBytes: kind === 'raw' ? sizeBytes : 0,
      direct: this.#options.direct,
      readOnly: false,
      syncBacking: kind === 'raw',
      threads: this.#options.threads,
      onLost: (message) => {
        this.#lost = message
        this.#options.onLost(this, message)
      },
    })
    if (native.sizeBytes === sizeBytes) return native
    void native.close()
    throw new StorageError('SIZE_CHANGED', {
      op: 'volume attach',
      object: name,
      hint: `${backing} has ${native.sizeBytes} bytes, the volume ${sizeBytes}. Give it its old size back, or remove the volume and adopt it anew.`,
    })
  }

  /** Detach and close; what failed before it changed anything leaves the volume attached. */
  async #release(): Promise<void> {
    const native = this.#native
    assert(native)
    await native.detach()
    if (this.#device !== null) await removeLink(this.name, this.#device)
    this.#device = null
    this.#lost = undefined
    // Still open for a checkpoint that runs meanwhile: closed first, it would count these writes as safe.
    let failure: unknown
    await native.syncBacking().catch((error) => {
      failure = error
    })
    this.#unsynced ??= failure
    this.#native = undefined
    await this.#closeNative(native)
    await rm(await this.#mountPoint(), { force: true })
    if (failure !== undefined) throw failure
  }

  async #closeNative(native: NativeVolume): Promise<void> {
    try {
      if (this.#capture) await native.setJournal(null, volumeIndex(0))
    } finally {
      await native.close()
    }
  }

  async #mountPoint(): Promise<string> {
    const file = path.join(await makeFolder(this.#options.runDirectory), this.name)
    await writeFile(file, '', { flag: 'a', mode: 0o600 }).catch(() => undefined)
    return file
  }
}
