import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { flush, mirror, tidemark } from '../fixtures/agent.js'
import { twoSites } from '../fixtures/sites.js'
import { stampWrite } from '../fixtures/stamp.js'

const sites = await twoSites(t, 'folder')
const { source, destination, folder } = sites

t.test('inspect prints every record of a journal segment and of a sealed replication file', async (t) => {
  const { device } = await source.volume(folder, 'inspected', '16MiB')
  await mirror(source, 'inspected', ['inspected'])
  await source.cli('stream', 'pause', 'inspected')
  const { writes } = await stampWrite(device, join(folder, 'v.log'), { threads: 1, sizes: '4096', writes: 50, seed: 2 })
  await source.cli('stream', 'flush', 'inspected')
  const buffer = join(source.state, 'buffer', readdirSync(join(source.state, 'buffer'))[0]!)
  const parts = await source.until(
    async () => readdirSync(join(buffer, 'files')).filter((name) => name.endsWith('.tmr')),
    ({ length }) => length > 0,
  )
  const segment = readdirSync(join(buffer, 'journal')).find(
    (name) => name.endsWith('.seg') && !name.startsWith('spare'),
  )
  const records = await inspect(join(buffer, 'journal', segment!))
  const written = records.filter(({ kind, type }) => kind === 'record' && type === 'write')
  t.equal(written.length, writes)
  t.match(written[0], { lsn: /^\d+$/, time: /^20/, offset: Number, lengthBytes: 4096, payloadCrc: /^[0-9a-f]{8}$/ })
  const part = join(buffer, 'files', parts[0]!)
  for (const { state } of [source, destination]) {
    const sealed = await inspect(part, '--state', state)
    const kept = sealed.filter(({ lsn, offset }) => lsn !== undefined && offset !== undefined)
    t.ok(kept.length > 0 && kept.length <= writes, `${kept.length} records, with either site's keys`)
  }
  const stranger = await tidemark(['inspect', part, '--state', folder])
  t.equal(stranger.code, 0)
  t.match(stranger.stdout, /key/, 'and without a key it says so')
  await source.cli('stream', 'resume', 'inspected')
  await flush(source, 'inspected')
})

async function inspect(...parameters: string[]): Promise<Record<string, unknown>[]> {
  const { code, stdout, stderr } = await tidemark(['--json', 'inspect', ...parameters])
  t.equal(code, 0, stderr)
  return stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Record<string, unknown>)
}
