import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { formatPairing, parsePairing } from '../../src/transport/pairing-string.js'
import { Agent, delay, flush } from '../fixtures/agent.js'
import { crashCount, LoadedStream } from '../fixtures/crashes.js'
import { scratchFolder } from '../fixtures/paths.js'
import { Postman } from '../fixtures/postman.js'
import type { Sites } from '../fixtures/sites.js'
import { Random } from '../pool/model/random.js'

const name = 'source-numbers'
const folder = scratchFolder(t, name)
const [outbox, between] = [join(folder, 'outbox'), join(folder, 'between')]
for (const each of [outbox, between]) mkdirSync(each)
const source = await Agent.start(t, folder, 'source')
const destination = await Agent.start(t, folder, 'destination')
const sites: Sites = { folder, source, destination }
const created = await destination.cli<{ pairing: string }>('pairing', 'create', '--folder', between)
const pairing = parsePairing(created.pairing)
const endpoint = { kind: 'folder', directory: outbox } as const
await source.cli('destination', 'add', 'far', '--pairing', formatPairing({ ...pairing, endpoint }))

const stream = new LoadedStream(sites, name)
const begun = stream.begin()
const { id } = await source.until(
  () => source.streamStatus(name).catch(() => ({ id: '' })),
  (view) => view.id !== '',
)
const [from, to] = [outbox, between].map((each) => join(each, pairing.id.toString('hex'), id))
const postman = new Postman(from!, to!, join(folder, 'bag'), new Random(1))
t.teardown(() => postman.close())
postman.isHonest = true
await begun

for (let crash = 1; crash <= crashCount; crash++) {
  t.test(`R11: after kill -9 of the source no number has another content, ${crash} of ${crashCount}`, async (t) => {
    await stream.awhile()
    const { lostCount: lostBefore } = postman
    const seenBefore = postman.seenAgain.length
    // What has left the source, and is nowhere else, it has to send again.
    postman.isGone = true
    await source.until(
      async () => postman.lostCount,
      (count) => count > lostBefore,
    )
    await delay(Math.random() * 500)
    await source.kill()
    await delay(100)
    const lost = postman.lostCount - lostBefore
    postman.isGone = false
    await source.start()
    await source.until(
      async () => postman.seenAgain.length - seenBefore,
      (count) => count >= lost,
    )
    const seen = postman.seenAgain.slice(seenBefore)
    t.comment(`${lost} files lost, ${seen.length} seen again`)
    t.same(
      seen.filter(({ isSame }) => !isSame),
      [],
      'byte for byte what it was',
    )
    await flush(source, name)
  })
}

t.test('and both sides converge', (t) => stream.end(t))
