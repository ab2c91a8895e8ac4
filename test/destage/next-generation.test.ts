/**
 * One generation gives way to the next at any moment: what is shown meanwhile is a state of the source, or is said to be
 * none and cannot be snapshotted, and nothing of the one that was given up is applied any more.
 */
import { closeSync, existsSync, openSync, readdirSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { errnoOf, StorageError } from '../../src/block/storage-error.js'
import { lsn, volumeIndex } from '../../src/block/units.js'
import { ImageFolder } from '../../src/destage/image-folder.js'
import { inboundKey } from '../../src/destage/inbound-state.js'
import { whyNoState } from '../../src/destage/shown-images.js'
import type { PartRecord } from '../../src/replication-file/part.js'
import { mountSmallDisk } from '../fixtures/small-disk.js'
import { InboundRig, type MadeEpoch, volumeBytes } from './inbound-rig.js'
import { rigOnPool } from './pool-rig.js'

const zeros = Buffer.alloc(16)
const blockBytes = 4096
const noState = /what is shown is no state of the source/

interface Home {
  readonly rig: InboundRig
  /** What readers find under the name of a volume: the first byte of block 0 and 8; undefined: there is none. */
  readonly shown: (volume?: string) => readonly (number | undefined)[] | undefined
  /** The disk of the images has no room for another block, until the function is called. */
  readonly fill: () => () => void
}

const homes: Record<string, (t: Test) => Promise<Home>> = {
  'image files': async (t) => {
    const disk = await smallDisk(t)
    const rig = new InboundRig(t, () => new ImageFolder(disk))
    const file = (volume: string): string => join(disk, `${volume}.img`)
    return { rig, fill: () => fillDisk(disk), shown: (volume = 'v') => blocks(file(volume)) }
  },
  'a pool': async (t) => {
    const disk = await smallDisk(t)
    const { rig, pool } = rigOnPool(t, disk)
    const file = (name: string): string => {
      const isThere = pool()
        .volumes()
        .some((volume) => volume.name === name)
      return isThere ? pool().file(name) : ''
    }
    return { rig, fill: () => fillDisk(disk), shown: (volume = 'v') => blocks(file(`st.${volume}`)) }
  },
}

for (const [where, make] of Object.entries(homes)) {
  for (const way of ['its disk was full', 'its files were lost']) {
    t.test(`${where}: a half applied epoch that is given up since ${way} is never shown as a state`, async (t) => {
      const { rig, shown, fill } = await make(t)
      const one = rig.epoch(1, zeros, 1)
      rig.start()
      deliver(rig, one)
      await rig.applied(1)
      const free = fill()
      deliver(rig, rig.epoch(2, one.tag, 2, { records: [write(2, 8)] }))
      await rig.until(() => rig.stream.status().state === 'stalled')
      t.match(rig.stream.position, { appliedEpoch: 1, intent: 2 })
      t.same(shown(), [2, 0], 'one block of two')
      t.match(whyNoState(rig.stream.position), /epoch 2 of its stream is applied in part/)
      await refused(t, rig)

      const anew = rig.epoch(1, zeros, 30, { generation: 2, initializing: true })
      if (way === 'its files were lost') {
        await rig.stop()
        loseArrivals(rig)
        rig.start()
      }
      deliver(rig, anew)
      await rig.until(() => rig.stream.position.generation === 2)
      free()
      await appliedOf(rig, 2, 1)
      const check = async (): Promise<void> => {
        t.same(shown(), [2, 0], 'it is still there')
        await rig.until(() => rig.acknowledgement()?.state === 'initializing')
        t.match(rig.stream.status(), { state: 'initializing', reason: noState })
        t.match(rig.acknowledgement()?.reason, noState, 'the source is told')
        t.match(whyNoState(rig.stream.position), noState, 'who attaches it is told')
        await refused(t, rig, noState)
      }
      await check()
      await rig.stop()
      rig.start()
      await appliedOf(rig, 2, 1)
      await check()

      const third = rig.epoch(1, zeros, 40, { generation: 3, initializing: true })
      deliver(rig, third)
      await appliedOf(rig, 3, 1)
      await check()
      deliver(rig, rig.epoch(2, third.tag, 41, { generation: 3, offset: 8 * blockBytes }))
      await appliedOf(rig, 3, 2)
      t.same(shown(), [40, 41])
      t.equal(rig.stream.status().reason, 'as the source was at the end of epoch 2')
      t.equal(rig.told('IMAGE_TORN').length, 1)
      t.equal(whyNoState(rig.stream.position), undefined)
      t.equal(await rig.stream.atEpochBoundary(async () => 'taken'), 'taken')
    })
  }

  t.test(`${where}: a copy that is given up half applied leaves the image before it the state it was`, async (t) => {
    const { rig, shown, fill } = await make(t)
    rig.start()
    deliver(rig, rig.epoch(1, zeros, 1))
    await rig.applied(1)
    const copy = rig.epoch(1, zeros, 20, { generation: 2, initializing: true })
    deliver(rig, copy)
    await appliedOf(rig, 2, 1)
    const free = fill()
    deliver(rig, rig.epoch(2, copy.tag, 21, { generation: 2, initializing: true, records: [write(2, 8)] }))
    await rig.until(() => rig.stream.status().state === 'stalled')
    t.equal(rig.stream.position.intent, 2)
    deliver(rig, rig.epoch(1, zeros, 30, { generation: 3, initializing: true }))
    await rig.until(() => rig.stream.position.generation === 3)
    free()
    await appliedOf(rig, 3, 1)
    t.same(shown(), [1, 0])
    t.equal(rig.stream.status().reason, 'generation 3 is not complete yet')
    t.same(rig.told('IMAGE_TORN'), [])
    t.equal(await rig.stream.atEpochBoundary(async () => 'taken'), 'taken')
  })

  for (const replaced of [0, 1]) {
    t.test(`${where}: a generation is given up when ${replaced} of its two images took their place`, async (t) => {
      const { rig, shown } = await make(t)
      const both = (fill: number, generation: number, initializing = false) =>
        rig.epoch(1, zeros, fill, { generation, initializing, records: [secondVolume, write(fill, 0, 1)] })
      rig.start()
      deliver(rig, both(1, 1))
      await rig.applied(1)
      const { promote } = rig.images
      let attempts = 0
      rig.images.promote = async (volumes) => {
        attempts += 1
        await promote.call(rig.images, volumes.slice(0, replaced))
        throw new StorageError('POOL_FAILED', { op: 'test', object: 'w', hint: 'Its disk is gone.' })
      }
      deliver(rig, both(20, 2))
      await rig.until(() => attempts > 0 && rig.stream.status().reason.startsWith('POOL_FAILED'))
      t.same([shown('v')?.[0], shown('w')?.[0]], [replaced ? 20 : 1, 1])
      await refused(t, rig)

      rig.images.promote = promote
      await rig.stop()
      loseArrivals(rig)
      const third = both(30, 3, true)
      deliver(rig, third)
      rig.start()
      await appliedOf(rig, 3, 1)
      t.same([shown('v')?.[0], shown('w')?.[0]], [replaced ? 20 : 1, 1])
      if (replaced) await refused(t, rig, noState)
      else t.equal(await rig.stream.atEpochBoundary(async () => 'taken'), 'taken', 'both are of generation 1')
      deliver(rig, rig.epoch(2, third.tag, 31, { generation: 3 }))
      await appliedOf(rig, 3, 2)
      t.same([shown('v')?.[0], shown('w')?.[0]], [31, 30])
      t.equal(await rig.stream.atEpochBoundary(async () => 'taken'), 'taken')
    })
  }

  for (const when of ['before', 'behind']) {
    t.test(
      `${where}: killed ${when} the making of empty images, nothing of the old generation is applied`,
      async (t) => {
        const { rig, shown } = await make(t)
        const one = rig.epoch(1, zeros, 1, { initializing: true })
        const two = rig.epoch(2, one.tag, 2, { initializing: true, offset: 8 * blockBytes })
        const three = rig.epoch(3, two.tag, 3)
        rig.start()
        for (const each of [one, two]) deliver(rig, each)
        await rig.applied(2)
        const { begin } = rig.images
        let killed: Promise<void> | undefined
        rig.images.begin = async (generation) => {
          if (when === 'behind') await begin.call(rig.images, generation)
          killed = rig.stop()
          throw new StorageError('KILLED', { op: 'test', object: 'v', retry: 'later', hint: 'Start again.' })
        }
        const anew = rig.epoch(1, zeros, 50, { generation: 2 })
        deliver(rig, anew)
        await rig.until(() => killed !== undefined)
        await killed
        await rig.images.close()
        rig.images.begin = begin

        loseArrivals(rig)
        deliver(rig, three)
        rig.start()
        await rig.until(() => !existsSync(join(rig.streamFolder, three.name)))
        await new Promise((resolve) => setTimeout(resolve, 500))
        t.same(shown(), undefined, 'of generation 1 two blocks are gone')
        t.match(rig.stream.position, { generation: 2, appliedEpoch: 0, consistent: false })
        deliver(rig, anew)
        await rig.until(() => rig.stream.position.consistent)
        t.same(shown(), [50, 0], 'it began with empty images')
      },
    )
  }
}

t.test('a torn image that cannot be removed yet is refused until it is gone, and then forgotten', async (t) => {
  const { rig, shown, fill } = await homes['image files']!(t)
  const one = rig.epoch(1, zeros, 1)
  rig.start()
  deliver(rig, one)
  await rig.applied(1)
  const free = fill()
  deliver(rig, rig.epoch(2, one.tag, 2, { records: [write(2, 8)] }))
  await rig.until(() => rig.stream.status().state === 'stalled')
  const { remove } = rig.images
  rig.images.remove = async () => {
    throw new StorageError('VOLUME_OPEN', { op: 'test', object: 'v', retry: 'later', hint: 'Detach it.' })
  }
  await t.rejects(rig.stream.remove(), { code: 'VOLUME_OPEN' })
  t.same(shown(), [2, 0])
  await refused(t, rig)
  rig.images.remove = remove
  free()
  await rig.until(() => rig.stream.position.volumes.length === 0)
  deliver(rig, rig.epoch(1, zeros, 30, { generation: 2, initializing: true }))
  await appliedOf(rig, 2, 1)
  t.equal(rig.stream.status().reason, 'generation 2 is not complete yet')
})

t.test('what an agent recorded that knew nothing of this is read as whole', async (t) => {
  const { rig } = await homes['image files']!(t)
  rig.start()
  deliver(rig, rig.epoch(1, zeros, 1))
  await rig.applied(1)
  await rig.stop()
  const key = inboundKey(rig.pairingId.toString('hex'), rig.streamId.toString('hex'))
  const { torn, beginning, ...older } = rig.store.get<typeof rig.stream.position>(key)!
  t.same([torn, beginning], [false, false])
  await rig.store.put({ [key]: older })
  rig.start()
  t.match(rig.stream.status(), { state: 'consistent', reason: /epoch 1$/ })
  t.equal(await rig.stream.atEpochBoundary(async () => 'taken'), 'taken')
})

async function refused(t: Test, rig: InboundRig, hint = /./): Promise<void> {
  await t.rejects(
    rig.stream.atEpochBoundary(async () => t.fail('no state is shown')),
    { code: 'BETWEEN_EPOCHS', retry: 'later', hint },
  )
}

function deliver(rig: InboundRig, { name, bytes }: MadeEpoch): void {
  rig.deliver(name, bytes)
}

async function appliedOf(rig: InboundRig, generation: number, epoch: number): Promise<void> {
  await rig.until(() => rig.stream.position.generation === generation && rig.stream.position.appliedEpoch === epoch)
}

/** What had arrived is not there any more. */
function loseArrivals(rig: InboundRig): void {
  const arrivals = join(rig.folder, 'private/arrival')
  for (const name of readdirSync(arrivals)) rmSync(join(arrivals, name))
}

const secondVolume: PartRecord = {
  kind: 'volume',
  volume: volumeIndex(1),
  stream: 'st',
  name: 'w',
  sizeBytes: volumeBytes,
}

function write(fill: number, block: number, volume = 0): PartRecord {
  const payload = Buffer.alloc(blockBytes, fill)
  const place = { volume: volumeIndex(volume), offset: block * blockBytes, lengthBytes: blockBytes }
  return { kind: 'write', ...place, lsn: lsn(4096n), timeNs: 1_700_000_000_000_000_000n, payload }
}

function blocks(file: string): (number | undefined)[] | undefined {
  if (!existsSync(file)) return undefined
  const bytes = readFileSync(file)
  return [bytes[0], bytes[8 * blockBytes]]
}

async function smallDisk(t: Test): Promise<string> {
  const { directory, unmount } = await mountSmallDisk(64 * blockBytes)
  t.teardown(unmount)
  return directory
}

function fillDisk(directory: string): () => void {
  const file = join(directory, 'filler')
  const fd = openSync(file, 'w')
  try {
    for (;;) writeSync(fd, Buffer.alloc(blockBytes, 1))
  } catch (error) {
    if (errnoOf(error) !== 'ENOSPC') throw error
  } finally {
    closeSync(fd)
  }
  return () => rmSync(file)
}
