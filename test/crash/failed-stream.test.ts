/** A stream that failed for a reason nobody foresaw goes on by itself when that is over. */
import { readdirSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { LoadedStream } from '../fixtures/crashes.js'
import { twoSites } from '../fixtures/sites.js'

const sites = await twoSites(t)
const { source } = sites
const stream = new LoadedStream(sites, 'load-failed')
await stream.begin()

function journalFolder(): string {
  const buffer = join(source.state, 'buffer')
  const own = readdirSync(buffer).find((name) => name.startsWith('load-failed-'))
  return join(buffer, own!, 'journal')
}

t.test('segments that cannot be read for a while: it is tried again, and says when; hosts see nothing', async (t) => {
  await stream.awhile()
  const folder = journalFolder()
  const segments = readdirSync(folder).filter((name) => name.endsWith('.seg'))
  t.ok(segments.length > 0)
  for (const name of segments) renameSync(join(folder, name), join(folder, `${name}-away`))
  const status = () => source.streamStatus('load-failed')
  const failed = await source.until(status, ({ state }) => state === 'failed')
  t.match(failed.reason, /Tried again in \d+ s\./, failed.reason)
  for (const name of segments) renameSync(join(folder, `${name}-away`), join(folder, name))
  await source.until(status, ({ state }) => state === 'replicating', 30_000)
  const codes = (await source.events()).map(({ code }) => code)
  t.equal(codes.filter((code) => code === 'STREAM_FAILED').length, 1, 'told of once')
  await stream.end(t)
})
