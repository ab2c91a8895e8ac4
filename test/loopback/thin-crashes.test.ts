import t from 'tap'
import type { VolumeView } from '../../src/api/agent-operations.js'
import { LoadedStream } from '../fixtures/crashes.js'
import { stampVerify } from '../fixtures/stamp.js'
import { farPool, poolFacts, sourcePool, thinVolume, twoThinSites } from '../fixtures/thin-sites.js'

const crashCount = 6
const sites = await twoThinSites(t)
const { source, destination } = sites
const stream = new LoadedStream(sites, 'thin-load', { make: (name) => thinVolume(source, name, '32MiB') })
await stream.begin()

for (let crash = 1; crash <= crashCount; crash++) {
  t.test(`kill -9 of the source agent under load on a thin volume, ${crash} of ${crashCount}`, async (t) => {
    await stream.awhile()
    await source.kill()
    await stream.checkAlone(t)
    await source.start()
    const volume = await source.cli<VolumeView>('volume', 'show', 'thin-load')
    t.match(volume, { state: 'attached', kind: 'thin', device: stream.device }, 'the device is the same')
    t.equal(await stream.writerEnds(), 0, 'its host has seen no error')
    const verdict = stampVerify(volume.device!, stream.log, { requireAll: true })
    t.ok(verdict.ok, `no acknowledged write is lost at the source: ${JSON.stringify(verdict)}`)
    stream.write(volume.device!)
  })
}

for (let crash = 1; crash <= crashCount; crash++) {
  t.test(`kill -9 of the destination agent while it writes a thin volume, ${crash} of ${crashCount}`, async (t) => {
    await stream.awhile()
    await destination.kill()
    await stream.awhile(0, 800)
    await destination.start()
    await stream.checkAtRest(t)
  })
}

t.test('after the crashes both sides converge, and so do their pools', async (t) => {
  await stream.end(t)
  const [near, far] = [await poolFacts(source, sourcePool), await poolFacts(destination, farPool)]
  t.ok(near.mappedBytes <= 32 * 2 ** 20 && far.mappedBytes <= 32 * 2 ** 20, 'no block is held twice')
})
