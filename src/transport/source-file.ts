import { type FileHandle, open } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { crc32c } from '../block/crc32c.js'
import { StorageError } from '../block/storage-error.js'

const CHUNK_BYTES = 256 * 1024
/** Copied by one call, which nothing interrupts. */
const COPY_BYTES = 4 * 1024 * 1024

/** A file of so much is one of many: a first copy, or a long epoch. */
const LARGE_BYTES = 8 * 1024 * 1024

interface CopyCalls {
  dropCache(fd: number): void
  copyRange(from: number, fromOffset: number, to: number, toOffset: number, lengthBytes: number): Promise<number>
}

const native: CopyCalls = createRequire(import.meta.url)('../../../build/Release/tidemark_file.node')

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

  /**
   * The whole file to the beginning of another, by the kernel where it can. Throws what keeps the other from being written
   * as it comes. @throws StorageError SOURCE_FILE
   */
  async copyTo(target: FileHandle, signal: AbortSignal, onProgress?: (bytes: number) => void): Promise<void> {
    for (let offset = 0; offset < this.lengthBytes; ) {
      signal.throwIfAborted()
      const wanted = Math.min(COPY_BYTES, this.lengthBytes - offset)
      let copied: number
      try {
        copied = await native.copyRange(this.handle.fd, offset, target.fd, offset, wanted)
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).syscall !== 'read') throw cause
        throw sourceFault(this.path, cause)
      }
      if (copied === 0) throw sourceFault(this.path, 'it became shorter while it was sent')
      offset += copied
      onProgress?.(copied)
    }
  }

  /**
   * Once its copy is durable: neither file is needed in memory, where they are large. What is copied next takes the same memory
   * again, and not that of what hosts use. What is small costs little, and an agent on this machine may read it a moment later.
   */
  leaveCache(target: FileHandle): void {
    if (this.lengthBytes < LARGE_BYTES) return
    for (const { fd } of [this.handle, target]) native.dropCache(fd)
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
