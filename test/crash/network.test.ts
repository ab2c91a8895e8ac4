/** The network between the sites, at its worst: over a proxy that breaks, and over folders with a postman who cannot be trusted. */
import { execFileSync } from 'node:child_process'
import { statSync } from 'node:fs'
import t from 'tap'
import { KiB, MiB } from '../../src/block/units.js'
import { flush, mirror } from '../fixtures/agent.js'
import {
  breakingFaults,
  breakNetwork,
  bufferedFiles,
  networkFaults,
  twoSitesOverProxy,
  within,
} from '../fixtures/bad-network.js'
import { LoadedStream } from '../fixtures/crashes.js'
import { difference, farPath } from '../fixtures/sites.js'
import { newSeed, Random } from '../pool/model/random.js'
import { carriedBadly } from './carried-badly.js'

const seed = newSeed()
/** tools/torture gives more. */
const rounds = Number(process.env.TORTURE_ROUNDS ?? 20)
/** So much lies between two cuts that sending it anew shows. */
const filesACut = 4
t.comment(`seed ${seed} (SEED=${seed} repeats it), ${rounds} rounds`)

t.test(`${rounds} faults of the network under load: a moment of the source throughout, equal at the end`, async (t) => {
  const random = new Random(seed)
  const { sites, proxy } = await twoSitesOverProxy(t)
  const stream = new LoadedStream(sites, 'net-load', { seed })
  await stream.begin()
  const counts: Record<string, number> = {}
  for (let round = 1; round <= rounds; round++) {
    const fault = random.pick(networkFaults)
    counts[fault] = (counts[fault] ?? 0) + 1
    await breakNetwork(proxy, fault, random)
    if (round % 10 === 0) await stream.checkAtRest(t)
  }
  await stream.end(t)
  t.comment(JSON.stringify({ faults: rounds, ...counts, connections: proxy.connectionCount }))
  const broken = breakingFaults.reduce((sum, fault) => sum + (counts[fault] ?? 0), 0)
  t.ok(proxy.connectionCount > broken, `${broken} times and more there was a new connection`)
})

t.test(`${rounds} cuts in the middle of files: what is sent again is at most one file a cut`, async (t) => {
  const random = new Random(seed + 1)
  const { sites, proxy } = await twoSitesOverProxy(t)
  const { source, folder } = sites
  const { device, path } = await source.volume(folder, 'net-cuts', '64MiB')
  await mirror(source, 'net-cuts', ['net-cuts'])
  await source.cli('stream', 'pause', 'net-cuts')
  const pieceBytes = 256 * KiB
  const pieces = filesACut * rounds
  for (let piece = 0; piece < pieces; piece++) {
    const place = [`seek=${piece % ((64 * MiB) / pieceBytes)}`, 'count=1', `bs=${pieceBytes}`]
    execFileSync('dd', ['if=/dev/urandom', `of=${device}`, ...place, 'oflag=direct', 'conv=notrunc', 'status=none'])
    await source.until(
      () => source.streamStatus('net-cuts'),
      () => bufferedFiles(source).length > piece,
    )
  }
  const before = await source.streamStatus('net-cuts')
  const sizes = bufferedFiles(source).map((file) => statSync(file).size)
  const totalBytes = sizes.reduce((sum, size) => sum + size, 0)
  const largestBytes = Math.max(...sizes)
  const step = Math.floor(totalBytes / (rounds + 2))
  // A sender that begins anew what was under way when it was cut off would break the bound below.
  t.ok(step > 3 * largestBytes, `${sizes.length} files of at most ${largestBytes} wait, ${step} bytes a cut`)
  // Two cuts take two steps, however they lie: there is always something left to cut.
  const distances = Array.from({ length: Math.ceil(rounds / 2) }, () => 1 + random.below(2 * step - 1))
    .flatMap((distance) => [distance, 2 * step - distance])
    .slice(0, rounds)
  const crossedBefore = proxy.sentBytes
  let cuts = 0
  for (const distance of distances) {
    proxy.cutAfter(distance)
    if (cuts === 0) await source.cli('stream', 'resume', 'net-cuts')
    await within(proxy.cutDone(), `cut ${cuts + 1}`)
    cuts++
  }
  await flush(source, 'net-cuts')
  const after = await source.streamStatus('net-cuts')
  const handedBytes = after.counters.sentBytes - before.counters.sentBytes - totalBytes
  // All that crossed the link, handshakes and requests too.
  const againBytes = proxy.sentBytes - crossedBefore - totalBytes
  t.comment(JSON.stringify({ cuts, totalBytes, files: sizes.length, againBytes, handedBytes }))
  t.ok(againBytes <= cuts * largestBytes, `${againBytes} bytes again, ${cuts} files of ${largestBytes} at the most`)
  // What the source counts was handed to its system, of the two files under way: not all of it has crossed the link.
  t.ok(handedBytes <= 2 * cuts * largestBytes, `${handedBytes} bytes handed over again`)
  t.equal(await difference(path, await farPath(sites, 'net-cuts')), '')
  t.match(after, { state: 'replicating', generation: 1 })
})

t.test('R2: cut at each tenth of a file: no part is taken for the whole, and none is missing', async (t) => {
  const { sites, proxy } = await twoSitesOverProxy(t)
  const { source, destination, folder } = sites
  const { device, path } = await source.volume(folder, 'net-tenths', '64MiB')
  await mirror(source, 'net-tenths', ['net-tenths'])
  const fileBytes = 2 * MiB
  for (let tenth = 1; tenth <= 10; tenth++) {
    await source.cli('stream', 'pause', 'net-tenths')
    const place = [`seek=${tenth}`, 'count=1', `bs=${fileBytes}`]
    execFileSync('dd', ['if=/dev/urandom', `of=${device}`, ...place, 'oflag=direct', 'conv=notrunc', 'status=none'])
    await source.until(
      () => source.streamStatus('net-tenths'),
      ({ waitingBytes }) => waitingBytes >= fileBytes,
    )
    // At the last tenth: all but the end, of which nobody has heard yet.
    proxy.cutAfter(Math.round((fileBytes * tenth) / 10))
    await source.cli('stream', 'resume', 'net-tenths')
    await within(proxy.cutDone(), `the cut at ${tenth} tenths`)
    await flush(source, 'net-tenths')
    t.equal(await difference(path, await farPath(sites, 'net-tenths')), '', `cut at ${tenth} tenths`)
  }
  const { epoch, generation } = await source.streamStatus('net-tenths')
  t.match(await destination.inbound('net-tenths'), { appliedEpoch: epoch.cut, generation, state: 'consistent' })
  const complaints = (await destination.events()).filter(
    ({ severity, code }) => severity !== 'info' && code !== 'MEMORY_NOT_PROTECTED',
  )
  t.same(complaints, [], 'nothing that arrived was refused')
})

t.test('files cut, changed, lost, late, twice and old: each epoch is applied once, in order, as it was', (t) =>
  carriedBadly(t, { seed: seed + 2, seconds: Math.max(8, rounds / 4) }),
)
