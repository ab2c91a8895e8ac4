/**
 * The events after a number, then each new one as it happens, for one follower.
 *
 * Invariant: events are delivered in number order, each once. New events wait in a bounded list; when a slow reader
 * lets it run over, the list is dropped and the past is read again from where the reader is: nothing is lost.
 */
import type { AgentEvent, AgentOperations } from './agent-operations.js'

/** Events held for one slow reader. */
export const PENDING_LIMIT = 1000

export async function* eventFeed(
  operations: Pick<AgentOperations, 'events' | 'onEvent'>,
  afterNumber: number,
  signal: AbortSignal,
): AsyncGenerator<AgentEvent> {
  let cursor = afterNumber
  let pending: AgentEvent[] = []
  let behind = true
  let wake = () => {}
  const stop = operations.onEvent((event) => {
    if (pending.length < PENDING_LIMIT) pending.push(event)
    else {
      pending = []
      behind = true
    }
    wake()
  })
  const onAbort = () => wake()
  signal.addEventListener('abort', onAbort)
  try {
    while (!signal.aborted) {
      let batch: AgentEvent[]
      if (behind) {
        behind = false
        batch = await operations.events(cursor)
        // A full answer may have more behind it; an empty one is the end of the past.
        if (batch.some((event) => event.number > cursor)) behind = true
      } else {
        batch = pending
        pending = []
      }
      for (const event of batch) {
        if (event.number <= cursor) continue
        cursor = event.number
        yield event
      }
      if (!behind && pending.length === 0 && !signal.aborted) {
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      }
    }
  } finally {
    stop()
    signal.removeEventListener('abort', onAbort)
  }
}
