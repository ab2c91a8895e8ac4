import type { ReportEvent } from '../block/event-log.js'
import { StorageError } from '../block/storage-error.js'

/**
 * An error that nobody caught ends the agent at once, and says why; the next one goes on from what is on the disk, and hosts
 * wait for it.
 *
 * By a signal: exit() waits for threads, and one of those may wait for an answer of this one (a commit of the state does).
 * Such an agent would neither work nor make room for the next.
 */
export function endOnUncaught(stateDirectory: string, report: ReportEvent): void {
  process.on('uncaughtException', (error) => {
    try {
      const text = error instanceof StorageError ? `${error.message}. ${error.hint}` : (error.stack ?? String(error))
      report({ severity: 'error', code: 'AGENT_FAILED', object: stateDirectory, text })
    } finally {
      process.kill(process.pid, 'SIGKILL')
    }
  })
}
