/** What a destination makes of epochs that say what its images hold. */
import { randomBytes } from 'node:crypto'
import { closeSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { volumeIndex } from '../../src/block/units.js'
import type { PartRecord } from '../../src/replication-file/part.js'
import { PART_VERSION } from '../../src/replication-file/part-header.js'
import { rangeDigest } from '../../src/replication-file/range-digest.js'
import { InboundRig, type MadeEpoch, volumeBytes } from './inbound-rig.js'

const salt = randomBytes(16)

function digestOf(content: Buffer, run: number, offset = 0): PartRecord {
  const place = { kind: 'digest', volume: volumeIndex(0), offset, lengthBytes: content.length } as const
  return { ...place, run, salt, digests: rangeDigest(salt, content) }
}

/** Epochs that each change the first block, and say what the image holds afterwards. */
function chain(rig: InboundRig, count: number, run: number, generation = 1): MadeEpoch[] {
  const content = Buffer.alloc(volumeBytes)
  const epochs: MadeEpoch[] = []
  for (let number = 1; number <= count; number++) {
    content.fill(number, 0, 4096)
    const previous = epochs.at(-1)?.tag ?? Buffer.alloc(16)
    epochs.push(rig.epoch(number, previous, number, { generation, records: [digestOf(content, run)] }))
  }
  return epochs
}

t.test('each epoch is compared with the image as it is at its end, however many arrive at once', async (t) => {
  const rig = new InboundRig(t)
  const epochs = chain(rig, 20, 1)
  for (const { name, bytes } of epochs.slice(0, 18)) rig.deliver(name, bytes)
  rig.start()
  await rig.applied(18)
  const nothing = { run: 1, comparedBytes: 18 * volumeBytes, differingBytes: 0, differing: [] }
  await rig.until(() => rig.acknowledgement()?.appliedEpoch === 18)
  t.match(rig.acknowledgement(), { reads: PART_VERSION, comparison: nothing })
  t.same(rig.told('IMAGE_DIFFERS'), [])
  await rig.stop()
  const image = openSync(join(rig.folder, 'images/v.img'), 'r+')
  writeSync(image, Buffer.of(1), 0, 1, 60_000)
  closeSync(image)
  rig.start()
  rig.deliver(epochs[18]!.name, epochs[18]!.bytes)
  await rig.applied(19)
  const where = { volume: 0, offset: 0, lengthBytes: volumeBytes }
  const found = { run: 1, comparedBytes: 19 * volumeBytes, differingBytes: volumeBytes, differing: [where] }
  await rig.until(() => rig.acknowledgement()?.appliedEpoch === 19)
  t.same(rig.acknowledgement()?.comparison, found, 'added to what was known before a restart')
  t.match(rig.told('IMAGE_DIFFERS'), [/65536 bytes differ from the source: v at byte 0, 65536 long/])
  t.equal(rig.image()[60_000], 1, 'what differs is left alone')
  rig.deliver(epochs[19]!.name, epochs[19]!.bytes)
  await rig.applied(20)
  t.match(rig.stream.position.comparison, { differing: [where], differingBytes: 2 * volumeBytes })
})

t.test('a new run, and a new generation, know nothing of what was found before', async (t) => {
  const rig = new InboundRig(t)
  const [one] = chain(rig, 1, 1)
  const wrong = Buffer.alloc(volumeBytes, 9)
  const two = rig.epoch(2, one!.tag, 2, { records: [digestOf(wrong, 2)] })
  const right = Buffer.alloc(volumeBytes)
  right.fill(3, 0, 4096)
  const three = rig.epoch(3, two.tag, 3, { records: [digestOf(right, 3), digestOf(wrong, 2)] })
  rig.start()
  for (const { name, bytes } of [one!, two]) rig.deliver(name, bytes)
  await rig.applied(2)
  t.match(rig.stream.position.comparison, { run: 2, comparedBytes: volumeBytes, differingBytes: volumeBytes })
  rig.deliver(three.name, three.bytes)
  await rig.applied(3)
  t.match(rig.stream.position.comparison, { run: 3, comparedBytes: volumeBytes, differing: [] })
  const next = rig.epoch(1, Buffer.alloc(16), 7, { generation: 2 })
  rig.deliver(next.name, next.bytes)
  await rig.until(() => rig.stream.position.generation === 2 && rig.stream.position.appliedEpoch === 1)
  t.equal(rig.stream.position.comparison, null)
})

t.test('digests beyond the end of a volume are refused before anything is written', async (t) => {
  const rig = new InboundRig(t)
  const [one] = chain(rig, 1, 1)
  const beyond = rig.epoch(2, one!.tag, 2, { records: [digestOf(Buffer.alloc(4096), 1, volumeBytes)] })
  rig.start()
  for (const { name, bytes } of [one!, beyond]) rig.deliver(name, bytes)
  await rig.until(() => rig.told('OUTSIDE_VOLUME').length > 0)
  t.equal(rig.image()[0], 1)
  t.match(rig.stream.position, { appliedEpoch: 1, comparison: { comparedBytes: volumeBytes } })
})
