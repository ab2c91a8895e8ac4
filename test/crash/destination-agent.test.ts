import t from 'tap'
import { crashCount, LoadedStream } from '../fixtures/crashes.js'
import { twoSites } from '../fixtures/sites.js'

const sites = await twoSites(t)
const stream = new LoadedStream(sites, 'load-destination')
await stream.begin()

for (let crash = 1; crash <= crashCount; crash++) {
  t.test(`kill -9 of the destination agent under load, ${crash} of ${crashCount}`, async (t) => {
    await stream.awhile()
    await sites.destination.kill()
    await stream.awhile(0, 800)
    await sites.destination.start()
    await stream.checkAtRest(t)
  })
}

t.test('after the crashes of the destination agent both sides converge', (t) => stream.end(t))
