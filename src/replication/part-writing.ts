import { open, rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { syncDirectory } from '../block/durable-file.js'
import { errnoOf, StorageError } from '../block/storage-error.js'

/** The files of one epoch on their way to the source buffer, in any order. */
export class PartWriting {
  readonly #directory: string
  readonly #files: Promise<void>[] = []

  constructor(directory: string) {
    this.#directory = directory
  }

  /** @param whenOver the pieces are not needed any more */
  begin(name: string, pieces: readonly Buffer[], whenOver: () => void): void {
    const file = writeFile(path.join(this.#directory, name), pieces).finally(whenOver)
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
async function writeFile(file: string, pieces: readonly Buffer[]): Promise<void> {
  const temporary = `${file}.tmp`
  try {
    const handle = await open(temporary, 'w', 0o600)
    try {
      for (const piece of pieces) {
        for (let done = 0; done < piece.length; ) {
          done += (await handle.write(piece, done, piece.length - done, null)).bytesWritten
        }
      }
      await handle.datasync()
    } finally {
      await handle.close()
    }
    await rename(temporary, file)
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => undefined)
    throw cannotWrite(file, cause)
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
