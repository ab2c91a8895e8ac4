import { readdir, readFile, stat } from 'node:fs/promises'
import { StorageError } from '../block/storage-error.js'

/** Left to what goes on anyhow: transfers, workers, clients, files that are applied. */
const spareDescriptors = 256
/** A volume that is attached has one for each thread of its front end, and a few more; so has a stream. */
const spareThreads = 64

/**
 * Refuse a new stream or device before the process runs out of descriptors or threads: at the limit itself a segment could
 * not be opened, or a file not received, and streams that were there before would suffer for it.
 *
 * @throws StorageError TOO_MANY_DESCRIPTORS, TOO_MANY_THREADS
 */
export async function checkHeadroom(op: string, object: string): Promise<void> {
  const [descriptors, limit] = await Promise.all([openDescriptors(), descriptorLimit()])
  if (descriptors + spareDescriptors > limit) {
    throw new StorageError('TOO_MANY_DESCRIPTORS', {
      op,
      object,
      hint: `The agent has ${descriptors} files open and may have ${limit}. Raise that (LimitNOFILE of its service, or ulimit -n), and restart it.`,
    })
  }
  const threads = await threadsLeft()
  if (threads < spareThreads) {
    throw new StorageError('TOO_MANY_THREADS', {
      op,
      object,
      hint: `The agent may begin ${threads} more threads. Raise that (TasksMax of its service), and restart it.`,
    })
  }
}

/** Since Linux 6.2 the size of the folder is their number. */
async function openDescriptors(): Promise<number> {
  const { size } = await stat('/proc/self/fd')
  return size > 0 ? size : (await readdir('/proc/self/fd')).length
}

/** Node has raised it to the hard limit when it started. */
async function descriptorLimit(): Promise<number> {
  const limits = await readFile('/proc/self/limits', 'latin1')
  const [, soft] = /^Max open files\s+(\d+)/m.exec(limits) ?? []
  return soft === undefined ? Number.POSITIVE_INFINITY : Number(soft)
}

/** Of the process's control group; others may have limits above it. */
async function threadsLeft(): Promise<number> {
  try {
    const [, group] = /^0::(.*)$/m.exec(await readFile('/proc/self/cgroup', 'latin1')) ?? []
    const folder = `/sys/fs/cgroup${group}`
    const [most, now] = await Promise.all(
      ['pids.max', 'pids.current'].map((name) => readFile(`${folder}/${name}`, 'latin1')),
    )
    return most!.trim() === 'max' ? Number.POSITIVE_INFINITY : Number(most) - Number(now)
  } catch {
    return Number.POSITIVE_INFINITY
  }
}
