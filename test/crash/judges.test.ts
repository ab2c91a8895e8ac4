/** The judges are judged: a destination that does wrong in a known way is found out by what the other tests here look at. */
import { closeSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { WorkerCalls } from '../../src/block/worker-calls.js'
import type { ApplyJob } from '../../src/destage/destage-job.js'
import { newPairing } from '../../src/transport/pairing.js'
import { formatPairing } from '../../src/transport/pairing-string.js'
import { Agent, flush } from '../fixtures/agent.js'
import { scratchFolder } from '../fixtures/paths.js'
import { startStamp } from '../fixtures/stamp.js'
import { newSeed, Random } from '../pool/model/random.js'
import { ObservedStream } from './observed-stream.js'

const blockBytes = 4096
const judgedEpochs = 12
const seed = newSeed()
t.comment(`seed ${seed} (SEED=${seed} repeats it)`)
const random = new Random(seed)

const folder = scratchFolder(t, 'judges')
const between = join(folder, 'between')
mkdirSync(between)
const source = await Agent.start(t, folder, 'source')
const pairing = newPairing({ kind: 'folder', directory: between })
await source.cli('destination', 'add', 'far', '--pairing', formatPairing(pairing))

type Spoil = (image: string, before: Buffer) => void

const faults: [name: string, title: string, spoil: Spoil | undefined][] = [
  ['judge-honest', 'a destination that does right is found to do so', undefined],
  [
    'judge-drop',
    'one write in an epoch left out',
    (image, before) => revert(image, before, (blocks) => blocks.slice(0, 1)),
  ],
  ['judge-part', 'an epoch applied in part', (image, before) => revert(image, before, half)],
  ['judge-move', 'a write that went to the wrong place', (image, before) => misplace(image, before)],
  ['judge-tear', 'a write that was torn', (image, before) => tear(image, before)],
]

for (const [name, title, spoil] of faults) {
  t.test(title, async (t) => {
    const observed = await run(t, name, spoil)
    const wrong = observed.verdicts.filter(({ verdict }) => !verdict.ok)
    t.comment(`${wrong.length} of ${observed.verdicts.length} epochs are found to be wrong`)
    t.ok(observed.verdicts.length >= 5)
    if (spoil) t.ok(wrong.length > 0, 'the judge has seen it')
    else t.same(wrong, [])
  })
}

/** Some epochs of load, of which the destination spoils each fifth. */
async function run(t: Test, name: string, spoil: Spoil | undefined): Promise<ObservedStream> {
  const own = join(folder, name)
  mkdirSync(own)
  const { device } = await source.volume(own, name, '8MiB')
  const log = join(own, 'stamps.log')
  const create = ['stream', 'create', name, '--volume', name, '--destination', 'far', '--epoch', '100ms']
  const { id } = await source.cli<{ id: string }>(...create)
  const options = { folder: own, pairing, arrivesIn: between, streamId: id, log }
  const observed = new ObservedStream(t, spoil ? { ...options, spoil: spoiling(spoil) } : options)
  const writer = startStamp(device, log, { threads: 2, sizes: '4096-32768', rate: 200, seconds: 120, seed })
  await source.cli('stream', 'initialize', name)
  await source.until(
    async () => observed.verdicts.length,
    (count) => count >= judgedEpochs,
    60_000,
  )
  t.equal((await writer.stop()).errno, 0)
  await flush(source, name)
  await source.cli('stream', 'remove', name)
  return observed
}

function spoiling(spoil: Spoil): (worker: WorkerCalls, image: () => string) => WorkerCalls {
  let epochs = 0
  return (worker, image) => {
    const call = async <T>(method: string, argument: unknown): Promise<T> => {
      const target = method === 'apply' ? (argument as ApplyJob).images[0]!.path : ''
      const due = method === 'apply' && target === image() && ++epochs % 5 === 0
      const before = due ? readFileSync(target) : undefined
      const result = await worker.call<T>(method, argument)
      if (before) spoil(target, before)
      return result
    }
    return { call, close: () => worker.close() } as unknown as WorkerCalls
  }
}

/** Blocks that the epoch changed. */
function changed(image: string, before: Buffer): number[] {
  const after = readFileSync(image)
  const blocks: number[] = []
  for (let at = 0; at < after.length; at += blockBytes) {
    if (after.compare(before, at, at + blockBytes, at, at + blockBytes) !== 0) blocks.push(at)
  }
  return blocks
}

function half(blocks: number[]): number[] {
  return blocks.filter(() => random.chance(0.5))
}

function revert(image: string, before: Buffer, choose: (blocks: number[]) => number[]): void {
  for (const at of choose(changed(image, before))) put(image, before.subarray(at, at + blockBytes), at)
}

function misplace(image: string, before: Buffer): void {
  const [at] = changed(image, before)
  if (at === undefined) return
  const after = readFileSync(image)
  put(image, before.subarray(at, at + blockBytes), at)
  put(image, after.subarray(at, at + blockBytes), (at + 64 * blockBytes) % after.length)
}

function tear(image: string, before: Buffer): void {
  for (const at of changed(image, before)) put(image, before.subarray(at + 2048, at + blockBytes), at + 2048)
}

function put(image: string, bytes: Buffer, at: number): void {
  const fd = openSync(image, 'r+')
  writeSync(fd, bytes, 0, bytes.length, at)
  closeSync(fd)
}
