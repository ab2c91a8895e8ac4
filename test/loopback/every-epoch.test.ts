/**
 * The destination runs inside this test, one epoch at a time, and its image is judged at every single boundary: no
 * epoch passes that nobody looked at.
 */
import { copyFileSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { WorkerCalls } from '../../src/block/worker-calls.js'
import { ImageFolder } from '../../src/destage/image-folder.js'
import type { InboundPosition } from '../../src/destage/inbound-state.js'
import { InboundStream } from '../../src/destage/inbound-stream.js'
import { Inbox } from '../../src/destage/inbox.js'
import { deriveStreamSecret } from '../../src/replication-file/keys.js'
import { newPairing } from '../../src/transport/pairing.js'
import { formatPairing } from '../../src/transport/pairing-string.js'
import { Agent, delay, flush } from '../fixtures/agent.js'
import { MemoryStore } from '../fixtures/memory-store.js'
import { scratchFolder } from '../fixtures/paths.js'
import { difference } from '../fixtures/sites.js'
import { type StampWriteOptions, stampVerify, startStamp, type VerifyOptions } from '../fixtures/stamp.js'

const folder = scratchFolder(t, 'every-epoch')
const between = join(folder, 'between')
mkdirSync(between)
const source = await Agent.start(t, folder, 'source')
const pairing = newPairing({ kind: 'folder', directory: between })
await source.cli('destination', 'add', 'far', '--pairing', formatPairing(pairing))

const worker = new WorkerCalls(new URL('../../src/destage/destage-worker.js', import.meta.url))
t.teardown(() => worker.close())

/** A busy machine gets longer for as many boundaries. */
const [usualSeconds, slowestSeconds] = [8, 80]
const boundaryCount = 20

const loads: [string, StampWriteOptions][] = [
  ['one writer at depth 1: a strict prefix', { threads: 1, sizes: '4096', blocks: 256, seconds: slowestSeconds }],
  [
    'four writers, 512 B to 128 KiB, overlapping',
    { threads: 4, sizes: '512-131072', overlap: true, rate: 400, seconds: slowestSeconds },
  ],
]
for (const [index, [title, load]] of loads.entries()) {
  t.test(`every epoch boundary is a state the source passed through: ${title}`, (t) =>
    judgeEveryEpoch(t, `v${index}`, [`v${index}`], { ...load, seed: 5 + index }),
  )
}

t.test('two volumes of one stream are one moment at every epoch boundary, eight writers writing to both', (t) => {
  const load = { threads: 8, sizes: '512-16384', overlap: true, seconds: slowestSeconds, seed: 9 }
  return judgeEveryEpoch(t, 'both', ['left', 'right'], load)
})

/** @param volumes one, or two that are one to the writer and to the judge */
async function judgeEveryEpoch(t: Test, name: string, volumes: string[], load: StampWriteOptions): Promise<void> {
  const log = join(folder, `${name}.log`)
  const devices: string[] = []
  for (const volume of volumes) devices.push((await source.volume(folder, volume, '32MiB')).device)
  const { id } = await source.cli<{ id: string }>(
    ...['stream', 'create', name, ...volumes.flatMap((volume) => ['--volume', volume])],
    ...['--destination', 'far', '--epoch', '100ms'],
  )
  const stop = new AbortController()
  const images = new ImageFolder(join(folder, `${name}-images`))
  const inbox = new Inbox(join(between, pairing.id.toString('hex')), () => stream.pause.wake())
  t.teardown(() => inbox.close())
  const paths = (): string[] =>
    volumes.map((volume) => images.path(stream.position.volumes.find((v) => v.name === volume)!))
  const judge = ([image, beside]: string[], options: VerifyOptions = {}) =>
    stampVerify(image!, log, { ...options, ...(beside !== undefined && { beside }) })
  const boundaries: { epoch: number; n: number }[] = []
  const before = join(folder, `${name}-before.img`)
  let mixtures = 0
  const look = async ({ appliedEpoch, consistent }: InboundPosition): Promise<void> => {
    if (!consistent) return
    const [image, beside] = paths()
    const verdict = judge(paths())
    if (!verdict.ok) t.fail(`epoch ${appliedEpoch}: ${JSON.stringify(verdict)}`)
    if (beside !== undefined) {
      // The judge is judged: the second volume as it was an epoch before.
      if (boundaries.length > 0 && !judge([image!, before]).ok) mixtures += 1
      copyFileSync(beside, before)
    }
    boundaries.push({ epoch: appliedEpoch, n: verdict.n })
  }
  const stream = new InboundStream({
    pairingId: pairing.id,
    streamId: Buffer.from(id, 'hex'),
    secret: deriveStreamSecret(pairing.secret, Buffer.from(id, 'hex')),
    store: new MemoryStore(),
    directory: join(folder, `${name}-inbound`),
    images,
    inbox,
    worker,
    report: ({ severity, text }) => severity === 'error' && t.fail(text),
    limits: { epochs: 1, rawBytes: 1 },
    onApplied: look,
  })
  const running = stream.run(stop.signal)
  const beside = devices[1]
  const writer = startStamp(devices[0]!, log, { ...load, ...(beside && { beside }), fsyncEvery: 50 })
  await source.cli('stream', 'initialize', name, '--wait')
  const begun = performance.now()
  const seconds = () => (performance.now() - begun) / 1000
  while (seconds() < usualSeconds || (boundaries.length < boundaryCount && seconds() < slowestSeconds)) await delay(100)
  const { errno, writes } = await writer.stop()
  t.equal(errno, 0)
  await flush(source, name)
  stop.abort()
  await running
  t.comment(`${boundaries.length} epochs judged over ${writes} writes`)
  t.ok(boundaries.length >= boundaryCount, `${boundaries.length} boundaries were judged`)
  t.ok(boundaries.at(-1)!.n > boundaries[0]!.n, 'and they moved on')
  t.same(
    boundaries.map(({ epoch }) => epoch),
    boundaries.map((_, at) => boundaries[0]!.epoch + at),
    'none was left out',
  )
  if (beside) t.ok(mixtures > boundaries.length / 2, `${mixtures} mixtures of two epochs were told from a moment`)
  t.match(judge(paths(), { requireAll: true }), { ok: true, behind: 0 })
  for (const [at, device] of devices.entries()) t.equal(await difference(device, paths()[at]!), '')
  await source.cli('stream', 'remove', name)
}
