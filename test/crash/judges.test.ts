/** The judges are judged: a destination that does wrong in a known way is found out by what the other tests here look at. */
import assert from 'node:assert/strict'
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { sectorBytes } from '../../src/block/units.js'
import type { WorkerCalls } from '../../src/block/worker-calls.js'
import type { ApplyJob, ApplyResult, VerifyJob } from '../../src/destage/destage-job.js'
import { decodePart } from '../../src/replication-file/decode-part.js'
import { PART_HEADER_BYTES } from '../../src/replication-file/part-header.js'
import { newPairing } from '../../src/transport/pairing.js'
import { formatPairing } from '../../src/transport/pairing-string.js'
import { Agent, flush } from '../fixtures/agent.js'
import { scratchFolder } from '../fixtures/paths.js'
import { startStamp } from '../fixtures/stamp.js'
import { newSeed, Random } from '../pool/model/random.js'
import { ObservedStream } from './observed-stream.js'

const blockBytes = 4096
const judgedEpochs = 12
/** So few that an epoch overwrites some of the one before. */
const blocks = 512
const seed = newSeed()
t.comment(`seed ${seed} (SEED=${seed} repeats it)`)
const random = new Random(seed)

const folder = scratchFolder(t, 'judges')
const between = join(folder, 'between')
mkdirSync(between)
const source = await Agent.start(t, folder, 'source')
const pairing = newPairing({ kind: 'folder', directory: between })
await source.cli('destination', 'add', 'far', '--pairing', formatPairing(pairing))

/** An epoch that was applied, and what the image held before. */
interface Applied {
  readonly image: string
  readonly before: Buffer
  readonly job: ApplyJob
  readonly worker: WorkerCalls
}

/** What a destination does wrong: when an epoch is applied, or when the one behind it is. */
interface Spoil {
  readonly at?: (applied: Applied) => Promise<void> | void
  /** @param brought sectors of the epoch, by their offsets */
  readonly behind?: (image: string, brought: ReadonlyMap<number, Buffer>) => void
}

const faults: [name: string, title: string, spoil: Spoil | undefined][] = [
  ['judge-honest', 'a destination that does right is found to do so', undefined],
  [
    'judge-drop',
    'one write in an epoch left out',
    { at: (applied) => revert(applied, (blocks) => blocks.slice(0, 1)) },
  ],
  ['judge-part', 'an epoch applied in part', { at: (applied) => revert(applied, half) }],
  ['judge-move', 'a write that went to the wrong place', { at: misplace }],
  ['judge-tear', 'a write that was torn', { at: tear }],
  ['judge-order', 'an epoch applied behind the next one', { at: (applied) => revert(applied), behind: putAll }],
  ['judge-twice', 'an epoch applied once more behind the next one', { behind: putAll }],
  ['judge-seal', 'a byte of a file changed, and its broken seal overlooked', { at: overlookSeal }],
]

for (const [name, title, spoil] of faults) {
  t.test(title, async (t) => {
    const { observed, spoiled } = await run(t, name, spoil)
    const wrong = observed.verdicts.filter(({ verdict }) => !verdict.ok)
    t.comment(`${wrong.length} of ${observed.verdicts.length} epochs are found to be wrong`)
    t.ok(observed.verdicts.length >= 5)
    if (!spoil) {
      t.same(wrong, [])
      return
    }
    t.ok(wrong.length > 0, 'the judge has seen it')
    t.ok(wrong.every(({ epoch }) => epoch >= spoiled[0]!))
    t.comment(`spoiled: ${spoiled.join(', ')}; first seen at ${wrong[0]?.epoch}: ${wrong[0]?.verdict.first[0]}`)
  })
}

/** Some epochs of load, of which the destination spoils each fifth. */
async function run(
  t: Test,
  name: string,
  spoil: Spoil | undefined,
): Promise<{ observed: ObservedStream; spoiled: readonly number[] }> {
  const own = join(folder, name)
  mkdirSync(own)
  const { device } = await source.volume(own, name, '8MiB')
  const log = join(own, 'stamps.log')
  const create = ['stream', 'create', name, '--volume', name, '--destination', 'far', '--epoch', '100ms']
  const { id } = await source.cli<{ id: string }>(...create)
  const options = { folder: own, pairing, arrivesIn: between, streamId: id, log }
  const spoiled: number[] = []
  const observed = new ObservedStream(t, spoil ? { ...options, spoil: spoiling(spoil, spoiled) } : options)
  const writer = startStamp(device, log, { threads: 2, sizes: '4096-32768', rate: 200, seconds: 120, blocks, seed })
  await source.cli('stream', 'initialize', name)
  await source.until(
    async () => observed.verdicts.length,
    (count) => count >= judgedEpochs,
    60_000,
  )
  t.equal((await writer.stop()).errno, 0)
  await flush(source, name)
  await source.cli('stream', 'remove', name)
  return { observed, spoiled }
}

/** @param spoiled gets the epochs after which the image is wrong first, if the next one does not overwrite that */
function spoiling(spoil: Spoil, spoiled: number[]): (worker: WorkerCalls, image: () => string) => WorkerCalls {
  let epochs = 0
  let brought: Map<number, Buffer> | undefined
  return (worker, image) => {
    const apply = async (job: ApplyJob): Promise<ApplyResult> => {
      const target = job.images[0]!.path
      if (target !== image()) return worker.call<ApplyResult>('apply', job)
      const before = readFileSync(target)
      const result = await worker.call<ApplyResult>('apply', job)
      if (brought) {
        spoil.behind?.(target, brought)
        brought = undefined
      }
      if (++epochs % 5 !== 0) return result
      spoiled.push(job.firstEpoch)
      if (spoil.behind) brought = changed(target, before, sectorBytes)
      await spoil.at?.({ image: target, before, job, worker })
      return result
    }
    const call = (method: string, argument: unknown) =>
      method === 'apply' ? apply(argument as ApplyJob) : worker.call(method, argument)
    return { call, close: () => worker.close() } as unknown as WorkerCalls
  }
}

/** What the epoch changed, by its offset. */
function changed(image: string, before: Buffer, unitBytes = blockBytes): Map<number, Buffer> {
  const after = readFileSync(image)
  const found = new Map<number, Buffer>()
  for (let at = 0; at < after.length; at += unitBytes) {
    if (after.compare(before, at, at + unitBytes, at, at + unitBytes) !== 0)
      found.set(at, after.subarray(at, at + unitBytes))
  }
  return found
}

function half(blocks: number[]): number[] {
  return blocks.filter(() => random.chance(0.5))
}

function revert({ image, before }: Applied, choose = (blocks: number[]): number[] => blocks): void {
  for (const at of choose([...changed(image, before).keys()])) put(image, before.subarray(at, at + blockBytes), at)
}

function misplace({ image, before }: Applied): void {
  const [first] = changed(image, before)
  if (!first) return
  const [at, bytes] = first
  put(image, before.subarray(at, at + blockBytes), at)
  put(image, bytes, (at + 64 * blockBytes) % before.length)
}

function tear({ image, before }: Applied): void {
  for (const at of changed(image, before).keys()) put(image, before.subarray(at + 2048, at + blockBytes), at + 2048)
}

function putAll(image: string, brought: ReadonlyMap<number, Buffer>): void {
  for (const [at, bytes] of brought) put(image, bytes, at)
}

/** The worker refuses a file with another byte in its body; this is what one that does not would have written. */
async function overlookSeal({ image, job, worker }: Applied): Promise<void> {
  const { secret, pairingId, streamId } = job
  const file = job.epochs.at(-1)!.at(-1)!
  const bytes = readFileSync(file)
  const { records } = decodePart(bytes, Buffer.from(secret))
  const write = records.find((record) => record.kind === 'write')
  assert(write?.kind === 'write', 'a file without a write')
  const forged = join(folder, 'forged')
  bytes[PART_HEADER_BYTES]! ^= 1
  writeFileSync(forged, bytes)
  const verify: VerifyJob = { file: forged, secret, pairingId, streamId }
  await assert.rejects(worker.call('verify', verify), { code: 'SEAL_BROKEN' })
  const payload = Buffer.from(write.payload)
  payload[random.below(payload.length)]! ^= 1 << random.below(8)
  put(image, payload, write.offset)
}

function put(image: string, bytes: Buffer, at: number): void {
  const fd = openSync(image, 'r+')
  writeSync(fd, bytes, 0, bytes.length, at)
  closeSync(fd)
}
