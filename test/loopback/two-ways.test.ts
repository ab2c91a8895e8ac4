import { renameSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { delay, flush, mirror } from '../fixtures/agent.js'
import { difference, farPath, twoSites } from '../fixtures/sites.js'
import { stampVerify, startStamp } from '../fixtures/stamp.js'

/** tools/torture has ten minutes. */
const outageSeconds = Number(process.env.OUTAGE_SECONDS ?? 10)
const catchUpLimitMs = 60_000 + outageSeconds * 1000

t.test('two agents are source and destination of each other at the same time', async (t) => {
  const sites = await twoSites(t)
  const { source: east, destination: west, folder } = sites
  const { pairing } = await east.cli<{ pairing: string }>('pairing', 'create', '--listen', '127.0.0.1:0')
  await west.cli('destination', 'add', 'far', '--pairing', pairing)
  const there = await east.volume(folder, 'there', '32MiB')
  const back = await west.volume(folder, 'back', '32MiB')
  await mirror(east, 'there', ['there'], '200ms')
  await mirror(west, 'back', ['back'], '200ms')
  const load = { threads: 2, sizes: '512-65536', rate: 300, seconds: 4 }
  const writers = [there, back].map(({ device }, at) =>
    startStamp(device, join(folder, `${at}.log`), { ...load, seed: at }),
  )
  for (const writer of writers) t.equal((await writer.ended).errno, 0)
  await flush(east, 'there')
  await flush(west, 'back')
  t.equal(await difference(there.path, await farPath(sites, 'there')), '')
  const { volumes } = await east.inbound('back')
  t.equal(await difference(back.path, volumes[0]!.path), '')
})

t.test('an outage under load is absorbed: the host goes on, the lag is told, nothing is copied anew', async (t) => {
  const sites = await twoSites(t, 'folder')
  const { source, folder } = sites
  const { device, path } = await source.volume(folder, 'two-ways', '64MiB')
  await mirror(source, 'two-ways', ['two-ways'], '200ms')
  const log = join(folder, 'v.log')
  const writer = startStamp(device, log, { threads: 2, sizes: '512-65536', rate: 300, seconds: 3600, seed: 4 })
  await delay(1000)
  renameSync(join(folder, 'between'), join(folder, 'away'))
  const lagging = await source.until(
    () => source.streamStatus('two-ways'),
    ({ state, oldestUnsentSeconds }) => state === 'waiting' && oldestUnsentSeconds > outageSeconds,
    catchUpLimitMs,
  )
  t.match(lagging, { state: 'waiting', reason: /\S/ })
  t.ok(lagging.waitingBytes > 0)
  t.comment(JSON.stringify({ outageSeconds, lagging: lagging.oldestUnsentSeconds, waitingBytes: lagging.waitingBytes }))
  t.match(await source.cli('destination', 'list'), [{ name: 'far', state: 'down', reason: /\S/ }])
  renameSync(join(folder, 'away'), join(folder, 'between'))
  await source.until(
    () => source.streamStatus('two-ways'),
    ({ state, oldestUnsentSeconds }) => state === 'replicating' && oldestUnsentSeconds < 5,
    catchUpLimitMs,
  )
  t.equal((await writer.stop()).errno, 0, 'the host saw nothing of it')
  await flush(source, 'two-ways')
  t.match(await source.streamStatus('two-ways'), { generation: 1, waitingBytes: 0 })
  t.equal(await difference(path, await farPath(sites, 'two-ways')), '')
  t.match(stampVerify(await farPath(sites, 'two-ways'), log, { requireAll: true }), { ok: true })
})
