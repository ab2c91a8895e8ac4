import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import path from 'node:path'
import { StorageError } from '../block/storage-error.js'
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
 * @throws StorageError STATE_LOCKED naming the process that has it
 */
export async function lockState(directory: string): Promise<() => void> {
  const file = path.join(directory, 'lock')
  const fd = openSync(file, 'a+', 0o600)
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

/** Whether the main thread of the process that wrote this number is gone, and the process is not. */
function isEnding(pid: string): boolean {
  try {
    return /^State:\s+[ZX]/m.test(readFileSync(`/proc/${Number.parseInt(pid, 10)}/status`, 'latin1'))
  } catch {
    return false
  }
}
