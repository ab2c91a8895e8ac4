import { createRequire } from 'node:module'

interface FileCalls {
  /** The range reads as zeros afterwards; space is freed where the file system can. Blocks the thread. */
  punchHole(fd: number, offset: number, lengthBytes: number): void
  /** Where data begin at or after the offset; -1 when only holes follow. */
  nextData(fd: number, offset: number): number
  /** What is cached of the file and was synced is read from the disk when it is read next. */
  dropCache(fd: number): void
  /** What the file holds is durable: an fdatasync that may be believed. Blocks the thread. */
  syncData(fd: number): void
  /**
   * Each payload at its offset, in any order, several at once where that is faster. No two may touch the same bytes. Each is tried,
   * whatever becomes of the others. Blocks the thread.
   */
  writeMany(fd: number, payloads: readonly Uint8Array[], offsets: readonly number[]): void
  /** An exclusive advisory lock that ends with the descriptor; false when another process holds it. */
  lock(fd: number): boolean
}

/** The file calls Node does not have. Stateless: worker threads may load it. Errors carry an errno code. */
export const fileCalls: FileCalls = createRequire(import.meta.url)('../../../build/Release/tidemark_file.node')
