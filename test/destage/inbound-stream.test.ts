import { execFileSync } from 'node:child_process'
import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  renameSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { StorageError } from '../../src/block/storage-error.js'
import { InboundRig, type MadeEpoch } from './inbound-rig.js'

const zeros = Buffer.alloc(16)

t.test('arrivals 3, 1, 2 give the image of 1, 2, 3, and each is acknowledged', async (t) => {
  const rig = new InboundRig(t)
  const [one, two, three] = rig.chain(3)
  rig.start()
  rig.deliver(three!.name, three!.bytes)
  rig.deliver(one!.name, one!.bytes)
  await rig.applied(1)
  t.equal(rig.image()[0], 1, 'and not 3')
  rig.deliver(two!.name, two!.bytes)
  await rig.applied(3)
  t.equal(rig.image()[0], 3)
  await rig.until(() => rig.acknowledgement()?.appliedEpoch === 3)
  t.same(readdirSync(rig.streamFolder), ['acknowledgement'], 'what was applied is gone')
})

t.test('a missing file stalls the stream, is named and asked for', async (t) => {
  const rig = new InboundRig(t)
  const [one, two, three] = rig.chain(3)
  rig.start()
  for (const { name, bytes } of [one!, three!]) rig.deliver(name, bytes)
  await rig.until(() => (rig.acknowledgement()?.wanted.length ?? 0) > 0)
  t.match(rig.acknowledgement(), { state: 'stalled', reason: /epoch 2 part 1/, wanted: [{ epoch: 2, part: 0 }] })
  rig.deliver(two!.name, two!.bytes)
  await rig.applied(3)
  await rig.until(() => rig.acknowledgement()?.state === 'consistent')
})

t.test('a damaged file is set aside, named in events, never applied, and asked for again', async (t) => {
  const rig = new InboundRig(t)
  const [one, two] = rig.chain(2)
  rig.start()
  rig.deliver(one!.name, one!.bytes)
  await rig.applied(1)
  const damages: [string, (bytes: Buffer) => Buffer][] = [
    ['a flipped bit in the header', (bytes) => flip(bytes, 40)],
    ['a flipped bit in the body', (bytes) => flip(bytes, 300)],
    ['a flipped bit in the seal', (bytes) => flip(bytes, bytes.length - 1)],
    ['half of it', (bytes) => bytes.subarray(0, bytes.length / 2)],
    ['nothing of it', (bytes) => bytes.subarray(0, 0)],
    ['more than all of it', (bytes) => Buffer.concat([bytes, bytes])],
  ]
  for (const [title, damage] of damages) {
    const before = rig.events.length
    rig.deliver(two!.name, damage(Buffer.from(two!.bytes)))
    await rig.until(() => rig.events.length > before)
    t.match(rig.events.at(-1), { code: 'FILE_REFUSED', text: new RegExp(two!.name) }, title)
    await rig.until(() => rig.acknowledgement()?.wanted[0]?.epoch === 2)
    t.equal(rig.stream.position.appliedEpoch, 1, title)
    t.equal(rig.image()[0], 1, title)
  }
  t.equal(readdirSync(join(rig.folder, 'private/refused')).length, damages.length)
  rig.deliver(two!.name, two!.bytes)
  await rig.applied(2)
  await rig.until(() => rig.acknowledgement()?.wanted.length === 0)
})

t.test('an old file, a file of another place and a second copy are never applied', async (t) => {
  const rig = new InboundRig(t)
  const [one, two, three] = rig.chain(3)
  rig.start()
  for (const { name, bytes } of [one!, two!]) rig.deliver(name, bytes)
  await rig.applied(2)
  rig.deliver(one!.name, one!.bytes)
  rig.deliver(three!.name, one!.bytes)
  await rig.until(() => readdirSync(rig.streamFolder).length === 1)
  t.equal(rig.image()[0], 2)
  t.equal(rig.stream.position.appliedEpoch, 2)
  rig.deliver(three!.name, three!.bytes)
  await rig.applied(3)
  t.equal(rig.image()[0], 3)
})

t.test('a file that does not follow what was applied is refused, though its seal is whole', async (t) => {
  const rig = new InboundRig(t)
  const [one] = rig.chain(1)
  rig.start()
  rig.deliver(one!.name, one!.bytes)
  await rig.applied(1)
  const fork = rig.epoch(2, Buffer.alloc(16, 9), 99)
  rig.deliver(fork.name, fork.bytes)
  await rig.until(() => rig.events.some(({ code }) => code === 'SEQUENCE_FORK'))
  t.match(rig.stream.status(), { state: 'failed', reason: /Initialize/ })
  t.equal(rig.image()[0], 1)
  const [again] = rig.chain(1, 2)
  rig.deliver(again!.name, again!.bytes)
  await rig.until(() => rig.stream.position.generation === 2 && rig.stream.status().state === 'consistent')
})

t.test(
  'a stream that is removed leaves nothing, drops what its source still sends, and begins again anew',
  async (t) => {
    const rig = new InboundRig(t)
    const [one, two, three] = rig.chain(3)
    rig.start()
    rig.deliver(one!.name, one!.bytes)
    rig.deliver(three!.name, three!.bytes)
    await rig.applied(1)
    await rig.until(() => rig.stream.waitingFiles === 1)
    const image = join(rig.folder, 'images/v.img')
    t.ok(existsSync(image))
    await rig.stream.remove()
    t.same(readdirSync(join(rig.folder, 'images')), [])
    t.same(readdirSync(join(rig.folder, 'private/arrival')), [])
    await rig.until(() => rig.acknowledgement()?.state === 'failed')
    t.match(
      rig.acknowledgement(),
      { appliedEpoch: 1, reason: /^STREAM_REMOVED/, wanted: [] },
      'nothing more is promised',
    )
    for (const restarted of [false, true]) {
      for (const { name, bytes } of [one!, two!, three!]) rig.deliver(name, bytes)
      if (restarted) {
        await rig.stop()
        rig.start()
      }
      await rig.until(() => readdirSync(rig.streamFolder).length === 1)
      t.match(rig.stream.position, { removed: true, appliedEpoch: 1, volumes: [] })
      t.equal(rig.stream.waitingFiles, 0)
      t.notOk(existsSync(image), 'what arrived once is not applied anew')
    }
    const [again] = rig.chain(1, 2)
    rig.deliver(again!.name, again!.bytes)
    await rig.until(() => rig.acknowledgement()?.generation === 2 && rig.acknowledgement()?.state === 'consistent')
    t.equal(rig.image()[0], 1)
  },
)

t.test('a removal that is cut short, or cannot be done yet, is done by the next turn', async (t) => {
  const rig = new InboundRig(t)
  const [one] = rig.chain(1)
  rig.start()
  rig.deliver(one!.name, one!.bytes)
  await rig.applied(1)
  const { remove } = rig.images
  let attempts = 0
  rig.images.remove = async (volumes) => {
    attempts += 1
    if (attempts < 3) throw new StorageError('VOLUME_OPEN', { op: 'x', object: 'v', retry: 'later', hint: 'wait' })
    return remove.call(rig.images, volumes)
  }
  await t.rejects(rig.stream.remove(), { code: 'VOLUME_OPEN' })
  t.match(rig.stream.position, { removed: true, volumes: [{ name: 'v' }] })
  await rig.stop()
  rig.start()
  await rig.until(() => rig.stream.position.volumes.length === 0)
  t.equal(attempts, 3)
  t.same(readdirSync(join(rig.folder, 'images')), [])
})

t.test('what kept a removal from ending is not told any more when it has ended', async (t) => {
  const rig = new InboundRig(t)
  const [one] = rig.chain(1)
  rig.start()
  rig.deliver(one!.name, one!.bytes)
  await rig.applied(1)
  const { remove } = rig.images
  let inUse = true
  rig.images.remove = async (volumes) => {
    if (inUse) throw new StorageError('VOLUME_OPEN', { op: 'x', object: 'v', retry: 'later', hint: 'wait' })
    return remove.call(rig.images, volumes)
  }
  await t.rejects(rig.stream.remove(), { code: 'VOLUME_OPEN' })
  await rig.until(() => rig.events.some(({ code }) => code === 'VOLUME_OPEN'))
  inUse = false
  await rig.until(() => rig.stream.position.volumes.length === 0)
  await rig.until(() => rig.acknowledgement()?.reason.startsWith('STREAM_REMOVED') === true)
  t.match(rig.acknowledgement(), { state: 'failed', generation: 1 })

  const part = (number: number) => rig.epoch(1, zeros, 7, { generation: 2, header: { part: number, partCount: 2 } })
  rig.deliver(part(0).name, part(0).bytes)
  await rig.until(() => rig.acknowledgement()?.generation === 2)
  t.match(
    rig.acknowledgement(),
    { state: 'initializing', reason: /generation 2/ },
    'what is initialized again is not removed',
  )
})

t.test('what is initialized again while it is being removed begins when it has arrived again', async (t) => {
  const rig = new InboundRig(t)
  const [one, , three] = rig.chain(3)
  rig.start()
  rig.deliver(one!.name, one!.bytes)
  await rig.applied(1)
  rig.deliver(three!.name, three!.bytes)
  await rig.until(() => rig.stream.waitingFiles === 1)
  // Between what is to be applied and its turn: a file of the generation before is dropped.
  const { worker } = rig
  const { call } = worker
  let goOn = (): void => {}
  let isHeld = false
  const held = new Promise<void>((resolve) => {
    goOn = resolve
  })
  worker.call = async <T>(...parameters: Parameters<typeof call>): Promise<T> => {
    if (parameters[0] === 'forget' && !isHeld) {
      isHeld = true
      await held
    }
    return call.apply(worker, parameters) as Promise<T>
  }
  const [again] = rig.chain(1, 2)
  rig.deliver(again!.name, again!.bytes)
  await rig.until(() => isHeld)
  const { remove } = rig.images
  rig.images.remove = async (volumes) => {
    goOn()
    await new Promise((resolve) => setTimeout(resolve, 200))
    return remove.call(rig.images, volumes)
  }
  await rig.stream.remove()
  await new Promise((resolve) => setTimeout(resolve, 300))
  rig.deliver(again!.name, again!.bytes)
  await rig.until(() => rig.acknowledgement()?.generation === 2 && rig.acknowledgement()?.state === 'consistent')
  t.equal(rig.image()[0], 1)
  t.same(
    rig.events.filter(({ severity }) => severity === 'error'),
    [],
    'its source did nothing wrong',
  )
})

t.test('what had been taken when the inbox began to hang is not lost, damaged or not', async (t) => {
  const rig = new InboundRig(t)
  const epochs = rig.chain(3)
  const [one, two, three] = epochs as [MadeEpoch, MadeEpoch, MadeEpoch]
  rig.start()
  rig.deliver(one.name, one.bytes)
  await rig.applied(1)
  const inbox = rig.inbox!
  const { take } = inbox
  let hangs = 1
  inbox.take = async (...given) => {
    const fault = await take.apply(inbox, given)
    if (hangs-- > 0) {
      throw new StorageError('INBOX_UNAVAILABLE', { op: 'take', object: 'inbox', retry: 'later', hint: 'Wait.' })
    }
    return fault
  }
  rig.deliver(two.name, two.bytes)
  await rig.until(() => rig.stream.status().reason.startsWith('INBOX_UNAVAILABLE'))
  await rig.applied(2)
  t.equal(rig.image()[0], 2)
  t.equal(rig.told('DESTAGE_RESUMED').length, 1)
  hangs = 1
  rig.deliver(three.name, three.bytes.subarray(1))
  t.equal(await rig.sendAgainUntil(3, epochs), 1)
  t.equal(rig.told('FILE_REFUSED').length, 1)
})

t.test('an extent beyond its volume is refused before anything is written', async (t) => {
  const rig = new InboundRig(t)
  const [one] = rig.chain(1)
  const beyond = rig.epoch(2, one!.tag, 7, { offset: 64 * 1024 })
  rig.start()
  for (const { name, bytes } of [one!, beyond]) rig.deliver(name, bytes)
  await rig.until(() => rig.events.some(({ code }) => code === 'OUTSIDE_VOLUME'))
  await rig.applied(1)
  await rig.until(() => rig.stream.status().state === 'failed')
  t.equal(rig.stream.position.appliedEpoch, 1, 'and it holds nothing before it back')
  t.equal(rig.image().length, 64 * 1024)
})

t.test('links, pipes, folders, huge and odd names are left alone, told once, and stop nothing', async (t) => {
  const rig = new InboundRig(t)
  const [one, two] = rig.chain(2)
  const proper = (epoch: number): string =>
    one!.name.replace('e0000000000000001', `e${String(epoch).padStart(16, '0')}`)
  symlinkSync('/etc/shadow', join(rig.streamFolder, proper(11)))
  symlinkSync('/dev/zero', join(rig.streamFolder, proper(12)))
  execFileSync('mkfifo', [join(rig.streamFolder, proper(13))])
  mkdirSync(join(rig.streamFolder, proper(14)))
  rig.deliver('hard', Buffer.from('x'))
  linkSync(join(rig.streamFolder, 'hard'), join(rig.streamFolder, proper(15)))
  rig.deliver(proper(16), Buffer.alloc(0))
  truncateSync(join(rig.streamFolder, proper(16)), 4 * 1024 ** 3)
  const odd = ['line\nbreak', '...', 'n'.repeat(255), 'CON', 'con', '\x1b[31m', '-rf', 'a%00b', one!.name.toUpperCase()]
  for (const name of odd) rig.deliver(name, Buffer.from('x'))
  writeFileSync(Buffer.concat([Buffer.from(`${rig.streamFolder}/`), Buffer.from([0xff, 0xfe, 0x80])]), 'no UTF-8')
  for (const { name, bytes } of [one!, two!]) rig.deliver(name, bytes)
  rig.start()
  await rig.applied(2)
  await rig.until(() => rig.events.filter(({ code }) => code === 'FOREIGN_FILE').length >= 17)
  await new Promise((resolve) => setTimeout(resolve, 1500))
  t.equal(rig.events.filter(({ code }) => code === 'FOREIGN_FILE').length, 17, 'each once')
  t.notOk(
    rig.events.some(({ text }) => text.includes('\n') || text.includes('\x1b')),
    'and nothing breaks the log',
  )
  t.equal(rig.image()[0], 2)
})

t.test('a restart in the middle of anything goes on where it was', async (t) => {
  const rig = new InboundRig(t)
  const epochs = rig.chain(6)
  for (const [at, { name, bytes }] of epochs.entries()) {
    rig.start()
    rig.deliver(name, bytes)
    if (at % 2 === 1) await rig.applied(at + 1)
    await rig.stop()
  }
  rig.start()
  await rig.applied(6)
  t.equal(rig.image()[0], 6)
})

t.test('the old generation stays readable until the new one is consistent', async (t) => {
  const rig = new InboundRig(t)
  const [old] = rig.chain(1)
  rig.start()
  rig.deliver(old!.name, old!.bytes)
  await rig.applied(1)
  const fresh = rig.epoch(1, zeros, 50, { generation: 2 })
  t.equal(rig.image()[0], 1)
  rig.deliver(fresh.name, fresh.bytes)
  await rig.until(() => rig.stream.position.generation === 2 && rig.stream.position.consistent)
  t.equal(rig.image()[0], 50)
})

t.test('epochs that are no states of the source appear together with the one that is', async (t) => {
  const rig = new InboundRig(t)
  const one = rig.epoch(1, zeros, 1)
  const two = rig.epoch(2, one.tag, 2, { initializing: true })
  const three = rig.epoch(3, two.tag, 3, { initializing: true, offset: 8192 })
  const four = rig.epoch(4, three.tag, 4, { offset: 16384 })
  rig.start()
  rig.deliver(one.name, one.bytes)
  await rig.applied(1)
  const shown: number[] = []
  rig.onApplied = () => {
    const { appliedEpoch } = rig.stream.position
    // That of epoch 1 may be told only now.
    if (appliedEpoch > 1) shown.push(appliedEpoch)
  }
  for (const { name, bytes } of [two, three]) rig.deliver(name, bytes)
  await rig.until(() => rig.stream.waitingFiles === 2)
  await new Promise((resolve) => setTimeout(resolve, 300))
  t.equal(rig.image()[0], 1, 'nothing of it is seen')
  t.match(rig.stream.status(), { state: 'consistent' })
  await rig.stop()
  rig.start()
  rig.deliver(four.name, four.bytes)
  await rig.applied(4)
  t.same([rig.image()[0], rig.image()[8192], rig.image()[16384]], [2, 3, 4])
  await rig.until(() => shown.length > 0)
  t.same(shown, [4])
})

t.test('what is held, and given up by the source for that, is not lost to a damaged file of its name', async (t) => {
  const rig = new InboundRig(t)
  const one = rig.epoch(1, zeros, 1)
  const two = rig.epoch(2, one.tag, 2, { initializing: true })
  const three = rig.epoch(3, two.tag, 3, { initializing: true, offset: 8192 })
  const four = rig.epoch(4, three.tag, 4, { offset: 16384 })
  rig.start()
  for (const { name, bytes } of [one, two, three]) rig.deliver(name, bytes)
  await rig.until(() => rig.acknowledgement()?.receivedEpoch === 3)
  const damaged = Buffer.from(two.bytes)
  damaged[damaged.length - 1]! ^= 1
  rig.deliver(two.name, damaged)
  await rig.until(() => !existsSync(join(rig.streamFolder, two.name)))
  // Nothing is left but what lies on the disk.
  await rig.stop()
  await rig.worker.close()
  rig.start()
  rig.deliver(four.name, four.bytes)
  await rig.applied(4)
  t.same([rig.image()[0], rig.image()[8192], rig.image()[16384]], [2, 3, 4])
})

t.test('a batch that failed half-way is no state before all of it was applied', async (t) => {
  const rig = new InboundRig(t)
  const epochs = rig.chain(4)
  const image = join(rig.folder, 'images/v.img')
  rig.start()
  rig.deliver(epochs[0]!.name, epochs[0]!.bytes)
  await rig.applied(1)
  await rig.stop()
  renameSync(image, `${image}.away`)
  for (const { name, bytes } of epochs.slice(1)) rig.deliver(name, bytes)
  rig.start()
  await rig.until(() => rig.events.some(({ code }) => code === 'BACKING_UNAVAILABLE'))
  t.equal(rig.stream.position.intent, 4, 'any of them may have been written')
  await t.rejects(
    rig.stream.atEpochBoundary(async () => t.fail('not between epochs')),
    { code: 'BETWEEN_EPOCHS', retry: 'later' },
  )
  const states: string[] = []
  rig.onApplied = () => void states.push(`${rig.stream.position.appliedEpoch} ${rig.stream.status().state}`)
  renameSync(`${image}.away`, image)
  await rig.applied(4)
  await rig.until(() => states.some((state) => state.startsWith('4')))
  t.same(states, ['2 applying', '4 consistent'])
})

t.test('one of two volumes is never a state without the other', async (t) => {
  const volumes = ['v', 'w']
  const rig = new InboundRig(t)
  const place = (name: string): string => join(rig.folder, 'images', name)
  const one = rig.epoch(1, zeros, 1, { volumes, initializing: true })
  const two = rig.epoch(2, one.tag, 2, { volumes })
  const three = rig.epoch(3, two.tag, 3, { volumes })
  const shown: string[] = []
  rig.onApplied = () => {
    const { appliedEpoch, consistent } = rig.stream.position
    if (consistent) shown.push(`${appliedEpoch}: ${volumes.map((volume) => rig.image(volume)[0])}`)
  }
  const isRefused = async (appliedEpoch: number, code = 'BACKING_UNAVAILABLE'): Promise<void> => {
    await rig.until(() => rig.acknowledgement()?.reason.startsWith(code) === true)
    t.match(rig.acknowledgement(), { state: 'stalled', appliedEpoch })
    t.equal(rig.stream.position.appliedEpoch, appliedEpoch)
    const look = rig.stream.atEpochBoundary(async () => undefined)
    await t.rejects(look, { code: 'BETWEEN_EPOCHS', retry: 'later' }, 'no state is shown')
  }
  rig.start()
  rig.deliver(one.name, one.bytes)
  await rig.until(() => rig.acknowledgement()?.appliedEpoch === 1)

  renameSync(place('w.img.incoming'), place('away'))
  rig.deliver(two.name, two.bytes)
  await isRefused(1)
  t.notOk(existsSync(place('v.img')), 'what takes the place of nothing yet is not in place')
  t.same(shown, [])
  const { promote } = rig.images
  rig.images.promote = (all) => {
    rig.images.promote = promote
    renameSync(place('w.img.incoming'), place('away'))
    return promote.call(rig.images, all)
  }
  renameSync(place('away'), place('w.img.incoming'))
  await isRefused(1, 'DESTINATION_UNAVAILABLE')
  t.same(shown, [], 'nor when it goes at the last moment')
  renameSync(place('away'), place('w.img.incoming'))
  await rig.applied(2)
  await rig.until(() => shown.length === 1)

  renameSync(place('w.img'), place('away'))
  rig.deliver(three.name, three.bytes)
  await isRefused(2)
  renameSync(place('away'), place('w.img'))
  await rig.until(() => shown.length === 2)
  t.same(shown, ['2: 2,2', '3: 3,3'])
  await rig.until(() => rig.acknowledgement()?.appliedEpoch === 3)
  t.match(rig.acknowledgement(), { state: 'consistent', wanted: [] })
})

t.test('an image that cannot be looked at is not taken for one that is in place', async (t) => {
  const volumes = ['v', 'w']
  const rig = new InboundRig(t)
  const incoming = join(rig.folder, 'images/w.img.incoming')
  const old = rig.epoch(1, zeros, 1, { volumes })
  const first = rig.epoch(1, zeros, 2, { volumes, generation: 2, initializing: true })
  const second = rig.epoch(2, first.tag, 3, { volumes, generation: 2 })
  rig.start()
  rig.deliver(old.name, old.bytes)
  await rig.applied(1)
  rig.deliver(first.name, first.bytes)
  await rig.until(() => rig.acknowledgement()?.generation === 2 && rig.acknowledgement()?.appliedEpoch === 1)
  renameSync(incoming, `${incoming}.away`)
  symlinkSync(incoming, incoming)
  rig.deliver(second.name, second.bytes)
  await rig.until(() => rig.told('DESTINATION_UNAVAILABLE').length > 0)
  t.same(
    volumes.map((volume) => rig.image(volume)[0]),
    [1, 1],
    'the old generation stays as it was',
  )
  t.match(rig.stream.position, { appliedEpoch: 1, consistent: false })
  renameSync(`${incoming}.away`, incoming)
  await rig.applied(2)
  t.same(
    volumes.map((volume) => rig.image(volume)[0]),
    [3, 3],
  )
})

t.test('what runs at a boundary holds up epochs, and sees a whole one', async (t) => {
  const rig = new InboundRig(t)
  const [one, two] = rig.chain(2)
  rig.start()
  rig.deliver(one!.name, one!.bytes)
  await rig.applied(1)
  await rig.stream.atEpochBoundary(async () => {
    rig.deliver(two!.name, two!.bytes)
    await rig.until(() => rig.stream.waitingFiles > 0)
    await new Promise((resolve) => setTimeout(resolve, 300))
    t.equal(rig.image()[0], 1)
  })
  await rig.applied(2)
  t.equal(rig.image()[0], 2)
})

function flip(bytes: Buffer, at: number): Buffer {
  bytes[at]! ^= 0x10
  return bytes
}
