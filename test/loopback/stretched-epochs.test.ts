/** A source buffer that fills: from its half on, what would be many epochs is one. */
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { MiB } from '../../src/block/units.js'
import { Agent, flush, mirror, pair } from '../fixtures/agent.js'
import { scratchFolder } from '../fixtures/paths.js'
import { difference, farPath } from '../fixtures/sites.js'

const name = 'stretched'
const hotMiB = 2
const rounds = 40

t.test('while nothing is sent, a few blocks that are rewritten all the time do not fill the buffer', async (t) => {
  const folder = scratchFolder(t, name)
  const config = join(folder, 'source.yaml')
  writeFileSync(config, 'buffer:\n  limit: 16MiB\n')
  const source = await Agent.start(t, folder, 'source', ['--config', config])
  const destination = await Agent.start(t, folder, 'destination')
  await pair(source, destination, { via: 'https' })
  const { device } = await source.volume(folder, name, '16MiB')
  await mirror(source, name, [name])
  const status = () => source.streamStatus(name)
  await source.cli('stream', 'pause', name)
  const before = await status()
  for (let round = 0; round < rounds; round++) {
    const what = ['if=/dev/urandom', `of=${device}`, 'bs=1M', `count=${hotMiB}`, 'oflag=direct', 'conv=notrunc']
    execFileSync('dd', [...what, 'status=none'])
    // Longer than an epoch is: each of these would be one.
    await new Promise((resolve) => setTimeout(resolve, 250))
  }
  const { state, buffer, epoch } = await status()
  t.equal(state, 'paused')
  t.ok(buffer.usedBytes >= 8 * MiB, `in the buffer: ${buffer.usedBytes}`)
  t.ok(buffer.usedBytes < 16 * MiB, `of ${rounds * hotMiB} MiB written ${buffer.usedBytes} bytes are in the buffer`)
  t.ok(epoch.cut - before.epoch.cut < rounds / 2, `${epoch.cut - before.epoch.cut} epochs`)
  // Whoever waits is not held up by it.
  await source.cli('stream', 'resume', name)
  await flush(source, name)
  t.equal(await difference(device, await farPath({ folder, source, destination }, name)), '')
  t.match(await status(), { state: 'replicating', generation: before.generation })
})
