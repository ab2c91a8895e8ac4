import type { ReportEvent } from '../block/event-log.js'
import type { ProcessMemory } from '../intercept/addon.js'
import { intercept } from '../intercept/intercept.js'

/** What this process could not be given, in words. */
let missing: string[] = []

/**
 * Protect this process from waiting for itself. Called before anything else is opened, or even loaded: the program may
 * begin again in the same process, and then what was opened is gone, but for the standard descriptors.
 */
export function protectProcess(): void {
  const words = [process.argv0, ...process.execArgv, ...process.argv.slice(1)]
  missing = describeMissing(intercept.protectProcess(process.execPath, words))
}

/** Said when there is somewhere to say it. */
export function reportUnprotected(stateDirectory: string, report: ReportEvent): void {
  if (missing.length === 0) return
  const text = `${missing.join('; ')}. It goes on; where memory is short hosts may wait for long. Run it as root, with CAP_SYS_RESOURCE and CAP_IPC_LOCK.`
  report({ severity: 'warning', code: 'MEMORY_NOT_PROTECTED', object: stateDirectory, text })
}

export function describeMissing({ flusher, locked, score }: ProcessMemory): string[] {
  return [
    ...(flusher ? [] : ['The agent may wait in an allocation for pages of its own devices']),
    ...(locked ? [] : ['Its memory is not locked']),
    ...(score ? [] : ['It is not spared when memory is short']),
  ]
}
