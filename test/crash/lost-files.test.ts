/** Files are lost that were promised to be there: of the source buffer, and of the arrival buffer. */
import { execFileSync } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { InboundView, StreamView } from '../../src/api/agent-operations.js'
import { Agent, flush, mirror, pair } from '../fixtures/agent.js'
import { bufferFolder, losePower } from '../fixtures/lost-journal.js'
import { scratchFolder } from '../fixtures/paths.js'
import { difference, farPath, type Sites } from '../fixtures/sites.js'

const name = 'lost-files'
const folder = scratchFolder(t, name)
const config = join(folder, 'source.yaml')
writeFileSync(config, 'journal:\n  segment: 8MiB\nbuffer:\n  limit: 4MiB\nregions:\n  size: 256KiB\n')
const source = await Agent.start(t, folder, 'source', ['--config', config])
const destination = await Agent.start(t, folder, 'destination')
const sites: Sites = { folder, source, destination }
await pair(source, destination, { via: 'https' })
const { device } = await source.volume(folder, name, '64MiB')
await mirror(source, name, [name])

const inbound = (): Promise<InboundView> => destination.inbound(name)

/** @returns how many there were */
function loseFiles(below: string): number {
  const files = execFileSync('find', [below, '-name', '*.tmr'], { encoding: 'utf8' }).split('\n').filter(Boolean)
  for (const file of files) rmSync(file)
  return files.length
}

function writeRandom(countMiB: number): void {
  const parameters = ['if=/dev/urandom', `of=${device}`, 'bs=1M', `count=${countMiB}`, 'oflag=direct', 'status=none']
  execFileSync('dd', parameters)
}

/** Initialize again, as the reason says, and compare. */
async function mend(t: Test): Promise<void> {
  await source.cli('stream', 'initialize', name, '--wait')
  await flush(source, name)
  const now = await source.cli<{ device: string }>('volume', 'show', name)
  t.equal(await difference(now.device, await farPath(sites, name)), '')
}

t.test('a file that the source buffer lost is named, the far side stays, and an initialisation mends it', async (t) => {
  await source.cli('stream', 'pause', name)
  writeRandom(2)
  await source.cli('stream', 'flush', name)
  const before = await inbound()
  t.ok(loseFiles(bufferFolder(source, name)) > 0)
  await source.cli('stream', 'resume', name)
  const view = await source.until(
    () => source.streamStatus(name),
    ({ state }: StreamView) => state === 'waiting',
  )
  t.match(view.reason, /SOURCE_FILE: .*initialize/)
  t.match(await inbound(), { state: 'consistent', appliedEpoch: before.appliedEpoch })
  writeRandom(1)
  await mend(t)
})

t.test('files the arrival buffer lost after they were received are named at the source, with a way out', async (t) => {
  writeRandom(60)
  await source.killWithDevices()
  const last = await losePower(source, name)
  await source.start()
  // The buffer holds one epoch: the next one is cut when the one before it was received.
  await source.until(
    () => source.streamStatus(name),
    ({ epoch }: StreamView) => epoch.cut >= last + 3,
  )
  await source.kill()
  t.match(await inbound(), { state: 'consistent', appliedEpoch: last }, 'the catch-up is under way')
  await destination.kill()
  t.ok(loseFiles(destination.state) > 1)
  await destination.start()
  t.match(await inbound(), { state: 'consistent', appliedEpoch: last }, 'the last state stays')
  await source.start()
  const view = await source.until(
    () => source.streamStatus(name),
    ({ reason }: StreamView) => /had received/.test(reason),
    60_000,
  )
  t.match(view, { state: 'waiting', reason: /^destination: .*initialize lost-files/ })
  await mend(t)
})
