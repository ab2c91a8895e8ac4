/**
 * Moving opaque named files between two sites. A transport knows nothing of blocks and trusts nothing it reads.
 *
 * The remote side is one flat folder for each stream. A file appears under its name only when it is complete: it is
 * written under a temporary name (TEMPORARY_SUFFIX) and renamed. All calls may run in parallel; an implementation
 * queues what its protocol cannot do at once.
 */
export interface Transport {
  /**
   * Send a local file as `folder/name`, replacing what is there. Resumes a partial upload of the same name and length
   * when the far side kept one.
   * @throws StorageError LINK_DOWN (retry later), ACCESS_DENIED, REMOTE_FULL, NOT_FOUND
   */
  put(folder: string, name: string, localPath: string, options: TransferOptions): Promise<void>
  /** Complete files only, in name order. An absent folder is an empty one. At most LIST_LIMIT entries. */
  list(folder: string, signal: AbortSignal): Promise<RemoteFile[]>
  /** A whole small file (an acknowledgement), or undefined when it is not there. @throws REMOTE_FILE_TOO_LARGE */
  read(folder: string, name: string, limitBytes: number, signal: AbortSignal): Promise<Buffer | undefined>
  /** Removing what is not there is no error. */
  remove(folder: string, name: string, signal: AbortSignal): Promise<void>
  /** Connect, write, list, read back and remove a small file. @throws StorageError that names the exact fault */
  test(signal: AbortSignal): Promise<TransportTest>
  close(): Promise<void>
}

export interface TransferOptions {
  readonly signal: AbortSignal
  /** Called with the bytes sent since the last call. */
  readonly onProgress?: (bytes: number) => void
}

export interface RemoteFile {
  readonly name: string
  readonly lengthBytes: number
}

export interface TransportTest {
  /** Where it went, without secrets. */
  readonly endpoint: string
  readonly roundTripMs: number
}

export const TEMPORARY_SUFFIX = '.partial'
export const LIST_LIMIT = 100_000
