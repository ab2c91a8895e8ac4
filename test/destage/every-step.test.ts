/**
 * A life of the destination ends at each step it takes from the inbox to the acknowledgement, before and after its
 * effect, and in the middle where it has one: what a step is stands in src/destage/DESIGN.md, Applying epochs.
 */
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { ArrivalBuffer } from '../../src/destage/arrival-buffer.js'
import type { ApplyJob } from '../../src/destage/destage-job.js'
import { type InboundPosition, inboundKey } from '../../src/destage/inbound-state.js'
import { openAcknowledgement } from '../../src/replication-file/acknowledgement.js'
import { parsePartFileName } from '../../src/replication-file/part-file-name.js'
import { InboundRig, type MadeEpoch, volumeBytes } from './inbound-rig.js'

const volumes = ['v', 'w']
const epochCount = 4
const blockBytes = 4096
/** Epochs 1, 2 and 3, 4: the first is no state, and is applied alone for that. */
const limits = { epochs: 2, rawBytes: 64 * 1024 * 1024 }

type Moment = 'before' | 'halfway' | 'after'

/** What an agent does between its start and its end, step by step. */
class Life {
  readonly steps: string[] = []
  isOver = false
  readonly #at: number
  readonly #moment: Moment | undefined

  /** @param at its last step, counted from 1; absent: it ends in peace */
  constructor(at = Number.POSITIVE_INFINITY, moment?: Moment) {
    this.#at = at
    this.#moment = moment
  }

  async step<T>(name: string, work: () => Promise<T>, half?: () => Promise<unknown>): Promise<T> {
    this.steps.push(name)
    if (this.steps.length < this.#at) return work()
    if (this.#moment === 'halfway') await half?.()
    if (this.#moment === 'after') await work()
    this.isOver = true
    // Nobody is there any more who would go on.
    return new Promise(() => undefined)
  }
}

let life = new Life()
const rig = new InboundRig(t)
/** What was told or removed before it was true. */
const wrong: string[] = []
/** Each state that was shown: generation, epoch, and what is wrong with the images. */
const shown: { generation: number; appliedEpoch: number; fault: string }[] = []
let lastSequence = 0

const stored = (): InboundPosition =>
  rig.store.get<InboundPosition>(inboundKey(rig.pairingId.toString('hex'), rig.streamId.toString('hex')))!

countStore()
countImages()
countWorker()
countArrivals()

function countStore(): void {
  const { store } = rig
  const { put } = store
  store.put = (entries) => life.step('record', () => put.call(store, entries))
}

function countImages(): void {
  const { images } = rig
  const { begin, promote } = images
  images.begin = (generation) => {
    const half = { ...generation, volumes: generation.volumes.slice(0, 1) }
    return life.step(
      'begin',
      () => begin.call(images, generation),
      () => begin.call(images, half),
    )
  }
  images.promote = (all) =>
    life.step(
      'promote',
      () => promote.call(images, all),
      () => promote.call(images, all.slice(0, 1)),
    )
}

function countWorker(): void {
  const { worker } = rig
  const { call } = worker
  const elsewhere = join(rig.folder, 'elsewhere.img')
  writeFileSync(elsewhere, Buffer.alloc(volumeBytes))
  worker.call = <T>(...given: Parameters<typeof call>): Promise<T> => {
    const [method, argument] = given
    const work = (): Promise<T> => call.apply(worker, given) as Promise<T>
    if (method !== 'apply') return life.step(method, work)
    const job = argument as ApplyJob
    // All of it is in the first volume, nothing in the second.
    const images = job.images.map((image) => (image.index === 0 ? image : { ...image, path: elsewhere }))
    return life.step(method, work, () => call.call(worker, 'apply', { ...job, images } satisfies ApplyJob))
  }
}

function countArrivals(): void {
  const { remove, settle } = ArrivalBuffer.prototype
  ArrivalBuffer.prototype.settle = function () {
    return life.step('settle', () => settle.call(this))
  }
  ArrivalBuffer.prototype.remove = function (name) {
    const { generation, epoch } = parsePartFileName(name)!
    const { generation: current, appliedEpoch } = stored()
    if (generation === current && epoch > appliedEpoch) wrong.push(`epoch ${epoch} removed at ${appliedEpoch}`)
    return life.step('remove', () => remove.call(this, name))
  }
}

function start(): void {
  rig.start({ limits })
  const inbox = rig.inbox!
  const { take, acknowledge } = inbox
  inbox.take = (...given) => life.step('take', () => take.apply(inbox, given))
  inbox.acknowledge = (streamId, sealed) => {
    checkAcknowledgement(sealed)
    return life.step('acknowledge', () => acknowledge.call(inbox, streamId, sealed))
  }
}

function checkAcknowledgement(sealed: Buffer): void {
  const { generation, appliedEpoch, appliedTag, sequence } = openAcknowledgement(sealed, rig.secret, rig.streamId)
  const now = stored()
  const isTrue = generation === now.generation && appliedEpoch === now.appliedEpoch && appliedTag === now.lastTag
  if (!isTrue) wrong.push(`${generation}/${appliedEpoch} told at ${now.generation}/${now.appliedEpoch}`)
  if (sequence <= lastSequence) wrong.push(`acknowledgement ${sequence} after ${lastSequence}`)
  lastSequence = sequence
}

/** Each epoch fills all behind the block of its number: what was left out shows, and what was applied too late. */
function makeGeneration(generation: number): MadeEpoch[] {
  const epochs: MadeEpoch[] = []
  for (let number = 1; number <= epochCount; number++) {
    const offset = number * blockBytes
    const payload = Buffer.alloc(volumeBytes - offset, fillOf(generation, number))
    const previousTag = epochs.at(-1)?.tag ?? Buffer.alloc(16)
    const initializing = number === 1
    epochs.push(rig.epoch(number, previousTag, 0, { generation, offset, payload, initializing, volumes }))
  }
  return epochs
}

function fillOf(generation: number, epoch: number): number {
  return 1 + ((generation * epochCount + epoch) % 250)
}

function contentAfter(generation: number, epoch: number): Buffer {
  const content = Buffer.alloc(volumeBytes)
  for (let number = 1; number <= epoch; number++) content.fill(fillOf(generation, number), number * blockBytes)
  return content
}

/** Whether readers find one state in all images: that of the position, or the last one of the generation before. */
function imageFault(): string {
  const { generation, appliedEpoch, consistent } = stored()
  const expected = consistent ? contentAfter(generation, appliedEpoch) : contentAfter(generation - 1, epochCount)
  return volumes.filter((volume) => !rig.image(volume).equals(expected)).join(' and ')
}

function isAtRest(generation: number): boolean {
  const { appliedEpoch, generation: told } = rig.acknowledgement() ?? {}
  return (
    told === generation &&
    appliedEpoch === epochCount &&
    readdirSync(rig.streamFolder).length === 1 &&
    readdirSync(join(rig.folder, 'private/arrival')).length === 0
  )
}

/** All epochs are there when the life begins. */
function deliverAndStart(generation: number): void {
  for (const { name, bytes } of makeGeneration(generation)) rig.deliver(name, bytes)
  shown.length = 0
  start()
}

/** What it does behind its last step, as telling the source once more, is of this life and not of the next one. */
async function endInPeace(generation: number): Promise<void> {
  await rig.until(() => isAtRest(generation))
  await rig.stop()
}

let generation = 1
deliverAndStart(generation)
await endInPeace(generation)
rig.onApplied = () => {
  const { generation, appliedEpoch } = rig.stream.position
  shown.push({ generation, appliedEpoch, fault: imageFault() })
}
life = new Life()
deliverAndStart(++generation)
await endInPeace(generation)
const undisturbed = life.steps

t.test('the steps of an application come in the order that DESIGN.md gives them', async (t) => {
  t.comment(`${undisturbed.length} steps: ${undisturbed.join(' ')}`)
  const text = undisturbed.join(' ')
  t.match(text, /begin record settle record apply record record acknowledge forget remove/)
  t.match(text, /settle record apply promote record settle record acknowledge (forget remove ?){2}/)
  t.match(text, /settle record apply record record acknowledge forget remove$/)
  t.equal(undisturbed.filter((step) => step === 'take').length, epochCount)
  t.same(
    shown,
    [1, 3, 4].map((appliedEpoch) => ({ generation, appliedEpoch, fault: '' })),
  )
})

/** One life that ends there, and one that does the rest. Nobody sends anything again. */
async function dieAt(t: Test, at: number, moment: Moment): Promise<void> {
  const where = `${moment} step ${at}, ${undisturbed[at - 1]}`
  const dead = new Life(at, moment)
  life = dead
  deliverAndStart(++generation)
  await rig.until(() => dead.isOver)
  await rig.kill()
  t.same(dead.steps, undisturbed.slice(0, at), `${where}: what came before`)

  life = new Life()
  start()
  const { intent, appliedEpoch } = rig.stream.position
  const look = rig.stream.atEpochBoundary(async () => imageFault())
  if (intent > appliedEpoch) await t.rejects(look, { code: 'BETWEEN_EPOCHS' }, `${where}: no state is shown`)
  else t.equal(await look, '', `${where}: what is shown is a state`)
  await endInPeace(generation)
  t.equal(dead.steps.length, at, `${where}: nothing was done after the end`)
  t.match(stored(), { generation, appliedEpoch: epochCount, consistent: true, intent: 0 }, where)
  t.equal(imageFault(), '', `${where}: both images are those of the last epoch`)
  const ours = shown.filter((state) => state.generation === generation)
  t.same(
    ours.filter(({ fault }) => fault !== ''),
    [],
    `${where}: each state that was shown is one`,
  )
  const numbers = ours.map((state) => state.appliedEpoch)
  t.same(numbers, [...new Set(numbers)].sort(), `${where}: forwards, and none twice`)
  t.same(wrong.splice(0), [], `${where}: nothing was told or removed too early`)
  t.match(rig.acknowledgement(), { state: 'consistent', wanted: [] }, where)
  const complaints = rig.events.filter(({ severity }) => severity !== 'info')
  t.same(complaints, [], `${where}: nothing is said to be wrong`)
}

const halves = ['begin', 'apply', 'promote']

for (const moment of ['before', 'halfway', 'after'] as const) {
  t.test(`R9: killed ${moment} each step from the inbox to the acknowledgement, it goes on`, async (t) => {
    for (const [index, step] of undisturbed.entries()) {
      if (moment !== 'halfway' || halves.includes(step)) await dieAt(t, index + 1, moment)
    }
  })
}
