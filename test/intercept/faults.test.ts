import { randomBytes } from 'node:crypto'
import { constants } from 'node:os'
import t from 'tap'
import { KiB, MiB } from '../../src/block/units.js'
import { type Fault, type Grant, leafBlocks, type NativeVolume } from '../../src/intercept/addon.js'
import { fio } from '../fixtures/fio.js'
import { Rig, readAt, readDevice, run, until, writeDevice } from './rig.js'

const blockBytes = 64 * KiB

/** Answers what asks for a leaf: nothing is mapped there. The other faults. */
function loadEmptyLeaves(volume: NativeVolume, faults: readonly Fault[]): Fault[] {
  for (const { block, kind } of faults) if (kind === 'read-unknown') volume.loadLeaf(block / leafBlocks, null)
  return faults.filter(({ kind }) => kind === 'write')
}

/** Gives each block the next free place on first write, and remembers what was asked. */
class ThinAllocator {
  readonly asked: Fault[] = []
  readonly #placed = new Map<number, number>()
  volume: NativeVolume | undefined

  readonly onFaults = (faults: readonly Fault[]): void => {
    this.asked.push(...faults)
    this.volume!.grant(loadEmptyLeaves(this.volume!, faults).map((fault) => this.#answer(fault)))
  }

  locationOf(block: number): number | undefined {
    return this.#placed.get(block)
  }

  #answer({ block }: Fault): Grant {
    const location = this.#placed.get(block)
    if (location !== undefined) return { block, location, mapped: true, writable: true }
    this.#placed.set(block, this.#placed.size)
    return { block, location: this.#placed.size - 1, mapped: true, writable: true, copyFrom: -1 }
  }
}

async function thinVolume(rig: Rig): Promise<{ thin: ThinAllocator; volume: NativeVolume; device: string }> {
  const thin = new ThinAllocator()
  const volume = rig.volume(await rig.backing('pool', 4 * MiB), {
    sizeBytes: 64 * MiB,
    table: { blockBytes },
    onFaults: thin.onFaults,
  })
  thin.volume = volume
  return { thin, volume, device: await rig.attach(volume) }
}

t.test('a thin volume gets a place for each block at its first write', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const { thin, volume, device } = await thinVolume(rig)
  // What lies in the pool from before must never be seen.
  await run('dd', 'if=/dev/urandom', `of=${rig.file('pool')}`, 'bs=1M', 'count=4', 'conv=notrunc', 'status=none')
  t.equal(volume.sizeBytes, 64 * MiB)
  t.ok((await readDevice(device, 32 * MiB, MiB)).equals(Buffer.alloc(MiB)), 'unmapped blocks read as zeros')
  t.ok(thin.asked.every((fault) => fault.kind === 'read-unknown'))

  const sector = randomBytes(512)
  await writeDevice(device, 32 * MiB + 1024, sector, rig.folder)
  const whole = randomBytes(2 * MiB)
  await writeDevice(device, 10 * MiB, whole, rig.folder)

  const expected = Buffer.alloc(blockBytes)
  sector.copy(expected, 1024)
  t.ok((await readDevice(device, 32 * MiB, blockBytes)).equals(expected), 'zeros around the write')
  t.ok((await readDevice(device, 10 * MiB, whole.length)).equals(whole))
  const location = thin.locationOf((32 * MiB) / blockBytes)!
  t.ok((await readAt(rig.file('pool'), location * blockBytes, blockBytes)).equals(expected))
  const writes = thin.asked.filter((fault) => fault.kind === 'write')
  t.equal(writes.length, 1 + whole.length / blockBytes)
  t.equal(new Set(writes.map((fault) => fault.block)).size, writes.length, 'each block is asked for once')
  // The kernel may cut a request inside a block; most are whole.
  t.ok(writes.filter((fault) => fault.wholeBlock).length > writes.length / 2)
  const raised = volume.counters().faults
  await writeDevice(device, 10 * MiB, whole, rig.folder)
  t.equal(volume.counters().faults, raised, 'a granted block raises nothing')
})

t.test('a block is copied before its first write when its old content must stay', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const backing = await rig.backing('backing', 8 * MiB)
  const old = randomBytes(4 * MiB)
  const blocks = old.length / blockBytes
  const asked: Fault[] = []
  const volume: NativeVolume = rig.volume(backing, {
    sizeBytes: 4 * MiB,
    table: { blockBytes },
    onFaults: (faults) => {
      asked.push(...faults)
      for (const { block, kind, wholeBlock } of faults) {
        if (kind === 'read-unknown') {
          volume.loadLeaf(
            0,
            Float64Array.from({ length: leafBlocks }, (_, index) => (index < blocks ? index * 2 : -1)),
          )
        } else {
          const location = blocks + block
          volume.grant([{ block, location, mapped: true, writable: true, ...(!wholeBlock && { copyFrom: block }) }])
        }
      }
    },
  })
  await writeDevice(backing, 0, old, rig.folder)
  const device = await rig.attach(volume)
  t.ok((await readDevice(device, 0, old.length)).equals(old))
  const change = randomBytes(1024)
  await writeDevice(device, 3 * blockBytes + 512, change, rig.folder)
  const expected = Buffer.from(old)
  change.copy(expected, 3 * blockBytes + 512)
  t.ok((await readDevice(device, 0, old.length)).equals(expected))
  t.ok((await readAt(backing, 0, old.length)).equals(old), 'the old content stays where it was')
  t.ok(asked.some((fault) => fault.kind === 'write' && fault.block === 3 && !fault.wholeBlock))
})

t.test('a write that was refused fails and the next one is asked for again', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  let full = true
  const volume: NativeVolume = rig.volume(await rig.backing('pool', MiB), {
    sizeBytes: 4 * MiB,
    table: { blockBytes },
    onFaults: (faults) => {
      const blocks = loadEmptyLeaves(volume, faults).map((fault) => fault.block)
      if (full) volume.refuse(blocks, constants.errno.ENOSPC)
      else volume.grant(blocks.map((block) => ({ block, location: 0, mapped: true, writable: true, copyFrom: -1 })))
    },
  })
  const device = await rig.attach(volume)
  await t.rejects(writeDevice(device, 0, Buffer.alloc(512, 1), rig.folder), /No space left|Input\/output/)
  t.equal(volume.counters().errors, 1)
  full = false
  await writeDevice(device, 0, Buffer.alloc(512, 1), rig.folder)
  t.ok((await readDevice(device, 0, 512)).equals(Buffer.alloc(512, 1)))
})

t.test('requests that wait for an answer do not hold up the others', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const waiting: number[] = []
  const volume: NativeVolume = rig.volume(await rig.backing('pool', MiB), {
    sizeBytes: 4 * MiB,
    threads: 1,
    table: { blockBytes },
    onFaults: (faults) => {
      for (const { block } of loadEmptyLeaves(volume, faults)) {
        if (block >= 32) waiting.push(block)
        else volume.grant([{ block, location: 0, mapped: true, writable: true }])
      }
    },
  })
  const device = await rig.attach(volume)
  const late = [32, 33, 34].map((block) => writeDevice(device, block * blockBytes, Buffer.alloc(512, 9), rig.folder))
  await until(() => waiting.length === 3)
  await writeDevice(device, 0, Buffer.alloc(512, 5), rig.folder)
  t.ok((await readAt(rig.file('pool'), 0, 512)).equals(Buffer.alloc(512, 5)))
  t.equal(volume.counters().inFlight, 3)
  volume.grant(waiting.map((block) => ({ block, location: block - 31, mapped: true, writable: true, copyFrom: -1 })))
  await Promise.all(late)
  t.equal(volume.counters().inFlight, 0)
})

t.test('a thin volume under load reads back what was written', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const { thin, volume, device } = await thinVolume(rig)
  const result = await fio(device, {
    rw: 'randwrite',
    bsrange: '512-256k',
    size: '32m',
    verify: 'crc32c',
    verify_interval: 512,
    iodepth: 32,
  })
  t.equal(result.errors, 0, 'fio saw no error')
  await run('blkdiscard', '--offset', String(MiB + 512), '--length', String(MiB), device)
  t.ok((await readDevice(device, MiB + 512, MiB)).equals(Buffer.alloc(MiB)))
  const asked = new Set(thin.asked.map((fault) => `${fault.kind} ${fault.block}`))
  t.equal(asked.size, thin.asked.length, 'nothing was asked twice')
  t.equal(volume.counters().inFlight, 0)
})
