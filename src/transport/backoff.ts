import { setTimeout as delay } from 'node:timers/promises'
import { isLinkFault } from './faults.js'

export interface RetryLimits {
  /** Tries of one call without progress between them. */
  readonly attempts: number
  readonly firstBackoffMs: number
  readonly lastBackoffMs: number
}

/** About four seconds in all: long enough for a server that restarts, short enough for a status that tells the truth. */
export const RETRY_LIMITS: RetryLimits = { attempts: 5, firstBackoffMs: 250, lastBackoffMs: 2_000 }

/** For `destination test`: the first fault is the answer. */
export const NO_RETRY: RetryLimits = { attempts: 1, firstBackoffMs: 0, lastBackoffMs: 0 }

/**
 * Try again while the fault is one of the way, waiting longer each time.
 *
 * @param attempt calls `progress` whenever something got through; that is a new beginning for the count
 * @throws the last fault, or the signal's reason
 */
export async function withRetry<T>(
  limits: RetryLimits,
  signal: AbortSignal,
  attempt: (progress: () => void) => Promise<T>,
): Promise<T> {
  for (let failures = 0; ; ) {
    signal.throwIfAborted()
    try {
      return await attempt(() => {
        failures = 0
      })
    } catch (error) {
      signal.throwIfAborted()
      failures++
      if (!isLinkFault(error) || failures >= limits.attempts) throw error
      const backoffMs = Math.min(limits.firstBackoffMs * 2 ** (failures - 1), limits.lastBackoffMs)
      await delay(backoffMs, undefined, { signal }).catch(() => undefined)
    }
  }
}
