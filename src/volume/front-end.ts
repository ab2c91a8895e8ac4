import assert from 'node:assert/strict'
import { rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { makeFolder } from '../block/durable-file.js'
import { Exclusive } from '../block/exclusive.js'
import { StorageError } from '../block/storage-error.js'
import { type VolumeIndex, volumeIndex } from '../block/units.js'
import type { Intercept, NativeJournal, NativeRegions, NativeVolume, VolumeCounters } from '../intercept/addon.js'
import { deviceLink, makeLink, removeLink } from './device-link.js'
import type { AttachOptions, HostVolume } from './host-volume.js'

export interface FrontEndOptions {
  readonly intercept: Intercept
  /** Holds the mount point of each volume. */
  readonly runDirectory: string
  /** Front-end threads. */
  readonly threads: number
  /** The device was lost: what the kernel said. */
  readonly onLost: (volume: HostVolume, message: string) => void
}

/** A volume opened natively. */
export interface OpenedVolume {
  readonly native: NativeVolume
  /** After detach() and unserve(). */
  readonly close: () => Promise<void>
}

/** A served file that a program still had open when nobody needed it any more is closed as soon as it can be. */
const closeAgainMs = 2_000

/** Where a volume's writes are recorded. */
interface Capture {
  readonly journal: NativeJournal | null
  readonly index: VolumeIndex
  readonly regions: NativeRegions | null
}

const idle: VolumeCounters = {
  reads: 0,
  writes: 0,
  flushes: 0,
  trims: 0,
  readBytes: 0,
  writtenBytes: 0,
  faults: 0,
  copiedBytes: 0,
  inFlight: 0,
  errors: 0,
}

/**
 * What is the same for every volume of this agent: opened natively while somebody needs it, its device and link while
 * attached, its journal while it is recorded.
 *
 * Where the bytes can only be reached through the front end (`servesFile`) it is open while held, too, and workers use
 * the file on the mount point. Otherwise they use the backing, which is open only while attached; detached, it belongs
 * to the administrator.
 */
export abstract class FrontEnd implements HostVolume {
  abstract readonly name: string
  abstract readonly kind: HostVolume['kind']
  abstract readonly sizeBytes: number
  abstract readonly readOnly: boolean
  abstract readonly path: string
  abstract nextData(offset: number): Promise<number | undefined>

  protected readonly options: FrontEndOptions
  protected abstract readonly servesFile: boolean
  readonly #exclusive = new Exclusive()
  #opened: OpenedVolume | undefined
  #device: string | null = null
  #attachedReadOnly = false
  #lost: string | undefined
  /** Why the backing may lack what was acknowledged. */
  #unsynced: unknown
  #capture: Capture | null = null
  #holdCount = 0
  #closeAgain: NodeJS.Timeout | undefined

  constructor(options: FrontEndOptions) {
    this.options = options
  }

  get device(): string | null {
    return this.#device
  }

  get link(): string | null {
    return this.#device === null ? null : deviceLink(this.name)
  }

  get attachedReadOnly(): boolean {
    return this.#attachedReadOnly
  }

  get lost(): string | undefined {
    return this.#lost
  }

  get logicalBlockBytes(): number {
    return this.#opened?.native.logicalBlockBytes ?? 0
  }

  counters(): VolumeCounters {
    return this.#opened?.native.counters() ?? idle
  }

  /** @param readOnly nobody needs to write it until it is closed again */
  protected abstract open(readOnly: boolean): Promise<OpenedVolume>

  checkUsable(): void {}

  attach(options: AttachOptions = {}): Promise<string> {
    return this.#exclusive.run(async () => {
      const readOnly = this.readOnly || options.readOnly === true
      if (this.#device !== null && this.#lost === undefined) {
        if (options.readOnly === undefined || readOnly === this.#attachedReadOnly) return this.#device
        throw this.#attachedOtherwise()
      }
      this.checkUsable()
      // What it could not sync is remembered; the host needs its device.
      await this.#closeLost().catch((error) => {
        if (this.#opened) throw error
      })
      const { native } = await this.#ensureOpen(readOnly)
      try {
        const { device } = await native.attach(this.mountPoint, { readOnly })
        this.#device = device
        this.#attachedReadOnly = readOnly
        await makeLink(this.name, device)
        return device
      } catch (error) {
        await this.#detach().catch(() => undefined)
        throw error
      }
    })
  }

  detach(): Promise<void> {
    return this.#exclusive.run(() => this.#detach())
  }

  hold(): Promise<void> {
    return this.#exclusive.run(async () => {
      if (this.servesFile) {
        await this.#closeLost()
        await this.#ensureOpen(false)
      }
      this.#holdCount += 1
    })
  }

  release(): Promise<void> {
    return this.#exclusive.run(async () => {
      assert(this.#holdCount > 0, `${this.name} is released more often than held`)
      this.#holdCount -= 1
      await this.#closeUnneeded()
    })
  }

  setJournal(
    journal: NativeJournal | null,
    index: VolumeIndex = volumeIndex(0),
    regions: NativeRegions | null = null,
  ): Promise<void> {
    return this.#exclusive.run(async () => {
      const twice = journal !== null && this.#capture !== null && this.#capture.journal !== null
      assert(!twice, `${this.name} is recorded twice`)
      await this.#opened?.native.setJournal(journal, index, regions)
      this.#capture = journal || regions ? { journal, index, regions } : null
    })
  }

  async syncBacking(): Promise<void> {
    if (this.#unsynced !== undefined) throw this.#unsynced
    await this.#opened?.native.syncBacking()
  }

  protected get mountPoint(): string {
    return path.join(this.options.runDirectory, this.name)
  }

  /** The kernel ended the connection. */
  protected noteLost(message: string): void {
    this.#lost = message
    this.options.onLost(this, message)
  }

  async #ensureOpen(readOnly: boolean): Promise<OpenedVolume> {
    if (this.#opened) return this.#opened
    await makeFolder(this.options.runDirectory)
    await writeFile(this.mountPoint, '', { flag: 'a', mode: 0o600 }).catch(() => undefined)
    await this.options.intercept.releaseStale(this.mountPoint)
    const opened = await this.open(readOnly)
    this.#lost = undefined
    try {
      if (this.#capture) {
        const { journal, index, regions } = this.#capture
        await opened.native.setJournal(journal, index, regions)
      }
      if (this.servesFile) await opened.native.serve(this.mountPoint)
    } catch (error) {
      await this.#closeNative(opened)
      throw error
    }
    this.#opened = opened
    return opened
  }

  async #closeLost(): Promise<void> {
    if (this.#opened && this.#lost !== undefined) {
      await this.#removeDevice()
      await this.#close()
    }
  }

  async #detach(): Promise<void> {
    const wasAttached = this.#device !== null
    await this.#removeDevice()
    await this.#closeUnneeded()
    if (this.#opened && wasAttached) await this.#sync(this.#opened.native)
  }

  /** What fails before it changed anything leaves the volume attached. */
  async #removeDevice(): Promise<void> {
    if (this.#device === null) return
    assert(this.#opened)
    await this.#opened.native.detach()
    await removeLink(this.name, this.#device)
    this.#device = null
    this.#attachedReadOnly = false
  }

  async #closeUnneeded(): Promise<void> {
    clearTimeout(this.#closeAgain)
    const needed = this.#device !== null || (this.servesFile && this.#holdCount > 0)
    if (!this.#opened || needed) return
    try {
      await this.#close()
    } catch (error) {
      // Nobody waits for this: a program that reads the served file is let finish.
      if (!this.#opened || !this.servesFile || !isBusy(error)) throw error
      const again = (): unknown => this.#exclusive.run(() => this.#closeUnneeded()).catch(() => undefined)
      this.#closeAgain = setTimeout(again, closeAgainMs).unref()
    }
  }

  async #close(): Promise<void> {
    const opened = this.#opened
    assert(opened)
    if (this.servesFile) await opened.native.unserve()
    this.#lost = undefined
    // Still open for a checkpoint that runs meanwhile: closed first, it would count these writes as safe.
    const synced = this.#sync(opened.native)
    await synced.catch(() => undefined)
    this.#opened = undefined
    await this.#closeNative(opened)
    await rm(this.mountPoint, { force: true })
    await synced
  }

  /** A failure is remembered: what was acknowledged before it may be gone whatever a later sync says. */
  async #sync(native: NativeVolume): Promise<void> {
    try {
      await native.syncBacking()
    } catch (error) {
      this.#unsynced ??= error
      throw error
    }
  }

  async #closeNative(opened: OpenedVolume): Promise<void> {
    try {
      if (this.#capture) await opened.native.setJournal(null, volumeIndex(0))
    } finally {
      await opened.close()
    }
  }

  #attachedOtherwise(): StorageError {
    const how = this.#attachedReadOnly ? 'read-only' : 'read-write'
    return new StorageError('ATTACHED_OTHERWISE', {
      op: 'volume attach',
      object: this.name,
      hint: `It is attached ${how}. Detach it first: tidemark volume detach ${this.name}`,
    })
  }
}

function isBusy(error: unknown): boolean {
  return error instanceof StorageError && error.code === 'DEVICE_BUSY'
}
