/** The kernel's out-of-memory killer takes a worker before its agent: nobody but the agent notices. */
import t from 'tap'
import { crashCount, LoadedStream } from '../fixtures/crashes.js'
import { workersOf } from '../fixtures/inject.js'
import { twoSites } from '../fixtures/sites.js'

const sites = await twoSites(t)
const stream = new LoadedStream(sites, 'load-workers')
await stream.begin()
const { source, destination } = sites

for (const [worker, agent] of [
  ['pack-worker', source],
  ['destage-worker', destination],
] as const) {
  t.test(`kill -9 of the ${worker} under load, ${crashCount} times: the stream goes on by itself`, async (t) => {
    for (let crash = 1; crash <= crashCount; crash++) {
      await stream.awhile(100, 700)
      // It may not have been started again since the last time.
      await source.until(async () => workersOf(agent.pid, worker).length, Boolean)
      const before = await source.streamStatus(stream.name)
      for (const pid of workersOf(agent.pid, worker)) process.kill(pid, 'SIGKILL')
      const applied = (await source.streamStatus(stream.name)).epoch.cut + 1
      const after = await source.until(
        () => source.streamStatus(stream.name),
        ({ state, epoch }) => state === 'failed' || (state === 'replicating' && epoch.applied >= applied),
        60_000,
      )
      t.match(after, { state: 'replicating', generation: before.generation }, `${crash}: ${after.reason}`)
    }
    await stream.checkAtRest(t)
  })
}

t.test('after that both sides are equal', (t) => stream.end(t))
