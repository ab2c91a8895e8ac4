import { constants } from 'node:fs'
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { ALIGNMENT_BYTES, alignedBuffer, isAligned } from '../block/aligned-buffer.js'
import { syncDirectory } from '../block/durable-file.js'
import { errnoOf, StorageError } from '../block/storage-error.js'
import { MiB } from '../block/units.js'

/**
 * A file of so much goes past the page cache: its pages would cost more than all else that is done to it. What is smaller
 * is in memory when it is sent a moment later.
 */
const directBytes = MiB

/** The files of one epoch on their way to the source buffer, in any order. */
export class PartWriting {
  readonly #directory: string
  readonly #files: Promise<void>[] = []

  constructor(directory: string) {
    this.#directory = directory
  }

  /** @param whenOver the bytes are not needed any more */
  begin(name: string, bytes: Buffer, whenOver: () => void): void {
    const file = writeFile(path.join(this.#directory, name), bytes).finally(whenOver)
    // Whoever waits for all of them is told.
    file.catch(() => undefined)
    this.#files.push(file)
  }

  /** Nothing is written any more; never rejects. */
  async over(): Promise<void> {
    await Promise.allSettled(this.#files)
  }

  /**
   * All are durable under their names. Nothing is written any more when it rejects.
   * @throws StorageError BUFFER_DISK_FULL, BUFFER_UNAVAILABLE
   */
  async durable(): Promise<void> {
    const written = await Promise.allSettled(this.#files)
    const failed = written.find((result) => result.status === 'rejected')
    if (failed) throw failed.reason
    await syncDirectory(this.#directory).catch((cause) => {
      throw cannotWrite(this.#directory, cause)
    })
  }
}

/** Durable under its name, except for the folder's entry. */
async function writeFile(file: string, bytes: Buffer): Promise<void> {
  const temporary = `${file}.tmp`
  try {
    const isWritten = bytes.length >= directBytes && isAligned(bytes) && (await writeDirectly(temporary, bytes))
    if (!isWritten) await withNew(temporary, 0, (handle) => writeAll(handle, bytes, 0))
    await rename(temporary, file)
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => undefined)
    throw cannotWrite(file, cause)
  }
}

/** @returns false: this file system, or the disk below it, does not take it so */
async function writeDirectly(file: string, bytes: Buffer): Promise<boolean> {
  const end = bytes.length - (bytes.length % ALIGNMENT_BYTES)
  try {
    await withNew(file, constants.O_DIRECT, async (handle) => {
      await writeAll(handle, bytes.subarray(0, end), 0)
      if (end === bytes.length) return
      const rest = alignedBuffer(ALIGNMENT_BYTES).fill(0)
      bytes.copy(rest, 0, end)
      await writeAll(handle, rest, end)
      await handle.truncate(bytes.length)
    })
    return true
  } catch (error) {
    if (errnoOf(error) !== 'EINVAL') throw error
    return false
  }
}

async function withNew(file: string, flags: number, write: (handle: FileHandle) => Promise<void>): Promise<void> {
  const handle = await open(file, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | flags, 0o600)
  try {
    await write(handle)
    await handle.datasync()
  } finally {
    await handle.close()
  }
}

async function writeAll(handle: FileHandle, bytes: Buffer, at: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += (await handle.write(bytes, done, bytes.length - done, at + done)).bytesWritten
  }
}

function cannotWrite(object: string, cause: unknown): StorageError {
  const full = errnoOf(cause) === 'ENOSPC'
  return new StorageError(full ? 'BUFFER_DISK_FULL' : 'BUFFER_UNAVAILABLE', {
    op: 'write replication file',
    object,
    cause,
    retry: 'later',
    hint: full
      ? 'Free space on the file system of the source buffer; the journal collects meanwhile.'
      : 'Check the file system of the source buffer; the journal collects meanwhile.',
  })
}
