/** The network between the sites, at its worst: over a proxy that breaks, and over folders with a postman who cannot be trusted. */
import { execFileSync } from 'node:child_process'
import { statSync } from 'node:fs'
import t from 'tap'
import { delay, flush, mirror } from '../fixtures/agent.js'
import { breakNetwork, bufferedFiles, networkFaults, twoSitesOverProxy } from '../fixtures/bad-network.js'
import { LoadedStream } from '../fixtures/crashes.js'
import { difference, farPath } from '../fixtures/sites.js'
import { newSeed, Random } from '../pool/model/random.js'
import { carriedBadly } from './carried-badly.js'

const seed = newSeed()
/** tools/torture gives more. */
const rounds = Number(process.env.TORTURE_ROUNDS ?? 20)
const cutLimit = Math.ceil(rounds / 2)
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
  t.comment(`${JSON.stringify(counts)}, ${proxy.connectionCount} connections`)
  t.ok(proxy.connectionCount > rounds / 4, 'connections were broken')
})

t.test(`${cutLimit} cuts in the middle of files: what is sent again is at most one file a cut`, async (t) => {
  const random = new Random(seed + 1)
  const { sites, proxy } = await twoSitesOverProxy(t)
  const { source, folder } = sites
  const { device, path } = await source.volume(folder, 'net-cuts', '64MiB')
  await mirror(source, 'net-cuts', ['net-cuts'])
  await source.cli('stream', 'pause', 'net-cuts')
  const pieces = Math.max(8, Math.ceil(cutLimit / 2))
  for (let piece = 0; piece < pieces; piece++) {
    const place = [`seek=${(piece * 2) % 62}`, 'count=2', 'bs=1M', 'oflag=direct', 'conv=notrunc', 'status=none']
    execFileSync('dd', ['if=/dev/urandom', `of=${device}`, ...place])
    await source.cli('stream', 'flush', 'net-cuts')
  }
  const before = await source.streamStatus('net-cuts')
  const sizes = bufferedFiles(source).map((file) => statSync(file).size)
  const totalBytes = sizes.reduce((sum, size) => sum + size, 0)
  const largestBytes = Math.max(...sizes)
  t.ok(sizes.length >= pieces, `${sizes.length} files wait`)
  // One cut after another, so spread that there is always something left to cut.
  let cuts = 0
  const step = Math.floor(totalBytes / (cutLimit + 2))
  proxy.cutAfter(step)
  await source.cli('stream', 'resume', 'net-cuts')
  while (cuts < cutLimit) {
    const done = await Promise.race([proxy.cutDone().then(() => true), delay(60_000).then(() => false)])
    if (!done) break
    cuts++
    if (cuts < cutLimit) proxy.cutAfter(1 + random.below(2 * step - 1))
  }
  await flush(source, 'net-cuts')
  const after = await source.streamStatus('net-cuts')
  const sentBytes = after.counters.sentBytes - before.counters.sentBytes
  const againBytes = sentBytes - totalBytes
  t.comment(`${cuts} cuts in ${totalBytes} bytes of ${sizes.length} files: ${againBytes} bytes sent again`)
  t.ok(cuts >= cutLimit / 2, `${cuts} cuts`)
  t.ok(againBytes <= cuts * largestBytes, `${againBytes} bytes again, ${cuts} files of ${largestBytes} at the most`)
  t.equal(await difference(path, await farPath(sites, 'net-cuts')), '')
  t.match(after, { state: 'replicating', generation: 1 })
})

t.test('files cut, changed, lost, late, twice and old: each epoch is applied once, in order, as it was', (t) =>
  carriedBadly(t, { seed: seed + 2, seconds: Math.max(8, rounds / 4) }),
)
