import { closeSync, constants, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import path from 'node:path'
import { errnoOf, StorageError } from '../block/storage-error.js'
import { holdInWorkers } from '../block/worker-calls.js'
import { fileCalls } from '../intercept/file-calls.js'

/** The workers of an agent that was killed hold its lock until they have ended too, and so does what the kernel holds up. */
const patienceMs = 3_000
/** One that has ended but for a thread that waits for a disk, or for a device of its own until the keeper ends that. */
const endingPatienceMs = 60_000
const pollMs = 50

/**
 * One agent a state directory: two would write the same journals. The kernel ends the lock with the process.
 *
 * @returns what gives it back
 * @throws StorageError STATE_LOCKED naming the process that has it; UNSAFE_FOLDER when it is a link
 */
export async function lockState(directory: string): Promise<() => void> {
  const file = path.join(directory, 'lock')
  const fd = openLock(file)
  const begun = performance.now()
  let held = fileCalls.lock(fd)
  const patience = (): number => (isEnding(readFileSync(file, 'latin1')) ? endingPatienceMs : patienceMs)
  while (!held && performance.now() - begun < patience()) {
    await new Promise((resolve) => setTimeout(resolve, pollMs))
    held = fileCalls.lock(fd)
  }
  if (!held) {
    const holder = readFileSync(file, 'utf8').trim()
    closeSync(fd)
    throw new StorageError('STATE_LOCKED', {
      op: 'agent',
      object: directory,
      hint: `Another agent (pid ${holder || 'unknown'}) uses this state directory. Stop it first, or give --state another one.`,
    })
  }
  ftruncateSync(fd)
  writeSync(fd, `${process.pid}\n`)
  holdInWorkers(fd)
  return () => closeSync(fd)
}

/** It is truncated: what a link leads to would be lost. */
function openLock(file: string): number {
  const { O_RDWR, O_APPEND, O_CREAT, O_NOFOLLOW } = constants
  try {
    return openSync(file, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW, 0o600)
  } catch (cause) {
    if (errnoOf(cause) !== 'ELOOP') throw cause
    throw new StorageError('UNSAFE_FOLDER', { op: 'agent', object: file, cause, hint: 'It is a link. Remove it.' })
  }
}

/** Whether the main thread of the process that wrote this number is gone, and the process is not. */
function isEnding(pid: string): boolean {
  try {
    return /^State:\s+[ZX]/m.test(readFileSync(`/proc/${Number.parseInt(pid, 10)}/status`, 'latin1'))
  } catch {
    return false
  }
}
