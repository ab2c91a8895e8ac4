import { StorageError } from '../block/storage-error.js'
import { WorkerCalls } from '../block/worker-calls.js'

/** What lies on a block device or in a file. At least one of type and partitionTable, unless several claim it. */
export interface Content {
  /** File system, RAID or LVM member, swap or encrypted container: `ext4`, `LVM2_member`, `crypto_LUKS`. */
  readonly type?: string
  /** `gpt`, `dos`... */
  readonly partitionTable?: string
  readonly label?: string
  readonly uuid?: string
  /** For people: `an ext4 file system labelled "home"`. */
  readonly description: string
}

/**
 * What libblkid recognizes, or undefined for nothing: asked before anything is overwritten. Reads only. In a process of its
 * own: a slow disk holds nobody up, and what the library makes of hostile bytes ends nobody else.
 *
 * @throws StorageError PROBE_FAILED when it cannot be read; then nothing may be assumed about it
 */
export async function probe(path: string): Promise<Content | undefined> {
  const worker = new WorkerCalls(new URL('./probe-worker.js', import.meta.url))
  try {
    return await worker.call<Content | undefined>('probe', path)
  } catch (cause) {
    if (cause instanceof StorageError) throw cause
    const hint =
      "What lies there could not be looked at, so nothing is overwritten. Try again; look at the kernel's log (dmesg)."
    throw new StorageError('PROBE_FAILED', { op: 'probe', object: path, hint, cause })
  } finally {
    await worker.close()
  }
}
