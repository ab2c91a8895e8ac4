import type { StreamView } from '../../src/api/agent-operations.js'
import { type AgentOptions, BenchAgent, type Link, pair } from './agents.js'

/** A backlog is gone within this time, or the row has failed. */
const drainLimitMs = 600_000
const waitMs = 30_000

/** Two agents on this machine; the destination is called `far` at the source. */
export interface Pair {
  readonly source: BenchAgent
  readonly destination: BenchAgent
  stop(): Promise<void>
}

export async function startPair(folder: string, link: Link, options: AgentOptions = {}): Promise<Pair> {
  const source = await BenchAgent.start(folder, 'source', options)
  const destination = await BenchAgent.start(folder, 'destination')
  await pair(source, destination, link)
  return {
    source,
    destination,
    stop: async () => {
      await source.stop()
      await destination.stop()
    },
  }
}

/** Mirror the volume from now on; resolves when the first copy is complete. */
export async function mirror(source: BenchAgent, stream: string, volume: string, epoch = '1s'): Promise<void> {
  const body = { name: stream, volumes: [volume], destination: 'far', epoch }
  await source.api.call({ method: 'POST', path: ['streams'], body })
  await initialize(source, stream)
  await applied(source, stream)
}

export async function initialize(source: BenchAgent, stream: string): Promise<void> {
  await source.api.call({ method: 'POST', path: ['streams', stream, 'initialize'] })
}

/** Everything written so far is in the source buffer when it resolves to the last epoch's number. */
export async function cut(source: BenchAgent, stream: string): Promise<number> {
  const { epoch } = await source.api.call<{ epoch: number }>({ method: 'POST', path: ['streams', stream, 'flush'] })
  return epoch
}

/** Everything written so far is applied at the destination when it resolves. @throws when the stream has ended */
export async function applied(source: BenchAgent, stream: string): Promise<StreamView> {
  const epoch = await cut(source, stream)
  const deadline = performance.now() + drainLimitMs
  for (;;) {
    const { done, stream: view } = await source.api.call<{ done: boolean; stream: StreamView }>({
      method: 'GET',
      path: ['streams', stream, 'wait'],
      query: { epoch: String(epoch), timeoutMs: String(waitMs) },
    })
    if (done) return view
    if (view.state === 'failed' || view.state === 'diverged')
      throw new Error(`${stream}: ${view.state}, ${view.reason}`)
    if (performance.now() > deadline) throw new Error(`${stream} is not up to date after ${drainLimitMs / 60_000} min`)
  }
}
