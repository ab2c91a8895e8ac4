/** An outage that no buffer is large enough for: writes are mapped, and caught up as one step. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { KiB, MiB } from '../../src/block/units.js'
import { Agent, delay, flush, mirror, pair } from '../fixtures/agent.js'
import { scratchFolder } from '../fixtures/paths.js'
import { difference, farPath, type Sites } from '../fixtures/sites.js'
import { stampClock, stampVerify, startStamp } from '../fixtures/stamp.js'

const name = 'mapped'
const regionBytes = 256 * KiB
const otherBytes = 96 * MiB
const folder = scratchFolder(t, 'mapping')
const between = join(folder, 'between')
const away = join(folder, 'away')
mkdirSync(between)
const config = join(folder, 'source.yaml')
writeFileSync(config, 'journal:\n  segment: 4MiB\n  limit: 16MiB\nbuffer:\n  limit: 4MiB\nregions:\n  size: 256KiB\n')
const source = await Agent.start(t, folder, 'source', ['--config', config])
const destination = await Agent.start(t, folder, 'destination')
const sites: Sites = { folder, source, destination }
await pair(source, destination, { via: 'folder', folder: between })

const made = await source.volume(folder, name, '96MiB')
// A copy of everything would send this, too, and it does not become smaller by compression.
const other = await source.volume(folder, 'mapped-not', `${otherBytes / MiB}MiB`)
execFileSync('dd', [
  'if=/dev/urandom',
  `of=${other.device}`,
  'bs=1M',
  'oflag=direct',
  'status=none',
  `count=${otherBytes / MiB}`,
])
await mirror(source, name, [name, 'mapped-not'])
const log = join(folder, 'stamps.log')
/** Of the first volume: more than one epoch copies. */
const writtenBytes = 48 * MiB
/** A region brings up to fifteen after it into the map. */
const mappedLimitBytes = writtenBytes + 16 * regionBytes
const load = { threads: 3, sizes: '512-131072', rate: 400, seconds: 600, blocks: writtenBytes / 4096, fsyncEvery: 50 }
const { device } = made
let sentBefore = 0
let writer = startStamp(device, log, { ...load, seed: 8 })
/** Of hosts that wait for room in a full journal README says 20 s at the most. */
const standstillLimitMs = 30_000
let standstill: Standstill

/** The longest time in which no write of a log has begun or ended. */
class Standstill {
  longestMs = 0
  #clock = 0
  #movedAtMs = performance.now()
  readonly #timer = setInterval(() => this.#look(), 500)

  #look(): void {
    const [clock, nowMs] = [stampClock(log), performance.now()]
    this.longestMs = Math.max(this.longestMs, nowMs - this.#movedAtMs)
    if (clock !== this.#clock) this.#movedAtMs = nowMs
    this.#clock = clock
  }

  /** Before its writer ends. */
  end(t: Test): void {
    clearInterval(this.#timer)
    this.#look()
    t.ok(this.longestMs < standstillLimitMs, `hosts stood still for ${Math.round(this.longestMs)} ms at the most`)
  }
}

const status = () => source.streamStatus(name)
const deviceNow = async () => (await source.cli<{ device: string }>('volume', 'show', name)).device

async function killAndStart(t: Test, meanwhile = async (): Promise<void> => {}): Promise<void> {
  standstill.end(t)
  await source.kill()
  await meanwhile()
  await source.start()
  t.equal((await writer.stop()).errno, 0, 'hosts see a pause')
  t.equal(await deviceNow(), device)
}

t.test(
  'while the destination cannot be reached and all buffers are full, hosts write on and regions are mapped',
  async (t) => {
    await delay(500)
    standstill = new Standstill()
    renameSync(between, away)
    const mapped = await source.until(status, ({ state }) => state === 'mapping', 60_000)
    t.match(mapped, { generation: 1, reason: /to catch up/ })
    await delay(2000)
    const later = await status()
    t.ok(later.catchUp!.totalBytes >= mapped.catchUp!.totalBytes && later.catchUp!.totalBytes <= mappedLimitBytes)
    const flushed = await source.run('stream', 'flush', name)
    t.equal(flushed.errorCode, 'STREAM_MAPPING')
    sentBefore = later.counters.sentBytes
  },
)

t.test('the map outlives the agent', async (t) => {
  const before = await status()
  await killAndStart(t)
  t.match(await status(), { state: 'mapping', generation: 1 })
  t.ok((await status()).catchUp!.totalBytes >= before.catchUp!.totalBytes)
  const verdict = stampVerify(device, log, { requireAll: true })
  t.ok(verdict.ok, `no acknowledged write is lost at the source: ${JSON.stringify(verdict)}`)
  writer = startStamp(device, log, { ...load, seed: 8, append: true })
  standstill = new Standstill()
  await delay(1000)
})

t.test('when it can be reached again all of it appears there at once, also after a kill in the middle', async (t) => {
  const image = await farPath(sites, name, name)
  renameSync(away, between)
  const begun = await source.until(
    status,
    ({ catchUp, state }) => state !== 'mapping' && catchUp!.doneBytes > 0,
    60_000,
  )
  t.comment(`${begun.state}: ${begun.reason}`)
  let looks = 0
  const look = async (): Promise<boolean> => {
    const before = await destination.inbound(name)
    const verdict = stampVerify(image, log)
    const after = await destination.inbound(name)
    const still = before.state === 'consistent' && after.state === 'consistent'
    if (!still || before.appliedEpoch !== after.appliedEpoch) return false
    looks += 1
    t.ok(verdict.ok, `epoch ${before.appliedEpoch} is a moment of the source: ${JSON.stringify(verdict)}`)
    return true
  }
  // A part that is missing for two seconds would be told, and no look count.
  await killAndStart(t, async () => {
    for (let attempt = 0; attempt < 5 && !(await look()); attempt++) await delay(200)
  })
  writer = startStamp(device, log, { ...load, sizes: '512-16384', rate: 100, append: true })
  standstill = new Standstill()
  for (;;) {
    await look()
    const { state, catchUp } = await status()
    if (state === 'replicating' && catchUp === null) break
    await delay(400)
  }
  await delay(500)
  standstill.end(t)
  t.equal((await writer.stop()).errno, 0, 'hosts have seen no error')
  t.ok(looks > 0, `${looks} looks at the far side`)
  await flush(source, name)
  t.equal(await difference(device, image), '', 'both sides are equal')
  t.match(stampVerify(image, log, { requireAll: true }), { ok: true })
  const end = await status()
  t.match(end, { state: 'replicating', generation: 1 })
  const sent = end.counters.sentBytes - sentBefore
  t.equal(await difference(other.path, await farPath(sites, name, 'mapped-not')), '')
  t.comment(`${begun.catchUp?.totalBytes} bytes of regions, ${sent} bytes sent, ${looks} looks at the far side`)
  t.ok(sent < otherBytes, `${sent} bytes sent: of ${otherBytes} that nobody wrote to nothing was sent again`)
})
