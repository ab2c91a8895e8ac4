/** Moments in which a host could be made to wait for ever, or an agent not to start again. */
import { spawn } from 'node:child_process'
import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { MiB } from '../../src/block/units.js'
import { Agent, delay, flush, mirror } from '../fixtures/agent.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { scratchFolder } from '../fixtures/paths.js'
import { farPath, twoSites } from '../fixtures/sites.js'
import { stampVerify, startStamp } from '../fixtures/stamp.js'

const sites = await twoSites(t, 'folder')
const { source, destination, folder } = sites

/** Write as fast as the device takes it, again and again, until told to stop or refused. */
function pour(device: string): { readonly running: boolean; stop(): Promise<void> } {
  const script = 'while dd if=/dev/zero "of=$1" bs=1M count=64 oflag=direct conv=notrunc status=none; do :; done'
  // A group of its own, so that whatever writes at that moment ends with the loop.
  const child = spawn('bash', ['-c', script, 'pour', device], { stdio: 'ignore', detached: true })
  const group = { kind: 'process', pid: -child.pid! } as const
  remember(group)
  const ended = new Promise<void>((resolve) => child.on('close', () => resolve()))
  return {
    get running() {
      return child.exitCode === null && child.signalCode === null
    },
    async stop() {
      if (this.running) process.kill(-child.pid!, 'SIGKILL')
      await ended
      forget(group)
    },
  }
}

/** An agent whose journal takes no more than `limit`, with the destination added under `far`. */
async function smallJournal(t: Test, limit: string): Promise<{ agent: Agent; own: string }> {
  const own = scratchFolder(t, 'small-journal')
  const config = join(own, 'tidemark.yaml')
  writeFileSync(config, `journal:\n  segment: 4MiB\n  limit: ${limit}\n`)
  const agent = await Agent.start(t, own, 'agent', ['--config', config])
  mkdirSync(join(own, 'between'))
  const { pairing } = await destination.cli<{ pairing: string }>('pairing', 'create', '--folder', join(own, 'between'))
  await agent.cli('destination', 'add', 'far', '--pairing', pairing)
  return { agent, own }
}

/** Wait until the host of stream `hard-busy` has written so many bytes more. */
async function journaled(agent: Agent, bytes: number): Promise<void> {
  const end = async () => Number((await agent.streamStatus('hard-busy')).lsn.journal)
  const from = await end()
  await agent.until(end, (now) => now > from + bytes, 60_000)
}

t.test('a stream is removed and initialized again while a host keeps its journal full', async (t) => {
  const { agent, own } = await smallJournal(t, '8MiB')
  const { device } = await agent.volume(own, 'hard-busy', '256MiB')
  const host = pour(device)
  t.teardown(() => host.stop())
  for (let round = 1; round <= 2; round++) {
    await agent.cli(
      'stream',
      'create',
      'hard-busy',
      '--volume',
      'hard-busy',
      '--destination',
      'far',
      '--epoch',
      '200ms',
    )
    await agent.cli('stream', 'initialize', 'hard-busy')
    // Many times what the journal has room for: it was full again and again.
    await journaled(agent, 32 * MiB)
    await agent.cli('stream', 'initialize', 'hard-busy')
    await journaled(agent, 32 * MiB)
    await agent.cli('stream', 'remove', 'hard-busy')
    t.ok(host.running, 'the host has seen no error')
    t.equal((await agent.run('agent', 'show')).code, 0, 'the agent answers')
  }
  const pid = agent.pid
  await host.stop()
  const { device: gone } = await agent.cli<{ device: string | null }>('volume', 'detach', 'hard-busy')
  t.equal(gone, null)
  t.ok(agent.running && agent.pid === pid, 'the agent is the one that was started')
})

t.test('initialize --wait does not say done while the destination cannot be reached', async (t) => {
  await source.volume(folder, 'lonely', '16MiB')
  await source.cli('stream', 'create', 'lonely', '--volume', 'lonely', '--destination', 'far')
  renameSync(join(folder, 'between'), join(folder, 'away'))
  const waiting = source.run('stream', 'initialize', 'lonely', '--wait')
  const status = await source.until(
    () => source.streamStatus('lonely'),
    ({ state }) => state === 'waiting',
  )
  t.not(status.initialize, null, 'there is still everything to do')
  const early = await Promise.race([waiting, delay(3000).then(() => undefined)])
  t.equal(early, undefined, 'and the command still waits')
  renameSync(join(folder, 'away'), join(folder, 'between'))
  t.equal((await waiting).code, 0)
  t.match(await source.streamStatus('lonely'), { state: 'replicating', initialize: null })
  await source.cli('stream', 'remove', 'lonely')
})

t.test('a journal smaller than a burst makes room instead of giving up', async (t) => {
  const { agent, own } = await smallJournal(t, '16MiB')
  const { device } = await agent.volume(own, 'burst', '256MiB')
  await mirror(agent, 'burst', ['burst'])
  const log = join(own, 'burst.log')
  const run = await startStamp(device, log, { threads: 2, sizes: '65536-1048576', writes: 400, seed: 9 }).ended
  t.equal(run.errno, 0)
  await flush(agent, 'burst')
  t.match(await agent.streamStatus('burst'), { state: 'replicating', generation: 1 })
  t.match(stampVerify(await farPath(sites, 'burst'), log, { requireAll: true }), { ok: true })
})

t.test('commands at the same time leave nothing an agent cannot start with', async (t) => {
  const own = scratchFolder(t, 'at-once')
  const agent = await Agent.start(t, own, 'agent')
  const { pairing } = await agent.cli<{ pairing: string }>('pairing', 'create', '--listen', '[::1]:0')
  await agent.cli('destination', 'add', 'self', '--pairing', pairing)
  for (let round = 0; round < 5; round++) {
    await agent.cli('volume', 'create', `v${round}`, '--path', join(own, `v${round}.img`), '--size', '1MiB')
    const results = await Promise.all([
      agent.run('stream', 'create', `s${round}`, '--volume', `v${round}`, '--destination', 'self'),
      agent.run('stream', 'create', `s${round}`, '--volume', `v${round}`, '--destination', 'self'),
      agent.run('volume', 'remove', `v${round}`),
    ])
    t.ok(results.filter(({ code }) => code === 0).length === 1, JSON.stringify(results.map(({ stderr }) => stderr)))
  }
  await agent.stop()
  await agent.start()
  t.match(await agent.cli('agent', 'show'), { listen: /^\[::1\]:\d+$/ }, 'an IPv6 listener too')
  await agent.stop()
})
