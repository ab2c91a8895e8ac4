/** A thousand streams, most of them idle: what they cost, and that none starves. tools/torture has a thousand, here are fewer. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import type { InboundView } from '../../src/api/agent-operations.js'
import { KiB, MiB } from '../../src/block/units.js'
import { formatPairing, parsePairing } from '../../src/transport/pairing-string.js'
import { Agent, delay, freePort } from '../fixtures/agent.js'
import { startDrippingProxy } from '../fixtures/dripping-proxy.js'
import { AnswerTimes, ManyStreams } from '../fixtures/many-streams.js'
import { scratchFolder } from '../fixtures/paths.js'
import { processFigures, workersOf } from '../fixtures/process-figures.js'
import { command, difference } from '../fixtures/sites.js'

const count = Number(process.env.STREAMS ?? 100)
const busyCount = Math.max(8, Math.floor(count / 20))
const dripCount = Math.max(4, Math.floor(count / 100))
const via = Number(process.env.SEED ?? 0) % 2 === 0 ? 'https' : 'folder'
const folder = scratchFolder(t, 'many-streams')
const [volumes, between] = ['volumes', 'between'].map((name) => join(folder, name)) as [string, string]
for (const made of [volumes, between]) mkdirSync(made)
const source = await Agent.start(t, folder, 'source')
const destination = await Agent.start(t, folder, 'destination')
const sites = { folder, source, destination }

/** One destination at its full speed, and the same one through a link of one byte a second. */
const listen = ['pairing', 'create', '--listen', `127.0.0.1:${await freePort()}`]
const { pairing } = await destination.cli<{ pairing: string }>(...listen)
const parsed = parsePairing(pairing)
if (parsed.endpoint.kind !== 'https') throw new Error('another kind of pairing')
const proxy = await startDrippingProxy(parsed.endpoint.port)
t.teardown(() => proxy.close())
const slow = formatPairing({ ...parsed, endpoint: { ...parsed.endpoint, port: proxy.port } })
const { pairing: folderPairing } = await destination.cli<{ pairing: string }>('pairing', 'create', '--folder', between)
await source.cli('destination', 'add', 'far', '--pairing', via === 'https' ? pairing : folderPairing)
await source.cli('destination', 'add', 'slow', '--pairing', slow)
const many = new ManyStreams(sites, 'many-streams-', count)
t.teardown(() => many.close())
const light = many.names.slice(0, busyCount)
const hog = many.names[busyCount]!
let devices = new Map<string, FileHandle>()

async function openDevices(): Promise<void> {
  const attached = await many.attach([...light, hog])
  const files = [...attached].map(async ([name, device]) => [name, await open(device, 'r+')] as const)
  devices = new Map(await Promise.all(files))
}

async function closeDevices(): Promise<void> {
  for (const file of devices.values()) await file.close()
  devices.clear()
}
t.teardown(closeDevices)

/** CPU of an agent and its workers, in percent of one processor: the least of three whiles, which the machine's noise is not in. */
async function cpuPercent(agent: Agent, milliseconds: number): Promise<number> {
  const total = (): number =>
    [agent.pid, ...workersOf(agent.pid).map(({ pid }) => pid)].reduce((sum, pid) => sum + processFigures(pid).cpuMs, 0)
  let least = Number.POSITIVE_INFINITY
  for (let round = 0; round < 3; round++) {
    const from = total()
    await delay(milliseconds)
    least = Math.min(least, ((total() - from) / milliseconds) * 100)
  }
  return least
}

/** From a write, through a flush of the stream, until the far side has applied it. */
async function writeUntilApplied(name: string, letter: number): Promise<number> {
  const file = devices.get(name)!
  const from = performance.now()
  await file.write(Buffer.alloc(4096, letter), 0, 4096, (letter % 64) * 4096)
  await file.datasync()
  const { epoch } = (await many.post('POST', ['streams', name, 'flush'])) as { epoch: number }
  await source.until(
    () => source.streamStatus(name),
    (view) => view.epoch.applied >= epoch,
    60_000,
  )
  return performance.now() - from
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!
const round = (value: number): number => Math.round(value)

t.test('R30: an idle stream costs no journal, little memory, two descriptors, and next to no time', async (t) => {
  const before = processFigures(source.pid)
  await many.create()
  const times = new AnswerTimes(source)
  await many.initialize()
  await many.caughtUp(240_000)
  const answers = await times.stop()
  const { stdout } = { stdout: await command('du', '-s', '--block-size=1', join(source.state, 'buffer')) }
  const bufferBytes = Number(stdout.split('\t')[0])
  const figures = processFigures(source.pid)
  const each = (key: 'anonymousBytes' | 'descriptors' | 'threads'): number => (figures[key] - before[key]) / count
  t.ok(bufferBytes / count < 128 * KiB, `${round(bufferBytes / count / KiB)} KiB of disk each`)
  t.ok(each('anonymousBytes') < MiB, `${round(each('anonymousBytes') / KiB)} KiB of memory each`)
  t.ok(each('descriptors') < 3, `${each('descriptors').toFixed(1)} descriptors each`)
  t.ok(each('threads') < 3, `${each('threads').toFixed(1)} threads each`)
  for (const agent of [source, destination]) {
    for (const { script, pid } of workersOf(agent.pid)) {
      const { anonymousBytes } = processFigures(pid)
      t.ok(anonymousBytes < 256 * MiB, `${script} has ${round(anonymousBytes / MiB)} MiB`)
    }
  }
  const [here, there] = await Promise.all([source, destination].map((agent) => cpuPercent(agent, 2000)))
  const bound = 10 + count * 0.04
  t.ok(here! < bound && there! < bound, `idle: ${here!.toFixed(1)} % of a processor here, ${there!.toFixed(1)} % there`)
  t.comment(`${count} streams over ${via}: begun while the agent answers in ${JSON.stringify(answers)} ms`)
})

t.test('R30: among idle streams and beside one that writes all the time none starves', async (t) => {
  await openDevices()
  const quiet: number[] = []
  for (let letter = 1; letter <= 5; letter++) quiet.push(await writeUntilApplied(light[0]!, letter))
  const stop = new AbortController()
  let written = 0
  const hogging = (async () => {
    const bytes = Buffer.alloc(256 * KiB)
    for (let round = 1; !stop.signal.aborted; round++) {
      for (let offset = 0; offset < MiB; offset += bytes.length) {
        await devices.get(hog)!.write(bytes.fill(round % 251), 0, bytes.length, offset)
        written += bytes.length
      }
      await devices.get(hog)!.datasync()
    }
  })()
  const times = [new AnswerTimes(source), new AnswerTimes(destination)]
  const beside: number[] = []
  for (let letter = 10; letter < 13; letter++) {
    beside.push(...(await Promise.all(light.map((name) => writeUntilApplied(name, letter)))))
  }
  stop.abort()
  await hogging
  const answers = await Promise.all(times.map((each) => each.stop()))
  const [typical, worst] = [median(beside), Math.max(...beside)]
  t.comment(`from a write until it is applied: ${round(median(quiet))} ms among ${count - 1} idle streams`)
  t.comment(
    `${light.length} at once, beside ${round(written / MiB)} MiB of another: ${round(typical)} ms, at worst ${round(worst)} ms`,
  )
  t.comment(`meanwhile the agents answer in ${answers.map((each) => JSON.stringify(each)).join(' and ')} ms`)
  t.ok(worst < 30_000, 'each is applied')
  t.ok(worst < 5 * typical + 2_000, 'and none much later than the others')
  for (const { p99 } of answers) t.ok(p99 < 1000, `the main thread is never long away: ${p99} ms`)
})

t.test('R30: a link of one byte a second holds its own streams, and no other', async (t) => {
  const held = Array.from({ length: dripCount }, (_, index) => `many-streams-slow${index}`)
  const attached = new Map<string, FileHandle>()
  for (const name of held) {
    await many.make(name, 'slow')
    await many.post('POST', ['streams', name, 'initialize'])
  }
  for (const [name, device] of await many.attach(held)) attached.set(name, await open(device, 'r+'))
  for (const file of attached.values()) {
    await file.write(Buffer.alloc(MiB, 7), 0, MiB, 0)
    await file.datasync()
  }
  const figures = processFigures(source.pid)
  const from = performance.now()
  const others: number[] = []
  while (performance.now() - from < 2500) {
    for (const name of light.slice(0, 4)) others.push(await writeUntilApplied(name, 20 + (others.length % 20)))
  }
  t.ok(
    Math.max(...others) < 20_000,
    `others are applied in ${round(median(others))} ms, ${round(Math.max(...others))} at worst`,
  )
  const grown = processFigures(source.pid)
  t.ok(grown.descriptors - figures.descriptors < 64, `${grown.descriptors - figures.descriptors} more descriptors`)
  for (const name of held) t.equal((await source.streamStatus(name)).epoch.applied, 0)
  t.ok(proxy.sentBytes < 60, `${proxy.sentBytes} bytes went over the link`)
  proxy.pass()
  for (const file of attached.values()) await file.close()
  await many.caughtUp(120_000)
  for (const name of held) {
    t.equal(await difference(many.volumePath(name), await imageOf(name)), '', `${name} is equal`)
  }
})

async function imageOf(name: string): Promise<string> {
  const { volumes } = await destination.get<InboundView>('inbound', name)
  return volumes[0]!.path
}

t.test('R30: killed, all of them go on where they were', async (t) => {
  await closeDevices()
  const generations = new Map((await many.status()).map(({ name, generation }) => [name, generation]))
  const from = performance.now()
  await Promise.all([source.kill(), destination.kill()])
  await Promise.all([source.start(), destination.start()])
  const tookMs = performance.now() - from
  t.ok(tookMs < 15_000 + 50 * count, `both agents are back in ${round(tookMs)} ms`)
  await openDevices()
  const [first] = light
  t.ok((await writeUntilApplied(first!, 99)) < 30_000)
  const views = await many.caughtUp(120_000)
  t.equal(views.length, count + dripCount)
  for (const { name, state, generation } of views) {
    if (state !== 'replicating' || generation !== generations.get(name)) t.fail(`${name}: ${state}, ${generation}`)
  }
  for (const name of [...light, hog]) {
    t.equal(await difference(many.volumePath(name), await imageOf(name)), '', `${name} is equal`)
  }
  await closeDevices()
  const stopped = performance.now()
  await source.terminate()
  t.comment(`stopped in order in ${round(performance.now() - stopped)} ms`)
})

t.test('a stream or device that the process has no descriptors for is refused, and says what to do', async (t) => {
  const config = join(folder, 'few.yaml')
  writeFileSync(config, 'volume:\n  threads: 1\n')
  const agent = await Agent.start(t, folder, 'few', ['--config', config])
  await agent.cli('volume', 'create', 'many-streams-few', '--path', join(volumes, 'few.img'), '--size', '1MiB')
  await command('prlimit', '--pid', `${agent.pid}`, '--nofile=200:')
  const { code, stderr } = await agent.run('volume', 'attach', 'many-streams-few')
  t.equal(code, 1)
  t.match(JSON.parse(stderr), {
    error: { code: 'TOO_MANY_DESCRIPTORS', hint: /may have 200\. Raise that \(LimitNOFILE/ },
  })
  await command('prlimit', '--pid', `${agent.pid}`, '--nofile=2000:')
  await agent.cli('volume', 'attach', 'many-streams-few')
  await agent.cli('volume', 'detach', 'many-streams-few')
})
