/**
 * What may arrive that should not: by a bad network, a bad disk, a bad server or somebody who can write to the inbox. None
 * of it is applied, each is named once, and the stream goes on as soon as the right file is there.
 */
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import t, { type Test } from 'tap'
import { MiB } from '../../src/block/units.js'
import { writeAcknowledgement } from '../../src/destage/acknowledgement-writer.js'
import { Inbox } from '../../src/destage/inbox.js'
import { sealAcknowledgement } from '../../src/replication-file/acknowledgement.js'
import { PART_VERSION } from '../../src/replication-file/part-header.js'
import { newSeed, Random } from '../pool/model/random.js'
import { InboundRig, type MadeEpoch } from './inbound-rig.js'

const seed = newSeed()
t.comment(`seed ${seed} (SEED=${seed} repeats it)`)

t.test('R3: fifty files reversed, and fifty in any order, are applied in order, each once', async (t) => {
  const random = new Random(seed)
  const orders: [string, (epochs: MadeEpoch[]) => MadeEpoch[]][] = [
    ['reversed', (epochs) => epochs.reverse()],
    ['in any order', (epochs) => shuffled(random, epochs)],
  ]
  for (const [title, order] of orders) {
    const rig = new InboundRig(t)
    const applied: number[] = []
    rig.onApplied = () => {
      const { appliedEpoch } = rig.stream.position
      applied.push(appliedEpoch)
      if (rig.image()[0] !== appliedEpoch) t.fail(`${title}: epoch ${appliedEpoch} shows ${rig.image()[0]}`)
    }
    rig.start({ limits: { epochs: 1, rawBytes: 1 } })
    for (const { name, bytes } of order(rig.chain(50))) {
      rig.deliver(name, bytes)
      if (random.chance(0.2)) await new Promise((resolve) => setTimeout(resolve, random.below(30)))
    }
    await rig.applied(50)
    await rig.until(() => applied.length >= 50)
    t.same(
      applied,
      Array.from({ length: 50 }, (_, index) => index + 1),
      title,
    )
    t.same(rig.told('FILE_REFUSED'), [])
    await rig.stop()
  }
})

t.test('R4: a second delivery is applied once, before and after the first, and under another name', async (t) => {
  const rig = new InboundRig(t)
  const [one, two, three, four] = rig.chain(4) as [MadeEpoch, MadeEpoch, MadeEpoch, MadeEpoch]
  const applied: number[] = []
  rig.onApplied = () => void applied.push(rig.stream.position.appliedEpoch)
  rig.start({ limits: { epochs: 1, rawBytes: 1 } })
  rig.deliver(two.name, two.bytes)
  await rig.until(() => rig.stream.waitingFiles === 1)
  rig.deliver(two.name, two.bytes)
  rig.deliver(four.name, two.bytes)
  rig.deliver('a copy of it', two.bytes)
  rig.deliver(one.name, one.bytes)
  await rig.applied(2)
  for (const name of [one.name, two.name, three.name]) rig.deliver(name, two.bytes)
  await rig.until(() => readdirSync(rig.streamFolder).length === 2)
  for (const { name, bytes } of [three, four]) rig.deliver(name, bytes)
  await rig.applied(4)
  await rig.until(() => applied.length >= 4)
  t.same(applied, [1, 2, 3, 4])
  t.equal(rig.image()[0], 4)
  t.same(readdirSync(rig.streamFolder).sort(), ['a copy of it', 'acknowledgement'], 'duplicates are gone')
  t.same(rig.told('FILE_REFUSED'), [])
  t.equal(rig.told('FOREIGN_FILE').length, 1)
})

t.test('R5: a file cut at every length is refused, named once, and fetched again', async (t) => {
  const rig = new InboundRig(t)
  const epochs = rig.chain(rig.chain(1)[0]!.bytes.length)
  const cut = epochs.map(({ bytes }, length) => bytes.subarray(0, Math.min(length, bytes.length - 1)))
  await refusedAndFetchedAgain(t, rig, epochs, cut)
})

t.test('R6: a bit flipped in any byte is refused, named once, and the file is fetched again', async (t) => {
  const random = new Random(seed + 1)
  const rig = new InboundRig(t)
  const epochs = rig.chain(rig.chain(1)[0]!.bytes.length)
  // The version says that a newer agent wrote it: another test.
  const version = [4, 5]
  const flipped = epochs.map(({ bytes }, index) => {
    const copy = Buffer.from(bytes)
    const at = version.includes(index) ? 6 : Math.min(index, copy.length - 1)
    copy[at]! ^= 1 << random.below(8)
    return copy
  })
  await refusedAndFetchedAgain(t, rig, epochs, flipped)
})

/** All damaged files are there before the first right one. */
async function refusedAndFetchedAgain(t: Test, rig: InboundRig, epochs: MadeEpoch[], damaged: Buffer[]) {
  const applied = new Set<number>()
  rig.onApplied = () => void applied.add(rig.stream.position.appliedEpoch)
  for (const [index, { name }] of epochs.entries()) rig.deliver(name, damaged[index]!)
  rig.start()
  const sent = await rig.sendAgainUntil(epochs.length, epochs)
  t.equal(sent, epochs.length, 'each is asked for and sent once')
  t.equal(rig.image()[0], epochs.length % 256)
  const told = rig.told('FILE_REFUSED')
  t.equal(told.length, epochs.length)
  t.ok(
    epochs.every(({ name }) => told.filter((text) => text.includes(name)).length === 1),
    'each is named once',
  )
  await rig.until(() => rig.acknowledgement()?.state === 'consistent')
  t.ok(readdirSync(join(rig.folder, 'private/refused')).length <= 20, 'and a few are kept for a look')
  t.comment(`${epochs.length} damaged files`)
}

t.test('R7: an old file and one of another stream, pair, generation or key is never applied', async (t) => {
  const rig = new InboundRig(t)
  const [old] = rig.chain(1) as [MadeEpoch]
  const [one, two, three] = rig.chain(3, 2) as [MadeEpoch, MadeEpoch, MadeEpoch]
  rig.start()
  rig.deliver(one.name, one.bytes)
  await rig.applied(1)
  const wrong: [string, MadeEpoch, string?][] = [
    ['another stream', rig.epoch(2, one.tag, 91, { generation: 2, header: { streamId: Buffer.alloc(16, 1) } })],
    ['another pair of sites', rig.epoch(2, one.tag, 92, { generation: 2, header: { pairingId: Buffer.alloc(16, 1) } })],
    ['another key', rig.epoch(2, one.tag, 93, { generation: 2, secret: Buffer.alloc(32, 1) })],
  ]
  for (const [title, forged] of wrong) {
    const before = rig.told('FILE_REFUSED').length
    rig.deliver(two.name, forged.bytes)
    await rig.until(() => rig.told('FILE_REFUSED').length > before)
    t.equal(rig.image()[0], 1, title)
  }
  t.equal(rig.told('FILE_REFUSED').length, wrong.length)
  for (const name of [old.name, two.name, three.name]) rig.deliver(name, old.bytes)
  rig.deliver(two.name, one.bytes)
  await rig.until(() => readdirSync(rig.streamFolder).length === 1)
  t.match(rig.stream.position, { generation: 2, appliedEpoch: 1 })
  t.equal(rig.image()[0], 1)
  for (const { name, bytes } of [two, three]) rig.deliver(name, bytes)
  await rig.applied(3)
  t.equal(rig.image()[0], 3)
})

t.test('R8: files behind a missing one wait, it is asked for, and nothing is told as applied before', async (t) => {
  const rig = new InboundRig(t)
  const epochs = rig.chain(40)
  const lost = new Set([2, 3, 17, 40])
  rig.start()
  for (const [index, { name, bytes }] of epochs.entries()) if (!lost.has(index + 1)) rig.deliver(name, bytes)
  await rig.until(() => (rig.acknowledgement()?.wanted.length ?? 0) > 0)
  t.match(rig.acknowledgement(), { appliedEpoch: 1, state: 'stalled' })
  t.same(
    rig.acknowledgement()!.wanted.map(({ epoch }) => epoch),
    [2, 3, 17],
    'of the last one nobody here can know',
  )
  t.equal(rig.image()[0], 1)
  t.equal(await rig.sendAgainUntil(39, epochs), 3)
  rig.deliver(epochs[39]!.name, epochs[39]!.bytes)
  await rig.applied(40)
  t.equal(rig.image()[0], 40)
})

t.test('R8: a gap is told to operators after a minute, once, and when it is closed', async (t) => {
  const rig = new InboundRig(t)
  const epochs = rig.chain(7)
  const clock = { nowMs: 0 }
  const deliver = (numbers: number[]): void => {
    for (const { name, bytes } of numbers.map((number) => epochs[number - 1]!)) rig.deliver(name, bytes)
  }
  const told = (): string[] => rig.events.map(({ code }) => code).filter((code) => code.startsWith('SEQUENCE_'))
  /** Some turns, so that whatever is to be told would be. */
  const turns = () => new Promise((resolve) => setTimeout(resolve, 1500))
  rig.start({ now: () => clock.nowMs })
  let before: string[] = []
  for (const [missing, behind] of [
    [2, [3, 4]],
    [5, [6, 7]],
  ] as const) {
    deliver([missing - 1, ...behind])
    await rig.applied(missing - 1)
    await rig.until(() => {
      clock.nowMs += 100
      return rig.stream.status().state === 'stalled'
    })
    const sinceMs = clock.nowMs - 2_100
    clock.nowMs = sinceMs + 59_900
    await turns()
    t.same(told(), before, 'files may still be on their way')
    clock.nowMs = sinceMs + 60_000
    await rig.until(() => told().length > before.length)
    t.match(rig.events.at(-1), { severity: 'warning', code: 'SEQUENCE_GAP', object: 'st' })
    t.match(rig.events.at(-1)!.text, new RegExp(`^epoch ${missing} part 1 of generation 1 .*stream initialize$`))
    clock.nowMs += 3_600_000
    await turns()
    t.same(told(), [...before, 'SEQUENCE_GAP'], 'once')
    await rig.until(() => rig.acknowledgement()?.wanted[0]?.epoch === missing)
    const { appliedEpoch, receivedEpoch } = rig.acknowledgement()!
    t.same(
      [appliedEpoch, receivedEpoch],
      [missing - 1, missing - 1],
      'the source is told nothing that lets it drop a file',
    )
    deliver([missing])
    await rig.applied(behind[1])
    before = [...before, 'SEQUENCE_GAP', 'SEQUENCE_GAP_CLOSED']
    await rig.until(() => told().length === before.length)
    t.same(told(), before)
  }
})

t.test('R28: names that a server folded, turned or repeated in another case are left alone, told once', async (t) => {
  const rig = new InboundRig(t)
  const epochs = rig.chain(2)
  rig.start()
  for (const { name, bytes } of epochs) rig.deliver(name.toUpperCase(), bytes)
  rig.deliver(`${epochs[0]!.name} `, epochs[0]!.bytes)
  await rig.until(() => rig.told('FOREIGN_FILE').length === 3)
  t.equal(rig.stream.position.appliedEpoch, 0)
  for (const { name, bytes } of epochs) rig.deliver(name, bytes)
  await rig.applied(2)
  t.equal(rig.told('FOREIGN_FILE').length, 3)
})

t.test('R28: a file that still grows under its name is refused, and applied when it is whole', async (t) => {
  const rig = new InboundRig(t)
  const epochs = rig.chain(1)
  const [{ name, bytes }] = epochs as [MadeEpoch]
  const fd = openSync(join(rig.streamFolder, name), 'w')
  t.teardown(() => closeSync(fd))
  writeSync(fd, bytes, 0, 300)
  rig.start()
  await rig.until(() => rig.told('FILE_REFUSED').length === 1)
  writeSync(fd, bytes, 300)
  t.equal(await rig.sendAgainUntil(1, epochs), 1)
  t.equal(rig.image()[0], 1)
})

t.test('R29: two sources that are the same machine twice do not mix', async (t) => {
  const rig = new InboundRig(t)
  const epochs = rig.chain(3)
  const [one, two] = epochs as [MadeEpoch, MadeEpoch, MadeEpoch]
  const other = rig.epoch(1, Buffer.alloc(16), 101)
  const others = [other, rig.epoch(2, other.tag, 102), rig.epoch(3, rig.epoch(2, other.tag, 102).tag, 103)]
  rig.start()
  rig.deliver(one.name, one.bytes)
  await rig.applied(1)
  for (const { name, bytes } of others) rig.deliver(name, bytes)
  await rig.until(() => rig.told('SEQUENCE_FORK').length === 1)
  t.match(rig.stream.status(), { state: 'failed' })
  t.equal(rig.image()[0], 1, 'nothing of the other one is there')
  rig.deliver(two.name, two.bytes)
  await rig.applied(2)
  t.equal(rig.image()[0], 2, 'the one that goes on is followed')
})

t.test('R32: with a wrong key nothing is applied and all is told; with the right one it goes on', async (t) => {
  const rig = new InboundRig(t)
  const epochs = rig.chain(40)
  rig.start({ secret: Buffer.alloc(32, 7) })
  for (const { name, bytes } of epochs) rig.deliver(name, bytes)
  await rig.until(() => rig.told('FILE_REFUSED').length === epochs.length)
  t.ok(
    rig.told('FILE_REFUSED').every((text) => text.includes('WRONG_KEY')),
    'and it says why',
  )
  const kept = readdirSync(join(rig.folder, 'private/refused')).map((name) => name.replace(/^\d+-/, ''))
  const last = epochs.slice(-20).map(({ name }) => name)
  t.same(kept.sort(), last, 'the last twenty are kept for a look')
  t.equal(rig.stream.position.generation, 0)
  await rig.stop()
  rig.start()
  await rig.sourceOf(t, epochs)
  await rig.applied(40)
  t.equal(rig.image()[0], 40, 'its source has sent all of them again')
  t.equal(rig.told('FILE_REFUSED').length, epochs.length)
})

t.test('a file said to be of a newer agent stops nothing when it is forged, also after a restart', async (t) => {
  const rig = new InboundRig(t)
  const epochs = rig.chain(3)
  const [one, two, three] = epochs as [MadeEpoch, MadeEpoch, MadeEpoch]
  const newer = Buffer.from(two.bytes)
  newer.writeUInt16LE(PART_VERSION + 1, 4)
  rig.start()
  rig.deliver(one.name, one.bytes)
  rig.deliver(two.name, newer)
  await rig.until(() => rig.told('FORMAT_TOO_NEW').length === 1)
  await rig.until(() => rig.stream.status().reason.includes('newer agent'))
  t.match(rig.stream.status(), { state: 'stalled' })
  await rig.stop()
  rig.start()
  await rig.until(() => rig.stream.status().reason.includes('newer agent'))
  rig.deliver(three.name, three.bytes)
  t.equal(await rig.sendAgainUntil(3, epochs), 1, 'the one in between is asked for')
  t.equal(rig.image()[0], 3)
})

t.test('names that claim another generation, or epochs far away, do not keep the source from hearing', async (t) => {
  const rig = new InboundRig(t)
  const epochs = rig.chain(300)
  const claim = (generation: string, epoch: number) =>
    `g${generation}-e${String(epoch).padStart(16, '0')}-p0000001-of-0000001.tmr`
  rig.start()
  rig.deliver(epochs[0]!.name, epochs[0]!.bytes)
  await rig.applied(1)
  rig.deliver(claim('99999999', 1), Buffer.from('x'))
  for (let epoch = 3000; epoch < 3300; epoch++) rig.deliver(claim('00000001', epoch), Buffer.from('x'))
  for (const far of [2 ** 32 + 2, Number.MAX_SAFE_INTEGER]) rig.deliver(claim('00000001', far), Buffer.from('x'))
  await rig.until(() => rig.told('FILE_REFUSED').length === 301, 30_000)
  rig.deliver(epochs[1]!.name, epochs[1]!.bytes.subarray(1))
  t.equal(await rig.sendAgainUntil(2, epochs), 1, 'what is really damaged is still asked for')
  await rig.until(() => rig.acknowledgement()?.appliedEpoch === 2)
  t.equal(rig.acknowledgement()!.generation, 1)
})

t.test('a file that changes between its check and its use is not applied, and fetched again', async (t) => {
  const rig = new InboundRig(t)
  const epochs = rig.chain(3)
  const [one, two, three] = epochs as [MadeEpoch, MadeEpoch, MadeEpoch]
  const changes: [string, Buffer][] = [
    ['a bit', Buffer.from(two.bytes).fill(0xff, 300, 301)],
    ['to an old whole one', one.bytes],
    ['to nothing', Buffer.alloc(0)],
  ]
  rig.start()
  rig.deliver(one.name, one.bytes)
  await rig.applied(1)
  rig.deliver(three.name, three.bytes)
  const held = join(rig.folder, 'private/arrival', two.name)
  for (const [title, change] of changes) {
    // While the next epoch is kept back it is held; and the worker has to read it again.
    const image = join(rig.folder, 'images/v.img')
    renameSync(image, `${image}.away`)
    rig.deliver(two.name, two.bytes)
    // Taken in: the first one may still be among those that wait when it is not.
    await rig.until(() => existsSync(held) && rig.stream.waitingFiles === 2)
    writeFileSync(held, change)
    await rig.worker.call('forget', held)
    renameSync(`${image}.away`, image)
    // Looked at again, and out of the arrival buffer: what is wanted may still be said of the last time.
    await rig.until(() => readdirSync(dirname(held)).join() === three.name)
    await rig.until(() => rig.stream.waitingFiles === 1 && rig.acknowledgement()?.wanted[0]?.epoch === 2)
    t.equal(rig.image()[0], 1, title)
    t.equal(rig.stream.position.appliedEpoch, 1, title)
  }
  t.ok((await rig.sendAgainUntil(3, epochs)) >= 1)
  t.equal(rig.image()[0], 3)
})

t.test('a folder with the name of the next part is put out of its way', async (t) => {
  const rig = new InboundRig(t)
  const [one, two] = rig.chain(2) as [MadeEpoch, MadeEpoch]
  rig.start()
  rig.deliver(one.name, one.bytes)
  await rig.applied(1)
  mkdirSync(join(rig.streamFolder, two.name, 'inside'), { recursive: true })
  await rig.until(() => rig.told('FOREIGN_FILE').length === 1)
  rig.deliver(two.name, two.bytes)
  await rig.applied(2)
  t.equal(rig.told('FOREIGN_FILE').length, 1)
})

t.test('a folder named as the acknowledgement keeps the source from hearing no longer than a moment', async (t) => {
  const rig = new InboundRig(t)
  const [one, two] = rig.chain(2) as [MadeEpoch, MadeEpoch]
  rig.start()
  rig.deliver(one.name, one.bytes)
  await rig.until(() => rig.acknowledgement()?.appliedEpoch === 1)
  rmSync(join(rig.streamFolder, 'acknowledgement'))
  mkdirSync(join(rig.streamFolder, 'acknowledgement'))
  rig.deliver(two.name, two.bytes)
  await rig.until(() => rig.acknowledgement()?.appliedEpoch === 2)
  t.equal(rig.image()[0], 2)
})

t.test('a link in the place of the stream’s folder is not followed, in either direction', async (t) => {
  const rig = new InboundRig(t)
  const [one, two] = rig.chain(2) as [MadeEpoch, MadeEpoch]
  rig.start()
  rig.deliver(one.name, one.bytes)
  await rig.until(() => rig.acknowledgement()?.appliedEpoch === 1)
  const elsewhere = join(rig.folder, 'elsewhere')
  renameSync(rig.streamFolder, elsewhere)
  symlinkSync(elsewhere, rig.streamFolder)
  rig.deliver(two.name, two.bytes)
  await new Promise((resolve) => setTimeout(resolve, 1500))
  t.equal(rig.stream.position.appliedEpoch, 1, 'nothing is read through it')
  t.ok(lstatSync(join(elsewhere, two.name)).isFile())
  rmSync(rig.streamFolder)
  renameSync(elsewhere, rig.streamFolder)
  await rig.applied(2)
  await rig.until(() => rig.acknowledgement()?.appliedEpoch === 2)
})

t.test('a link that takes the place of the folder between a look and what follows leads nowhere', async (t) => {
  const rig = new InboundRig(t)
  const [one, two] = rig.chain(2) as [MadeEpoch, MadeEpoch]
  const [mine, moved] = [join(rig.folder, 'mine'), join(rig.folder, 'moved')]
  // Such as a source buffer of the same agent: what is called like that there is neither taken nor removed.
  mkdirSync(mine)
  for (const { name, bytes } of [one, two]) writeFileSync(join(mine, name), bytes)
  const exchange = (): void => {
    renameSync(rig.streamFolder, moved)
    symlinkSync(mine, rig.streamFolder)
  }
  const putBack = (): void => {
    rmSync(rig.streamFolder)
    renameSync(moved, rig.streamFolder)
  }
  rig.start()
  rig.deliver(one.name, one.bytes)
  await rig.until(() => rig.acknowledgement()?.appliedEpoch === 1)
  await rig.stop()
  // With so many names it is listed by the worker.
  for (let index = 0; index < 300; index++) rig.deliver(`odd ${index}`, Buffer.alloc(0))
  for (const { name, bytes } of [one, two]) rig.deliver(name, bytes)
  const { call } = rig.worker
  let isExchanged = false
  rig.worker.call = async <T>(...parameters: Parameters<typeof call>): Promise<T> => {
    const answer = (await call.apply(rig.worker, parameters)) as T
    if (parameters[0] === 'list' && !isExchanged) {
      isExchanged = true
      exchange()
    }
    return answer
  }
  rig.start()
  await rig.until(() => isExchanged)
  await new Promise((resolve) => setTimeout(resolve, 1500))
  t.same(readdirSync(mine).sort(), [one.name, two.name])
  t.equal(rig.stream.position.appliedEpoch, 1)
  putBack()
  await rig.applied(2)
  await rig.until(() => rig.acknowledgement()?.appliedEpoch === 2)

  const inbox = new Inbox(join(rig.folder, 'inbox'), () => undefined)
  const id = rig.streamId.toString('hex')
  const acknowledgement = rig.acknowledgement()!
  rmSync(join(rig.streamFolder, 'acknowledgement'))
  await inbox.inFolder(id, async (folder) => {
    exchange()
    await writeAcknowledgement(folder, sealAcknowledgement(acknowledgement, rig.secret, rig.streamId))
    t.equal(await inbox.inFolder(id, async () => 'through the link'), undefined)
    putBack()
  })
  t.same(rig.acknowledgement(), acknowledgement, 'where it belongs')
  t.same(readdirSync(mine).sort(), [one.name, two.name])
})

t.test('what lies in the private folder is checked at a start like what arrives', async (t) => {
  const rig = new InboundRig(t)
  const epochs = rig.chain(6)
  const place = (index: number, suffix = '') => join(rig.folder, 'private/arrival', epochs[index]!.name + suffix)
  rig.start()
  rig.deliver(epochs[0]!.name, epochs[0]!.bytes)
  await rig.applied(1)
  await rig.stop()
  writeFileSync(place(1), epochs[1]!.bytes.subarray(0, 100))
  symlinkSync('/dev/zero', place(2))
  mkdirSync(place(3))
  writeFileSync(place(4), epochs[1]!.bytes)
  writeFileSync(place(5, '.123.tmp'), 'half of it')
  rig.start()
  // The whole file under a wrong name is the second epoch, whatever else claimed to be it.
  await rig.applied(2)
  for (const { name, bytes } of epochs.slice(2)) rig.deliver(name, bytes)
  await rig.applied(6)
  t.equal(rig.image()[0], 6)
  t.equal(rig.told('FILE_REFUSED').length, 3)
  await rig.until(() => readdirSync(join(rig.folder, 'private/arrival')).length === 0)
})

t.test('ten thousand foreign files are named once each, and cost the stream neither time nor memory', async (t) => {
  const rig = new InboundRig(t)
  const count = Number(process.env.INBOX_FILES ?? 10_000)
  const epochs = rig.chain(20)
  const name = (index: number) => `holiday ${String(index).padStart(5, '0')}.jpg`
  for (let index = 0; index < count; index++) writeFileSync(join(rig.streamFolder, name(index)), '')
  // And names of parts that are not taken in: so far ahead that they cannot be of this stream.
  const ahead = (index: number) =>
    epochs[0]!.name.replace(/e\d{16}/, `e${String(9_000_000_000 + index).padStart(16, '0')}`)
  for (let index = 0; index < count / 10; index++) writeFileSync(join(rig.streamFolder, ahead(index)), '')
  const delays = monitorEventLoopDelay({ resolution: 5 })
  delays.enable()
  const before = process.memoryUsage().rss
  rig.start()
  const from = performance.now()
  for (const epoch of epochs) rig.deliver(epoch.name, epoch.bytes)
  await rig.applied(20)
  const tookMs = Math.round(performance.now() - from)
  const named = () => rig.told('FOREIGN_FILE').flatMap((text) => text.match(/holiday \d{5}/g) ?? [])
  // Twenty thousand names are remembered.
  const told = Math.min(count, 20_000)
  await rig.until(() => named().length >= told)
  await new Promise((resolve) => setTimeout(resolve, 1500))
  delays.disable()
  t.equal(named().length, told, 'as many as there are')
  t.equal(new Set(named()).size, told, 'and each once')
  t.ok(rig.events.length < 320, `in ${rig.events.length} events`)
  const [p99, worst] = [delays.percentile(99), delays.max].map((nanoseconds) => Math.round(nanoseconds / 1e6))
  t.ok(p99! < 200, `the main thread is away for ${p99} ms at the 99th percentile, ${worst} ms at worst`)
  const grownBytes = process.memoryUsage().rss - before
  t.ok(grownBytes < 150 * MiB, `${Math.round(grownBytes / MiB)} MiB more`)
  t.ok(tookMs < 15_000, `twenty epochs took ${tookMs} ms`)
  t.comment(`twenty epochs in ${tookMs} ms beside ${count} foreign files, ${Math.round(grownBytes / MiB)} MiB more`)
})

function shuffled<T>(random: Random, items: readonly T[]): T[] {
  return items
    .map((item) => ({ item, key: random.next() }))
    .sort((a, b) => a.key - b.key)
    .map(({ item }) => item)
}
