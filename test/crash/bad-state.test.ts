/**
 * The disk of an agent's own state fails, or is full: what it cannot record it does not do. It waits, or ends at once and says
 * why, and the next one goes on from what is on the disk. Hosts see a pause.
 */
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type Agent, delay } from '../fixtures/agent.js'
import { LoadedStream } from '../fixtures/crashes.js'
import { type Injecting, type Injection, inject } from '../fixtures/inject.js'
import { twoSites } from '../fixtures/sites.js'

const name = 'load-state'
/** A commit comes with each epoch. */
const commitMs = 20_000
/** A process whose threads wait for a busy disk is gone when they have their answer. */
const goneMs = 60_000

const isLong = process.env.TORTURE_ROUNDS !== undefined

const sites = await twoSites(t)
const { source, destination } = sites
const stream = new LoadedStream(sites, name)
await stream.begin()

const writes = ['pwrite64', 'pwritev']
const syncs = ['fdatasync', 'fsync', 'msync']

async function failing(agent: Agent, injection: Pick<Injection, 'calls' | 'error' | 'when'>): Promise<Injecting> {
  const tracer = await inject({
    pid: agent.pid,
    paths: [0, 1].map((file) => join(agent.state, `state.${file}`)),
    ...injection,
  })
  for (let waitedMs = 0; tracer.count === 0 && waitedMs < commitMs; waitedMs += 50) await delay(50)
  return tracer
}

/** What is written now arrives. */
async function flows(): Promise<void> {
  const { epoch } = await source.streamStatus(name)
  await source.until(
    () => source.streamStatus(name),
    (now) => now.epoch.applied > epoch.cut + 1,
  )
}

async function endsAndGoesOn(t: Test, agent: Agent, calls: readonly string[]): Promise<void> {
  await flows()
  const { pid } = agent
  const tracer = await failing(agent, { calls, error: 'EIO', when: '1+' })
  t.ok(tracer.count > 0, `${tracer.count} calls have failed`)
  const begun = performance.now()
  while (agent.running && performance.now() - begun < goneMs) await delay(20)
  t.notOk(agent.running, `it is gone after ${Math.round(performance.now() - begun)} ms, and not only as good as gone`)
  if (agent.running) process.kill(pid, 'SIGKILL')
  await tracer.stop()
  await agent.until(
    async () => agent.running,
    (running) => !running,
  )
  t.match(agent.log(), /"code":"AGENT_FAILED".*STATE_FAILED.*EIO/, 'its log says why')
  await agent.start()
  const failures = (await agent.events()).filter(({ code }) => code === 'AGENT_FAILED')
  t.match(failures.at(-1)?.text, /STATE_FAILED/, 'and an event')
  await stream.checkAtRest(t)
}

for (const [site, agent] of [
  ['source', source],
  ['destination', destination],
] as const) {
  for (const [kind, calls] of [
    ['syncs', syncs],
    ['writes', writes],
  ] as const) {
    // In tools/test one of each; an agent of either site does the same.
    if (!isLong && (site === 'source') !== (kind === 'syncs')) continue
    t.test(`EIO for the ${kind} of the state at the ${site}`, (t) => endsAndGoesOn(t, agent, calls))
  }
}

t.test('ENOSPC for the state of the source: the stream waits, and goes on when there is room', async (t) => {
  await flows()
  const { pid } = source
  const before = await source.streamStatus(name)
  const tracer = await failing(source, { calls: writes, error: 'ENOSPC', when: '1+' })
  const waiting = await source.until(
    () => source.streamStatus(name),
    ({ state }) => state === 'waiting',
    20_000,
  )
  t.match(waiting.reason, /STATE_UNAVAILABLE/)
  await stream.awhile(500, 1000)
  const later = await source.streamStatus(name)
  t.equal(later.epoch.cut, waiting.epoch.cut, 'no epoch is cut that is not recorded')
  await tracer.stop()
  await source.until(
    () => source.streamStatus(name),
    ({ state, epoch }) => state === 'replicating' && epoch.applied > waiting.epoch.cut,
  )
  t.match(await source.streamStatus(name), { generation: before.generation })
  t.equal(source.pid, pid)
  t.ok(source.running, 'the agent has not ended')
})

t.test('after that both sides are equal', (t) => stream.end(t))
