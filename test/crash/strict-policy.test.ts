/** What hosts see when all buffers of a stream are full, and that nobody else sees any of it. */
import { spawn } from 'node:child_process'
import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Agent, delay, flush, mirror, pair } from '../fixtures/agent.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { scratchFolder } from '../fixtures/paths.js'
import { difference, farPath } from '../fixtures/sites.js'

const name = 'strict'
const folder = scratchFolder(t, 'strict')
const between = join(folder, 'between')
const away = join(folder, 'away')
for (const path of [between, join(folder, 'between-other')]) mkdirSync(path)
const config = join(folder, 'source.yaml')
writeFileSync(config, 'journal:\n  segment: 4MiB\n  limit: 16MiB\nbuffer:\n  limit: 4MiB\n')
const source = await Agent.start(t, folder, 'source', ['--config', config])
const destination = await Agent.start(t, folder, 'destination')
const sites = { folder, source, destination }
await pair(source, destination, { via: 'folder', folder: between })
await pair(source, destination, { via: 'folder', folder: join(folder, 'between-other') }, 'other')
const { device } = await source.volume(folder, name, '96MiB')
const other = await source.volume(folder, 'strict-other', '96MiB')
await mirror(source, name, [name])
await source.cli(
  'stream',
  'create',
  'other',
  '--volume',
  'strict-other',
  '--destination',
  'other',
  '--epoch',
  '200ms',
  '--policy',
  'strict',
  '--wait',
  '5m',
)
await source.cli('stream', 'initialize', 'other', '--wait')

const status = () => source.streamStatus(name)
const said = async (code: string) =>
  (await source.events()).filter((event) => event.code === code && event.object === name).length

/** Its exit code and what it said; `done` while it runs is false. */
function write(target: string, megabytes: number): { readonly ended: Promise<string>; done: () => boolean } {
  const child = spawn('dd', ['if=/dev/urandom', `of=${target}`, 'bs=256k', `count=${megabytes * 4}`, 'oflag=direct'], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const left = { kind: 'process', pid: child.pid! } as const
  remember(left)
  let output = ''
  child.stderr.on('data', (text) => {
    output += text
  })
  const ended = new Promise<string>((resolve) => {
    child.on('close', (code) => {
      forget(left)
      resolve(`${code} ${output}`)
    })
  })
  return { ended, done: () => child.exitCode !== null }
}

t.test('strict: hosts wait for a journal that is full, then get an error, and nothing is mapped', async (t) => {
  await source.cli('stream', 'set', name, '--policy', 'strict', '--wait', '8s')
  renameSync(between, away)
  const writer = write(device, 80)
  const waits = await source.until(status, ({ state }) => state === 'blocked', 60_000)
  t.match(waits, { policy: 'strict', waitMs: 8000, reason: /Host writes wait/ })
  t.notOk(writer.done(), 'no host has seen anything but a wait')
  t.match(await writer.ended, /^1 [\s\S]*No space left/, 'then it gets an error')
  t.match(await status(), { state: 'blocked', reason: /Host writes fail/, generation: 1, catchUp: null })
  const begun = performance.now()
  t.match(await write(device, 1).ended, /^1 /)
  t.ok(performance.now() - begun < 7000, 'whoever comes later gets it at once')
  // Before the buffer is full a segment may become free now and then: each wait of more than a second is told.
  t.ok((await said('HOSTS_WAIT')) >= 1)
  t.same([await said('HOSTS_REFUSED'), await said('STREAM_MAPPING')], [1, 0])
})

/** Hosts wait, and nothing makes room any more: while the buffer fills, a segment becomes free now and then. */
async function blockedForGood(): Promise<void> {
  for (;;) {
    const { epoch } = await source.until(status, ({ state }) => state === 'blocked')
    await delay(2000)
    const later = await status()
    if (later.state === 'blocked' && later.epoch.cut === epoch.cut) return
  }
}

t.test("a dead destination never holds another destination's journal", async (t) => {
  t.match(await status(), { state: 'blocked' })
  for (let round = 0; round < 3; round++) {
    t.match(await write(other.device, 40).ended, /^0 /, 'more than its journal and its buffer hold together')
    await flush(source, 'other')
  }
  t.equal(await difference(other.device, await farPath(sites, 'other', 'strict-other')), '')
  const { buffer, state, catchUp } = await source.streamStatus('other')
  t.match({ state, catchUp, used: buffer.usedBytes }, { state: 'replicating', catchUp: null, used: 0 })
})

t.test('strict: when there is room hosts write again, and the far side has all that was acknowledged', async (t) => {
  renameSync(away, between)
  await source.until(status, ({ state }) => state === 'replicating', 60_000)
  t.ok((await said('HOSTS_GO_ON')) >= 1)
  t.match(await write(device, 8).ended, /^0 /)
  await flush(source, name)
  t.equal(await difference(device, await farPath(sites, name, name)), '', 'also where a write was refused')
  t.match(await status(), { generation: 1, catchUp: null })
})

t.test('a change to degrade lets go of hosts that wait, at once', async (t) => {
  await source.cli('stream', 'set', name, '--wait', '10m')
  renameSync(between, away)
  const writer = write(device, 80)
  await blockedForGood()
  t.notOk(writer.done())
  await source.cli('stream', 'set', name, '--policy', 'degrade')
  t.match(await writer.ended, /^0 /)
  // When the buffer had taken little before the journal was full, it is caught up at once, as far as the link lets it.
  t.match(await status(), { state: /^(mapping|catching-up|waiting)$/, policy: 'degrade', waitMs: 600_000 })
  t.equal(await said('STREAM_MAPPING'), 1)
  renameSync(away, between)
  await source.until(status, ({ state, catchUp }) => state === 'replicating' && catchUp === null, 90_000)
  await flush(source, name)
  t.equal(await difference(device, await farPath(sites, name, name)), '')
})
