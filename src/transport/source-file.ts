import { type FileHandle, open } from 'node:fs/promises'
import { crc32c } from '../block/crc32c.js'
import { StorageError } from '../block/storage-error.js'

const CHUNK_BYTES = 256 * 1024

/** The local file of a put, held open so that one and the same content is read whatever happens to its name. */
export class SourceFile {
  private constructor(
    readonly path: string,
    readonly lengthBytes: number,
    readonly handle: FileHandle,
  ) {}

  /** @throws StorageError SOURCE_FILE when there is no such file to read */
  static async open(path: string): Promise<SourceFile> {
    try {
      const handle = await open(path, 'r')
      const facts = await handle.stat()
      if (facts.isFile()) return new SourceFile(path, facts.size, handle)
      await handle.close()
    } catch (cause) {
      throw sourceFault(path, cause)
    }
    throw sourceFault(path, 'not a regular file')
  }

  /** Bytes [start, end), a chunk at a time. @throws StorageError SOURCE_FILE */
  async *read(start: number, end: number, signal?: AbortSignal): AsyncGenerator<Buffer> {
    for (let offset = start; offset < end; ) {
      signal?.throwIfAborted()
      // A new buffer each time: sockets hold on to what was written to them.
      const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, end - offset))
      let bytesRead: number
      try {
        bytesRead = (await this.handle.read(chunk, 0, chunk.length, offset)).bytesRead
      } catch (cause) {
        throw sourceFault(this.path, cause)
      }
      if (bytesRead === 0) throw sourceFault(this.path, 'it became shorter while it was sent')
      offset += bytesRead
      yield chunk.subarray(0, bytesRead)
    }
  }

  /** CRC-32C of bytes [start, end). */
  async checksum(start: number, end: number, signal: AbortSignal): Promise<number> {
    let sum = 0
    for await (const chunk of this.read(start, end, signal)) sum = crc32c(chunk, sum)
    return sum
  }

  async close(): Promise<void> {
    await this.handle.close()
  }
}

function sourceFault(path: string, cause: unknown): StorageError {
  return new StorageError('SOURCE_FILE', {
    op: 'send',
    object: path,
    cause,
    retry: 'later',
    hint: 'The file to be sent cannot be read here. Check the disk of the source buffer; if the file is lost, initialize the stream again.',
  })
}
