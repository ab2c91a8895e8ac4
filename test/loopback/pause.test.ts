/** Pausing and resuming while epochs are under way. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { StreamView } from '../../src/api/agent-operations.js'
import { TEMPORARY_SUFFIX } from '../../src/transport/transport.js'
import { delay, flush, mirror } from '../fixtures/agent.js'
import { scratchFolder } from '../fixtures/paths.js'
import { difference, farPath, lookAtRest, twoSites } from '../fixtures/sites.js'
import { stampVerify, startStamp } from '../fixtures/stamp.js'
import { Random } from '../pool/model/random.js'

const name = 'paused-often'
const seed = Number(process.env.TIDEMARK_SEED ?? Date.now() % 100_000)
const pauses = 12

t.test(
  `R33: a stream paused and resumed ${pauses} times in the middle of its transfers loses nothing and sends nothing while paused`,
  async (t) => {
    t.comment(`TIDEMARK_SEED=${seed}`)
    const random = new Random(seed)
    const folder = scratchFolder(t, name)
    const sites = await twoSites(t)
    const { source } = sites
    const inbox = join(sites.destination.state, 'inbox')
    const { device } = await source.volume(folder, name, '64MiB')
    await mirror(source, name, [name], '100ms')
    const log = `${folder}/stamps.log`
    const load = { threads: 3, sizes: '512-131072', rate: 400, seconds: 300, fsyncEvery: 50, seed }
    const writer = startStamp(device, log, load)
    /** What was under way when the command came may end; on a busy machine that takes a while. */
    const atRest = async (): Promise<StreamView> => {
      let before = await source.streamStatus(name)
      return source.until(
        async () => {
          await delay(700)
          return source.streamStatus(name)
        },
        (now) => {
          // A file counts at its end; until then it has another name at the destination.
          const isUnderWay = readdirSync(inbox, { recursive: true, encoding: 'utf8' }).some((file) =>
            file.endsWith(TEMPORARY_SUFFIX),
          )
          const rests = !isUnderWay && now.counters.sentBytes === before.counters.sentBytes
          before = now
          return rests
        },
        20_000,
      )
    }
    for (let pause = 0; pause < pauses; pause++) {
      await delay(50 + random.below(500))
      await source.cli('stream', 'pause', name)
      const before = await atRest()
      t.equal(before.state, 'paused')
      if (pause % 3 === 0) {
        const verdict = await lookAtRest(sites, name, (image) => stampVerify(image, log))
        t.match(verdict, { ok: true }, 'the far side is a moment of the source')
      } else await delay(300)
      const after = await source.streamStatus(name)
      t.equal(after.counters.sentBytes, before.counters.sentBytes, 'nothing is sent')
      await source.cli('stream', 'resume', name)
    }
    t.equal((await writer.stop()).errno, 0)
    await flush(source, name)
    t.equal(await difference(device, await farPath(sites, name)), '')
    const status: StreamView = await source.streamStatus(name)
    t.match(status, { state: 'replicating', generation: 1, catchUp: null })
  },
)
