import { constants, type Stats } from 'node:fs'
import { type FileHandle, open, readFile } from 'node:fs/promises'
import { errnoOf, StorageError } from '../block/storage-error.js'
import { sectorBytes } from '../block/units.js'
import { fileCalls } from '../intercept/file-calls.js'

/**
 * A file or block device of a pool as bytes, read and written through the page cache by threads of the runtime: nothing
 * here waits on the JavaScript thread. Nothing is durable until sync().
 */
export class DeviceFile {
  readonly path: string
  readonly isBlockDevice: boolean
  readonly #handle: FileHandle
  #claim: FileHandle | null = null

  private constructor(path: string, handle: FileHandle, isBlockDevice: boolean) {
    this.path = path
    this.#handle = handle
    this.isBlockDevice = isBlockDevice
  }

  /**
   * @param lock held against everybody else until unlock() or close(), in another descriptor than the one for data
   * @throws StorageError NOT_FOUND, NOT_A_FILE_OR_BLOCK_DEVICE, POOL_OPEN, DEVICE_FAILED
   */
  static async open(path: string, mode: 'read' | 'write', lock: boolean): Promise<DeviceFile> {
    const handle = await attempt('open', path, () =>
      open(path, mode === 'read' ? constants.O_RDONLY : constants.O_RDWR),
    )
    try {
      const facts = await attempt('stat', path, () => handle.stat())
      if (!facts.isFile() && !facts.isBlockDevice()) throw notADevice(path)
      const device = new DeviceFile(path, handle, facts.isBlockDevice())
      if (lock) await device.#lock()
      return device
    } catch (error) {
      await handle.close()
      throw error
    }
  }

  async sizeBytes(): Promise<number> {
    return deviceSize(this.path, await attempt('stat', this.path, () => this.#handle.stat()))
  }

  /** @throws StorageError DEVICE_FAILED, also when it ends before */
  async read(offset: number, lengthBytes: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafe(lengthBytes)
    for (let done = 0; done < lengthBytes; ) {
      const { bytesRead } = await attempt('read', this.path, () =>
        this.#handle.read(bytes, done, lengthBytes - done, offset + done),
      )
      if (bytesRead === 0) {
        const cause = new Error(`it ends before ${offset + lengthBytes}`)
        throw new StorageError('DEVICE_FAILED', { op: 'pool read', object: this.path, cause, hint: failedHint })
      }
      done += bytesRead
    }
    return bytes
  }

  async write(offset: number, bytes: Buffer): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const { bytesWritten } = await attempt('write', this.path, () =>
        this.#handle.write(bytes, done, bytes.length - done, offset + done),
      )
      done += bytesWritten
    }
  }

  /** Zeros, as written blocks: a file has them for certain then. */
  async writeZeros(offset: number, lengthBytes: number): Promise<void> {
    const zeros = Buffer.alloc(Math.min(lengthBytes, zeroPieceBytes))
    for (let done = 0; done < lengthBytes; done += zeros.length) {
      await this.write(offset + done, zeros.subarray(0, Math.min(zeros.length, lengthBytes - done)))
    }
  }

  /** The size of a new file; what was not written reads as zeros and takes no space. */
  async extendTo(sizeBytes: number): Promise<void> {
    await attempt('extend', this.path, () => this.#handle.truncate(sizeBytes))
  }

  async sync(): Promise<void> {
    await attempt('sync', this.path, () => this.#handle.datasync())
  }

  /** A new file's size and name are durable too. */
  async syncWhole(): Promise<void> {
    await attempt('sync', this.path, () => this.#handle.sync())
  }

  async unlock(): Promise<void> {
    const claim = this.#claim
    this.#claim = null
    await claim?.close()
  }

  async close(): Promise<void> {
    await this.unlock()
    await this.#handle.close()
  }

  /** The kernel refuses a second O_EXCL of a block device, and a mounted one; udev locks those, so a lock would not do. */
  async #lock(): Promise<void> {
    const flags = this.isBlockDevice ? constants.O_RDONLY | constants.O_EXCL : constants.O_RDONLY
    const claim = await attempt('lock', this.path, () => open(this.path, flags))
    if (!this.isBlockDevice && !fileCalls.lock(claim.fd)) {
      await claim.close()
      throw inUse(this.path)
    }
    this.#claim = claim
  }
}

/** Of a file, or of a block device as the kernel knows it. */
export async function deviceSize(path: string, facts: Stats): Promise<number> {
  if (!facts.isBlockDevice()) return facts.size
  const major = Number((BigInt(facts.rdev) >> 8n) & 0xfffn)
  const minor = Number((BigInt(facts.rdev) & 0xffn) | ((BigInt(facts.rdev) >> 12n) & 0xfff00n))
  const text = await attempt('size', path, () => readFile(`/sys/dev/block/${major}:${minor}/size`, 'utf8'))
  return Number(text) * sectorBytes
}

const zeroPieceBytes = 4 * 1024 * 1024
const failedHint = 'Check the device or file system and its cables, and the kernel log (dmesg).'

function notADevice(path: string): StorageError {
  const hint = 'Give a block device or a flat file.'
  return new StorageError('NOT_A_FILE_OR_BLOCK_DEVICE', { op: 'pool open', object: path, hint })
}

function inUse(path: string, cause?: unknown): StorageError {
  return new StorageError('POOL_OPEN', {
    op: 'pool open',
    object: path,
    cause,
    hint: 'An agent or another program has it open. Export the pool there, or stop that program.',
  })
}

async function attempt<T>(op: string, path: string, step: () => Promise<T>): Promise<T> {
  try {
    return await step()
  } catch (cause) {
    const errno = errnoOf(cause)
    if (errno === 'EBUSY') throw inUse(path, cause)
    const detail = { op: `pool ${op}`, object: path, cause }
    if (errno === 'ENOENT')
      throw new StorageError('NOT_FOUND', { ...detail, hint: 'Check the path; nothing is there.' })
    if (errno === 'ENOSPC') {
      throw new StorageError('DISK_FULL', { ...detail, hint: 'Free space on the file system that holds it.' })
    }
    throw new StorageError('DEVICE_FAILED', { ...detail, hint: failedHint })
  }
}
