/** Moments in which a host could be made to wait for ever, or an agent not to start again. */
import { spawn } from 'node:child_process'
import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Agent, delay, flush, mirror } from '../fixtures/agent.js'
import { scratchFolder } from '../fixtures/paths.js'
import { farPath, twoSites } from '../fixtures/sites.js'
import { stampVerify, startStamp } from '../fixtures/stamp.js'

const sites = await twoSites(t, 'folder')
const { source, destination, folder } = sites

/** Write as fast as the device takes it, until told to stop. */
function pour(device: string): { stop(): Promise<number | null> } {
  const child = spawn('dd', ['if=/dev/zero', `of=${device}`, 'bs=1M', 'oflag=direct', 'status=none'], {
    stdio: 'ignore',
  })
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve))
  return {
    stop: () => {
      child.kill('SIGTERM')
      return ended
    },
  }
}

t.test('a stream is removed and initialized again while a host writes as fast as it can', async (t) => {
  const { device } = await source.volume(folder, 'busy', '2GiB')
  await mirror(source, 'busy', ['busy'])
  const host = pour(device)
  await delay(500)
  await source.cli('stream', 'initialize', 'busy')
  await delay(300)
  await source.cli('stream', 'remove', 'busy')
  await host.stop()
  const { device: gone } = await source.cli<{ device: string | null }>('volume', 'detach', 'busy')
  t.equal(gone, null)
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
  const own = scratchFolder(t, 'small-journal')
  const config = join(own, 'tidemark.yaml')
  writeFileSync(config, 'journal:\n  segment: 4MiB\n  limit: 16MiB\n')
  const agent = await Agent.start(t, own, 'agent', ['--config', config])
  mkdirSync(join(own, 'between'))
  const { pairing } = await destination.cli<{ pairing: string }>('pairing', 'create', '--folder', join(own, 'between'))
  await agent.cli('destination', 'add', 'far', '--pairing', pairing)
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
