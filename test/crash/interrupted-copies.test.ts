/**
 * What copies a volume, an initialisation or a catch-up, goes on after kill -9 of either agent, or both at once, and after the
 * server between them died, at any moment; and never begins anew.
 */
import { execFile } from 'node:child_process'
import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import type { PoolCheckView } from '../../src/api/agent-operations.js'
import { MiB } from '../../src/block/units.js'
import { Agent, delay, flush, mirror, pair, tidemark } from '../fixtures/agent.js'
import { startVsftpd } from '../fixtures/ftp-servers/vsftpd.js'
import { scratchFolder } from '../fixtures/paths.js'
import { difference, farPath, type Sites } from '../fixtures/sites.js'
import { stampVerify, startStamp } from '../fixtures/stamp.js'
import { farPool, sourcePool, thinVolume, twoThinSites } from '../fixtures/thin-sites.js'
import { newSeed, Random } from '../pool/model/random.js'

const run = promisify(execFile)
const seed = newSeed()
const random = new Random(seed)
t.comment(`seed ${seed} (SEED=${seed} repeats its choices)`)
/** At length each victim has its turn; else both agents at once, and one of the others. */
const isLong = process.env.TORTURE_ROUNDS !== undefined
const stampedBytes = 24 * MiB
const load = { threads: 2, sizes: '512-65536', rate: 150, seconds: 600, fsyncEvery: 20, blocks: stampedBytes / 4096 }

type Victim = 'source' | 'destination' | 'both' | 'server'

async function kill(
  { source, destination }: Sites,
  victim: Victim,
  server?: { kill(): Promise<void>; start(): Promise<void> },
) {
  const agents = { source: [source], destination: [destination], both: [source, destination], server: [] }[victim]
  await Promise.all([...agents.map((agent) => agent.kill()), victim === 'server' && server?.kill()])
  await delay(random.between(0, 400))
  await Promise.all([...agents.map((agent) => agent.start()), victim === 'server' && server?.start()])
}

function victimsOf(others: readonly Victim[]): Victim[] {
  const left = isLong ? (['both', ...others] as Victim[]) : (['both', random.pick(others)] as Victim[])
  return [...left].map(() => left.splice(random.below(left.length), 1)[0]!)
}

t.jobs = 2

t.test('an initialisation over FTP, with agents and the server killed in its middle', async (t) => {
  const folder = scratchFolder(t, 'interrupted')
  const root = join(folder, 'root')
  mkdirSync(root)
  const server = await startVsftpd({ root })
  t.teardown(() => server.stop())
  // What is read of the copy waits in the buffer: the source is never far ahead of the destination.
  const config = join(folder, 'source.yaml')
  writeFileSync(config, 'buffer: { limit: 48MiB }\njournal: { segment: 4MiB, limit: 64MiB }\n')
  const source = await Agent.start(t, folder, 'source', ['--config', config])
  const destination = await Agent.start(t, folder, 'destination')
  const sites = { folder, source, destination }
  await pair(source, destination, { via: 'ftp', url: server.url, inbox: server.inbox })
  const name = 'interrupted'
  const totalBytes = (isLong ? 320 : 160) * MiB
  const { device, path } = await source.volume(folder, name, `${totalBytes}`)
  await run('dd', [
    'if=/dev/urandom',
    `of=${device}`,
    'bs=1M',
    'seek=24',
    `count=${totalBytes / MiB - 24}`,
    'oflag=direct',
    'status=none',
  ])
  await source.cli('stream', 'create', name, '--volume', name, '--destination', 'far', '--epoch', '500ms')
  await source.cli('stream', 'initialize', name)
  const log = join(folder, 'stamps')
  const writer = startStamp(device, log, { ...load, seed })
  const victims = victimsOf(['source', 'destination', 'server'])
  let reached = 0
  let interrupted = 0
  for (const [at, victim] of victims.entries()) {
    const target = ((at + 0.5) / victims.length) * totalBytes
    const { initialize } = await source.until(
      () => source.streamStatus(name),
      ({ initialize: now }) => now === null || now.doneBytes >= target,
      120_000,
    )
    if (initialize) interrupted += 1
    t.comment(`${victim} at ${Math.round((initialize?.doneBytes ?? totalBytes) / MiB)} MiB`)
    t.ok((initialize?.doneBytes ?? totalBytes) >= reached, 'it never begins anew')
    await kill(sites, victim, server)
    const after = await source.streamStatus(name)
    reached = initialize?.doneBytes ?? totalBytes
    t.ok((after.initialize?.doneBytes ?? totalBytes) >= reached, `it goes on at ${after.initialize?.doneBytes}`)
  }
  t.ok(interrupted >= victims.length - 1, `${interrupted} were in its middle`)
  await source.until(
    () => source.streamStatus(name),
    ({ state, initialize }) => state === 'replicating' && initialize === null,
    120_000,
  )
  t.equal((await writer.stop()).errno, 0, 'hosts see a pause')
  await flush(source, name)
  t.match(await source.streamStatus(name), { generation: 1 })
  const image = await farPath(sites, name)
  t.equal(await difference(path, image), '', 'both sides are equal')
  const verdict = stampVerify(image, log, { requireAll: true, blocks: load.blocks })
  t.match(verdict, { ok: true }, JSON.stringify(verdict))
})

t.test('a catch-up from one pool into another, with either agent and both killed in its middle', async (t) => {
  const buffers = 'buffer: { limit: 4MiB }\njournal: { segment: 4MiB, limit: 16MiB }\nregions: { size: 256KiB }\n'
  const sites = await twoThinSites(t, { via: 'folder', sourceConfig: buffers })
  const { folder, source, destination } = sites
  const [between, away] = [join(folder, 'between'), join(folder, 'away')]
  const name = 'thin-caught-up'
  const device = await thinVolume(source, name, '96MiB')
  await run('dd', ['if=/dev/urandom', `of=${device}`, 'bs=1M', 'seek=24', 'count=72', 'oflag=direct', 'status=none'])
  await mirror(source, name, [name])
  const status = () => source.streamStatus(name)
  const log = join(folder, 'stamps')
  const writer = startStamp(device, log, { ...load, rate: 400, seed: seed + 1 })
  renameSync(between, away)
  await source.until(status, ({ state }) => state === 'mapping', 60_000)
  // Trimmed and overwritten while nobody but the map of regions notes it.
  await run('blkdiscard', ['--offset', `${32 * MiB}`, '--length', `${16 * MiB}`, device])
  await run('dd', ['if=/dev/urandom', `of=${device}`, 'bs=1M', 'seek=56', 'count=32', 'oflag=direct', 'status=none'])
  t.match(await status(), { state: 'mapping', generation: 1 })
  renameSync(away, between)
  let interrupted = 0
  for (const victim of victimsOf(['source', 'destination'])) {
    const { catchUp } = await source.until(
      status,
      ({ catchUp, state }) => state === 'replicating' || (state !== 'mapping' && (catchUp?.doneBytes ?? 0) > 0),
      60_000,
    )
    if (catchUp) interrupted += 1
    t.comment(`${victim}: ${catchUp ? `${catchUp.doneBytes} of ${catchUp.totalBytes} bytes` : 'caught up'}`)
    await kill(sites, victim)
  }
  t.ok(interrupted >= 1, `${interrupted} were in its middle`)
  await source.until(status, ({ state, catchUp }) => state === 'replicating' && catchUp === null, 120_000)
  t.equal((await writer.stop()).errno, 0, 'hosts see a pause')
  await flush(source, name)
  const image = await farPath(sites, name)
  t.equal(await difference(device, image), '', 'both sides are equal')
  t.match(stampVerify(image, log, { requireAll: true, blocks: load.blocks }), { ok: true })
  t.match(await status(), { state: 'replicating', generation: 1 }, 'no new copy')
  const far = await destination.cli<{ mappedBytes: number }>('pool', 'show', farPool)
  t.ok(far.mappedBytes <= 81 * MiB, `what was trimmed takes no room there: ${far.mappedBytes / MiB} MiB`)
  await Promise.all([source.stop(), destination.stop()])
  for (const pool of [sourcePool, farPool]) {
    const { json, stderr } = await tidemark(['--json', 'pool', 'check', join(folder, `${pool}.img`)])
    t.match(json as PoolCheckView, { clean: true }, `pool check ${pool}: ${stderr}`)
  }
})
