import { closeSync, constants, openSync, readSync, statSync, writeSync } from 'node:fs'
import { errnoOf, StorageError } from '../block/storage-error.js'
import { KiB } from '../block/units.js'
import { fileCalls } from '../intercept/file-calls.js'

/**
 * Moved by one call. A file that a front end serves takes whole sectors, and the kernel splits what needs more than 256
 * pages of the caller's memory, which is anywhere in a page: 1 MiB would come as two pieces of odd lengths.
 */
const transferBytes = 512 * KiB

/**
 * A flat file, block device or served file as bytes, written synchronously: for worker threads and for replay before a device is
 * attached. Nothing is durable until sync().
 */
export class Backing {
  readonly path: string
  readonly #fd: number

  /** @throws StorageError BACKING_UNAVAILABLE */
  constructor(path: string, mode: 'read' | 'write') {
    this.path = path
    this.#fd = this.#try('open', () => openSync(path, mode === 'read' ? constants.O_RDONLY : writeFlags(path)))
  }

  /** Fills the buffer; what lies beyond the end reads as zeros. */
  read(offset: number, into: Uint8Array): void {
    let done = 0
    while (done < into.length) {
      const wanted = Math.min(transferBytes, into.length - done)
      const count = this.#try('read', () => readSync(this.#fd, into, done, wanted, offset + done))
      if (count === 0) break
      done += count
    }
    into.fill(0, done)
  }

  /** Where data begin at or after the offset; undefined when only zeros follow. */
  nextData(offset: number): number | undefined {
    const found = this.#try('seek', () => fileCalls.nextData(this.#fd, offset))
    return found < 0 ? undefined : found
  }

  write(offset: number, bytes: Uint8Array): void {
    let done = 0
    while (done < bytes.length) {
      const wanted = Math.min(transferBytes, bytes.length - done)
      done += this.#try('write', () => writeSync(this.#fd, bytes, done, wanted, offset + done))
    }
  }

  /** Each payload at its offset, in any order. No two may touch the same bytes. Each is tried, whatever becomes of the others. */
  writeMany(payloads: readonly Uint8Array[], offsets: readonly number[]): void {
    this.#try('write', () => fileCalls.writeMany(this.#fd, payloads, offsets))
  }

  /** Reads as zeros afterwards, and frees the space where the file system can. */
  zero(offset: number, lengthBytes: number): void {
    this.#try('zero', () => fileCalls.punchHole(this.#fd, offset, lengthBytes))
  }

  /** What is read next comes from the disk, not from the page cache, as far as it was synced. */
  dropCache(): void {
    this.#try('drop what is cached', () => fileCalls.dropCache(this.#fd))
  }

  sync(): void {
    this.#try('sync', () => fileCalls.syncData(this.#fd))
  }

  close(): void {
    closeSync(this.#fd)
  }

  #try<T>(op: string, call: () => T): T {
    try {
      return call()
    } catch (cause) {
      const full = errnoOf(cause) === 'ENOSPC'
      throw new StorageError(full ? 'BACKING_FULL' : 'BACKING_UNAVAILABLE', {
        op,
        object: this.path,
        cause,
        retry: 'later',
        hint: full
          ? 'Free space on the file system that holds it, or, where it is thin, in its pool (tidemark pool extend).'
          : 'Check that the file or device is there and healthy, or the pool that it is in (tidemark pool list).',
      })
    }
  }
}

/** A device that somebody else mounted meanwhile is not written under them. */
function writeFlags(path: string): number {
  const { O_RDWR, O_EXCL } = constants
  return statSync(path).isBlockDevice() ? O_RDWR | O_EXCL : O_RDWR
}
