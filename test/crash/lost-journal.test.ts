/** The journal is lost, in part or wholly: by a power cut, as far as the source can tell, or by damage. */
import { execFileSync } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { InboundView, StreamView } from '../../src/api/agent-operations.js'
import { MiB } from '../../src/block/units.js'
import { Agent, delay, flush, mirror, pair } from '../fixtures/agent.js'
import { bufferFolder, damageJournal, losePower, positions } from '../fixtures/lost-journal.js'
import { scratchFolder } from '../fixtures/paths.js'
import { difference, farPath, md5Direct, type Sites } from '../fixtures/sites.js'
import { startStamp } from '../fixtures/stamp.js'

const name = 'lost-journal'
const regionBytes = 256 * 1024
const folder = scratchFolder(t, 'lost-journal')
const config = join(folder, 'source.yaml')
writeFileSync(config, 'journal:\n  segment: 8MiB\nbuffer:\n  limit: 4MiB\nregions:\n  size: 256KiB\n')
const source = await Agent.start(t, folder, 'source', ['--config', config])
const destination = await Agent.start(t, folder, 'destination')
const sites: Sites = { folder, source, destination }
await pair(source, destination, { via: 'https' })

const { device } = await source.volume(folder, name, '144MiB')
// Stamps live in the first 72 MiB; a copy of everything would send what lies behind them, too.
const random = ['if=/dev/urandom', `of=${device}`, 'bs=1M', 'seek=76', 'count=68', 'oflag=direct', 'status=none']
execFileSync('dd', random)
await mirror(source, name, [name])

const load = { threads: 3, sizes: '512-131072', rate: 600, seconds: 600, blocks: (72 * MiB) / 4096, fsyncEvery: 50 }

let sentBefore = 0
const streamFolder = bufferFolder(source, name)

/** By epoch that was applied: what a reader of the far image has seen. */
type Seen = Map<number, Set<string>>

async function look(image: string, seen: Seen): Promise<void> {
  const before = await destination.inbound(name)
  const digest = await md5Direct(image)
  const after = await destination.inbound(name)
  if (before.state !== 'consistent' || after.state !== 'consistent') return
  const { appliedEpoch } = before
  if (appliedEpoch === after.appliedEpoch) seen.set(appliedEpoch, (seen.get(appliedEpoch) ?? new Set()).add(digest))
}

/** Look again and again until the stream is caught up. */
async function watch(image: string, seen: Seen): Promise<void> {
  for (;;) {
    await look(image, seen)
    const status = await source.streamStatus(name).catch(() => undefined)
    if (status?.state === 'replicating' && status.waitingBytes === 0) return
    await delay(300)
  }
}

const losses = [
  { what: 'a power cut with the journal open', lose: losePower, reason: /restarted/ },
  { what: 'a power cut, and a kill while it catches up', lose: losePower, reason: /restarted/, killed: true },
  { what: 'a damaged journal', lose: damageJournal, reason: /JOURNAL_DAMAGED/ },
]

sentBefore = (await source.streamStatus(name)).counters.sentBytes
for (const [at, { what, lose, reason, killed }] of losses.entries()) {
  t.test(`${what}: the active regions are caught up`, async (t) => {
    const { device } = await source.cli<{ device: string }>('volume', 'show', name)
    const log = join(folder, `stamps-${at}.log`)
    const writer = startStamp(device, log, { ...load, seed: 5 + at })
    await delay(3000)
    // Zeros have to be caught up as well as data.
    execFileSync('blkdiscard', ['--offset', String((76 + at) * MiB), '--length', String(MiB), device])
    await source.killWithDevices()
    t.not((await writer.stop()).errno, 0, 'the device is gone')
    const image = await farPath(sites, name)
    const seen: Seen = new Map()
    await look(image, seen)
    const lastState = await lose(source, name)
    await source.start()
    const begun = await source.streamStatus(name)
    t.match(begun, { generation: 1 }, 'no new generation')
    t.match(begun.catchUp?.reason ?? begun.reason, reason)
    const total = begun.catchUp?.totalBytes ?? 0
    t.ok(total > 0 && total <= 80 * MiB, `${total} bytes are active, of ${144 * MiB}`)
    t.equal(total % regionBytes, 0)
    if (killed) {
      const arrived = ({ state, appliedEpoch, waitingFiles }: InboundView) =>
        state === 'consistent' && appliedEpoch === lastState && waitingFiles > 0
      const over = ({ appliedEpoch }: InboundView) => appliedEpoch > lastState
      const caught = await destination.until(
        () => destination.inbound(name),
        (view) => arrived(view) || over(view),
      )
      await source.kill()
      t.ok(arrived(caught), 'the kill comes in the middle')
      await look(image, seen)
      await delay(1000)
      t.ok(arrived(await destination.inbound(name)), 'what has arrived of it waits for the rest')
      await look(image, seen)
      await source.start()
      t.not((await source.streamStatus(name)).catchUp, null, 'it was killed in the middle, and goes on')
    }
    await watch(image, seen)
    await flush(source, name)
    const now = await source.cli<{ device: string }>('volume', 'show', name)
    t.equal(await difference(now.device, image), '', 'both sides are equal')
    await look(image, seen)
    for (const [epoch, digests] of seen)
      t.equal(digests.size, 1, `epoch ${epoch} is one state, whenever it is looked at`)
    t.ok([...seen.keys()].some((epoch) => epoch > lastState))
    const status = await source.streamStatus(name)
    t.match(status, { state: 'replicating', generation: 1, catchUp: null })
    const sent = status.counters.sentBytes - sentBefore
    t.comment(`${total} bytes of active regions, ${sent} bytes sent, ${seen.size} states seen`)
    t.ok(sent < 64 * MiB, 'what lies behind the active regions is not sent')
    sentBefore = status.counters.sentBytes
  })
}

/** Of 1 MiB each, on its disk. */
function write(device: string, seek: number, count: number): void {
  const where = [`of=${device}`, 'bs=1M', `seek=${seek}`, `count=${count}`, 'oflag=direct', 'conv=fsync']
  execFileSync('dd', ['if=/dev/urandom', ...where, 'status=none'])
}

async function deviceNow(): Promise<string> {
  return (await source.cli<{ device: string }>('volume', 'show', name)).device
}

async function untilCaughtUp(): Promise<void> {
  const isOver = ({ state, catchUp }: StreamView): boolean => state === 'replicating' && catchUp === null
  await source.until(() => source.streamStatus(name), isOver)
}

t.test('a journal that has lost what epochs were made of is not gone on with', async (t) => {
  for (let attempt = 1; ; attempt += 1) {
    write(await deviceNow(), 8, 6)
    await flush(source, name)
    await source.killWithDevices()
    const { cutLsn, checkpointLsn } = await positions(source, name)
    if (checkpointLsn + 6 * MiB <= cutLsn) break
    // A checkpoint, which comes every 5 s, has come in between.
    t.ok(attempt < 10, `epochs up to ${cutLsn}, a checkpoint at ${checkpointLsn}`)
    await source.start()
  }
  await losePower(source, name, 'checkpoint')
  await source.start()
  // As much as was lost: in the places of that it would be in no epoch.
  write(await deviceNow(), 60, 6)
  await untilCaughtUp()
  await flush(source, name)
  t.equal(await difference(await deviceNow(), await farPath(sites, name)), '', 'both sides are equal')
  const said = (await source.events()).filter(({ code, text }) => code === 'STREAM_MAPPING' && /has lost/.test(text))
  t.equal(said.length, 1, 'and it was said')
})

t.test('what a power cut leaves on the volume alone wins over records behind it that are in no epoch', async (t) => {
  const device = await deviceNow()
  await source.cli('stream', 'pause', name)
  write(device, 0, 34)
  const isFull = ({ buffer }: StreamView): boolean => buffer.usedBytes >= buffer.limitBytes
  await source.until(() => source.streamStatus(name), isFull)
  write(device, 0, 2)
  // A checkpoint comes every 5 s.
  await delay(7000)
  write(device, 0, 1)
  await source.killWithDevices()
  const { cutLsn, checkpointLsn } = await positions(source, name)
  t.ok(checkpointLsn >= cutLsn + 2 * MiB, `epochs up to ${cutLsn}, a checkpoint at ${checkpointLsn}`)
  await losePower(source, name)
  await source.start()
  t.match((await source.streamStatus(name)).catchUp?.reason, /restarted/)
  await source.cli('stream', 'resume', name)
  await flush(source, name)
  t.equal(await difference(await deviceNow(), await farPath(sites, name)), '', 'both sides are equal')
  await untilCaughtUp()
})

t.test(
  'a record that is lost costs nothing while the journal holds, and an initialisation when it does not',
  async (t) => {
    await source.kill()
    rmSync(join(streamFolder, 'regions'))
    await source.start()
    const { device } = await source.cli<{ device: string }>('volume', 'show', name)
    execFileSync('dd', ['if=/dev/urandom', `of=${device}`, 'bs=1M', 'count=1', 'oflag=direct', 'status=none'])
    await flush(source, name)
    t.match(await source.streamStatus(name), { state: 'replicating', generation: 1 })
    t.equal(await difference(device, await farPath(sites, name)), '')
    await source.killWithDevices()
    rmSync(join(streamFolder, 'regions'))
    await losePower(source, name)
    await source.start()
    t.match(await source.streamStatus(name), { state: 'diverged', reason: /record of their regions is lost/ })
  },
)
