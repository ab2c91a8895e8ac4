import t from 'tap'
import type { VolumeView } from '../../src/api/agent-operations.js'
import { crashCount, LoadedStream } from '../fixtures/crashes.js'
import { twoSites } from '../fixtures/sites.js'
import { stampVerify } from '../fixtures/stamp.js'

const sites = await twoSites(t)
const stream = new LoadedStream(sites, 'load-source')
await stream.begin()

for (let crash = 1; crash <= crashCount; crash++) {
  t.test(`kill -9 of the source agent under load, ${crash} of ${crashCount}`, async (t) => {
    await stream.awhile()
    await sites.source.kill()
    await stream.checkAlone(t)
    await sites.source.start()
    const volume = await sites.source.cli<VolumeView>('volume', 'show', 'load-source')
    t.match(volume, { state: 'attached', device: stream.device }, 'the device is the same')
    t.equal(await stream.writerEnds(), 0, 'its host has seen no error')
    const verdict = stampVerify(volume.device!, stream.log, { requireAll: true })
    t.ok(verdict.ok, `no acknowledged write is lost at the source: ${JSON.stringify(verdict)}`)
    stream.write(volume.device!)
  })
}

t.test('after the crashes of the source agent both sides converge', (t) => stream.end(t))
