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
  /** Holds the mount point of each volume; one below it those of served files. */
  readonly runDirectory: string
  /** Front-end threads. */
  readonly threads: number
  /** The device was lost: what the kernel said. */
  readonly onLost: (volume: HostVolume, message: string) => void
  /** The device will not outlive this agent: the kernel cannot hand it over. */
  readonly onNotKept?: (volume: HostVolume) => void
}

/** Below the run directory. No volume is called so: names of operators begin with no dot. */
export const servedFolder = '.served'

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
 * a served file of their own: a device outlives the agent, with requests that must wait until its journal is recovered;
 * the workers that recover it need answers before, and must not be kept by a connection that outlives them. Otherwise
 * they use the backing, which is open only while attached; detached, it belongs to the administrator.
 */
export abstract class FrontEnd implements HostVolume {
  abstract readonly name: string
  abstract readonly kind: HostVolume['kind']
  abstract readonly sizeBytes: number
  abstract readonly readOnly: boolean
  abstract readonly path: string

  protected readonly options: FrontEndOptions
  protected abstract readonly servesFile: boolean
  readonly #exclusive = new Exclusive()
  #opened: OpenedVolume | undefined
  #isServed = false
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
        throw attachedOtherwise(this)
      }
      this.checkUsable()
      // What it could not sync is remembered; the host needs its device.
      await this.#closeLost().catch((error) => {
        if (this.#opened) throw error
      })
      // Not for a hold: the device of a snapshot that is written to is another object's.
      await makeFolder(this.options.runDirectory)
      await this.options.intercept.releaseStale(this.mountPoint)
      const { native } = await this.#ensureOpen(readOnly)
      try {
        const device = await this.#attachNative(native, readOnly)
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
        const { native } = await this.#ensureOpen(false)
        await this.#serve(native)
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

  /** Of the device: its host's alone. */
  protected get mountPoint(): string {
    return path.join(this.options.runDirectory, this.name)
  }

  protected get servedFile(): string {
    return path.join(this.options.runDirectory, servedFolder, this.name)
  }

  /** The kernel ended the connection. */
  protected noteLost(message: string): void {
    this.#lost = message
    this.options.onLost(this, message)
  }

  async #ensureOpen(readOnly: boolean): Promise<OpenedVolume> {
    if (this.#opened) return this.#opened
    const opened = await this.open(readOnly)
    this.#lost = undefined
    try {
      if (this.#capture) {
        const { journal, index, regions } = this.#capture
        await opened.native.setJournal(journal, index, regions)
      }
    } catch (error) {
      await this.#closeNative(opened)
      throw error
    }
    this.#opened = opened
    if (this.servesFile && this.#holdCount > 0) await this.#serve(opened.native)
    return opened
  }

  async #attachNative(native: NativeVolume, readOnly: boolean): Promise<string> {
    await makeMountPoint(this.mountPoint)
    try {
      const { device, kept } = await native.attach(this.mountPoint, { readOnly })
      if (!kept) this.options.onNotKept?.(this)
      return device
    } catch (error) {
      await rm(this.mountPoint, { force: true }).catch(() => undefined)
      throw error
    }
  }

  async #serve(native: NativeVolume): Promise<void> {
    if (this.#isServed) return
    await makeFolder(path.dirname(this.servedFile))
    await this.options.intercept.releaseStale(this.servedFile)
    await makeMountPoint(this.servedFile)
    try {
      await native.serve(this.servedFile)
      this.#isServed = true
    } catch (error) {
      await this.#closeUnneeded().catch(() => undefined)
      throw error
    }
  }

  /** @throws StorageError DEVICE_BUSY while a program reads the file */
  async #unserve(native: NativeVolume): Promise<void> {
    if (!this.#isServed) return
    await native.unserve()
    this.#isServed = false
    await rm(this.servedFile, { force: true })
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
    // The link first: when this is cut short, the mount point tells the next agent which link to look at.
    await removeLink(this.name, this.#device)
    await rm(this.mountPoint, { force: true })
    this.#device = null
    this.#attachedReadOnly = false
  }

  async #closeUnneeded(): Promise<void> {
    clearTimeout(this.#closeAgain)
    if (!this.#opened || (this.servesFile && this.#holdCount > 0)) return
    try {
      await this.#unserve(this.#opened.native)
      if (this.#device === null) await this.#close()
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
    await this.#unserve(opened.native)
    this.#lost = undefined
    // Still open for a checkpoint that runs meanwhile: closed first, it would count these writes as safe.
    const synced = this.#sync(opened.native)
    await synced.catch(() => undefined)
    this.#opened = undefined
    await this.#closeNative(opened)
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
}

export function attachedOtherwise({ name, attachedReadOnly }: HostVolume): StorageError {
  return new StorageError('ATTACHED_OTHERWISE', {
    op: 'volume attach',
    object: name,
    hint: `It is attached ${attachedReadOnly ? 'read-only' : 'read-write'}. Detach it first: tidemark volume detach ${name}`,
  })
}

/** `wx`: what a dead or silent front end lies on is not opened. */
async function makeMountPoint(file: string): Promise<void> {
  await writeFile(file, '', { flag: 'wx', mode: 0o600 }).catch(() => undefined)
}

function isBusy(error: unknown): boolean {
  return error instanceof StorageError && error.code === 'DEVICE_BUSY'
}
