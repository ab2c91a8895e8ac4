import { randomInt } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import t from 'tap'
import { checkPool, type PoolCheck } from '../../src/pool/check.js'
import {
  blockIndex,
  type Geometry,
  labelOffsets,
  layerId,
  pageBytes,
  superblockOffsets,
  type UnitIndex,
  unitIndex,
} from '../../src/pool/geometry.js'
import { encodeRelease, nativeRecords } from '../../src/pool/log-record.js'
import { mapPageOffset, unitPageOffset } from '../../src/pool/tree-reader.js'
import { contentOf, PoolRig, seededRandom, type Test, wholeChange } from '../fixtures/pool/pool-rig.js'
import { PoolSession, recoveredPicture } from '../fixtures/pool/pool-session.js'

const seedOf = (): number => Number(process.env.SEED ?? randomInt(2 ** 31))
const MiB = 2 ** 20

/** The same pool again and again: what was written to it is taken back. */
function restorable(rig: PoolRig): () => void {
  const before = rig.paths.map((path) => readFileSync(path))
  return () => {
    for (const [device, path] of rig.paths.entries()) writeFileSync(path, before[device]!)
  }
}

function textOf({ findings }: PoolCheck): string {
  return findings.map(({ object, text, volumes }) => `${object}: ${text} [${volumes.join(' ')}]`).join('\n')
}

/** A pool with volumes, snapshots, merges and holes. */
async function workedRig(t: Test, seed: number, closed: boolean): Promise<PoolRig> {
  const rig = await PoolRig.create(t, { sizes: [16 * MiB, 8 * MiB] })
  const session = await PoolSession.open(rig)
  await session.work(seededRandom(seed), 120)
  if (closed) await session.close()
  else await session.crash()
  return rig
}

t.test('a pool that was closed, or whose process was killed, is clean', async (t) => {
  const seed = seedOf()
  t.comment(`seed ${seed}`)
  for (const closed of [true, false]) {
    const rig = await workedRig(t, seed, closed)
    const before = rig.paths.map((path) => readFileSync(path))
    const check = await checkPool(rig.paths)
    t.equal(textOf(check), '')
    t.match(check, { name: 'p', clean: true, usable: true, devices: rig.paths })
    t.ok(check.mappedBytes > 0 && check.mappedBytes <= check.allocatedBytes && check.allocatedBytes <= check.sizeBytes)
    t.same(await checkPool(rig.paths, { repair: true }), check)
    for (const [device, path] of rig.paths.entries())
      t.ok(readFileSync(path).equals(before[device]!), 'nothing is written')
  }
})

t.test('a check tells how far it is, up to the end', async (t) => {
  const { paths } = await workedRig(t, seedOf(), true)
  const told: [number, number][] = []
  await checkPool(paths, { onProgress: ({ donePages, totalPages }) => told.push([donePages, totalPages]) })
  const [done, total] = told.at(-1)!
  t.equal(done, total, `${told.length} times`)
  t.ok(total > 0)
})

t.test('a pool that is open is not checked', async (t) => {
  const rig = await PoolRig.create(t)
  const store = await rig.open({ lock: true })
  await t.rejects(checkPool(rig.paths), { code: 'POOL_OPEN' })
  await t.rejects(checkPool(rig.paths, { repair: true }), { code: 'POOL_OPEN' })
  await store.close()
  t.ok((await checkPool(rig.paths)).clean)
})

/** Offsets of all pages of metadata that are in use, by device. */
function metadataPages(geometry: Geometry, used: readonly UnitIndex[]): [device: number, offset: number][] {
  const pages: [number, number][] = []
  const { catalogOffset, catalogBytes } = geometry.head
  for (const offset of [...superblockOffsets, catalogOffset, catalogOffset + catalogBytes]) pages.push([0, offset])
  for (const layout of geometry.devices) {
    for (const offset of labelOffsets) pages.push([layout.index, offset])
    for (const copy of [0, 1] as const) {
      for (let page = 0; page < layout.mapPages; page += 1)
        pages.push([layout.index, mapPageOffset(layout, copy, page)])
    }
  }
  for (const index of used) {
    const device = geometry.deviceAt(index)
    for (const copy of [0, 1] as const) {
      pages.push([device, unitPageOffset(geometry.devices[device]!, copy, index - geometry.baseOf(device))])
    }
  }
  return pages
}

async function layoutOf(rig: PoolRig): Promise<{ geometry: Geometry; used: UnitIndex[] }> {
  const store = await rig.open()
  const used: UnitIndex[] = []
  store.units.layer.forEach((layer, index) => {
    if (layer !== 0) used.push(unitIndex(index))
  })
  await store.close()
  return { geometry: store.geometry, used }
}

t.test('any one damaged page of a closed pool is found, costs nothing, and is repaired', async (t) => {
  const seed = seedOf()
  t.comment(`seed ${seed}`)
  const random = seededRandom(seed)
  const rig = await workedRig(t, seed, true)
  const picture = await recoveredPicture(rig)
  const { geometry, used } = await layoutOf(rig)
  const restore = restorable(rig)
  for (const [device, offset] of metadataPages(geometry, used)) {
    if (offset >= geometry.devices[device]!.pagesOffset && random(3) > 0) continue
    if (random(2)) rig.zeroPage(device, offset)
    else rig.flipBit(device, offset + random(64), random(8))
    const where = `device ${device} at ${offset}`
    const found = await checkPool(rig.paths)
    if (found.clean || !found.usable) t.fail(`${where}: found ${textOf(found)}`)
    if (found.findings.some(({ severity }) => severity === 'error')) t.fail(`${where}: ${textOf(found)}`)
    const repaired = await checkPool(rig.paths, { repair: true })
    if (!repaired.clean || !repaired.findings.every((each) => each.repaired))
      t.fail(`${where}: left ${textOf(repaired)}`)
    t.strictSame(await recoveredPicture(rig), picture, where)
    restore()
  }
})

t.test('any one damaged page of a pool whose process was killed costs nothing', async (t) => {
  const seed = seedOf()
  t.comment(`seed ${seed}`)
  const random = seededRandom(seed)
  const rig = await workedRig(t, seed, false)
  const picture = await recoveredPicture(rig)
  const { geometry, used } = await layoutOf(rig)
  const restore = restorable(rig)
  for (const [device, offset] of metadataPages(geometry, used)) {
    if (offset >= geometry.devices[device]!.pagesOffset && random(3) > 0) continue
    rig.zeroPage(device, offset)
    const repaired = await checkPool(rig.paths, { repair: true })
    if (!repaired.clean) t.fail(`device ${device} at ${offset}: ${textOf(repaired)}`)
    if (repaired.findings.some(({ severity }) => severity === 'error')) t.fail(textOf(repaired))
    t.strictSame(await recoveredPicture(rig), picture, `device ${device} at ${offset}`)
    restore()
  }
})

t.test('a unit page of which both copies are damaged costs what it maps, by name, and the rest is saved', async (t) => {
  const rig = await PoolRig.create(t)
  const session = await PoolSession.open(rig)
  await session.createVolume('other', 100)
  await session.map('other', 1, 2, 3)
  await session.createVolume('v', 100)
  await session.map('v', 10, 11, 12, 13, 14, 15, 16, 17)
  const unit = session.state.units.unitsOf(session.topOf('v'))[0]!
  await session.map('v', 20, 21)
  await session.snapshot('v', 's')
  await session.map('v', 10)
  await session.close()
  const picture = await recoveredPicture(rig)
  for (const copy of [0, 1] as const) {
    const { device, offset } = rig.unitPageAt(session.store.geometry, unit, copy)
    rig.flipBit(device, offset + 100, 3)
  }
  const found = await checkPool(rig.paths)
  t.match(found, {
    clean: false,
    usable: true,
    findings: [{ severity: 'error', volumes: ['v', 'v@s'], repaired: false }],
  })
  t.match(
    textOf(found),
    /unit \d+: its page is damaged; up to 8 blocks of 4096 bytes are lost; 8 are not known by number/,
  )
  const repaired = await checkPool(rig.paths, { repair: true })
  t.match(repaired, { clean: true, usable: true, findings: [{ severity: 'error', repaired: true }] })
  const after = await recoveredPicture(rig)
  const frozen = `layer ${session.volume('v').snapshots[0]!.layer}`
  const blocksOf = (some: typeof after) => (some.get(frozen) as [number, number][]).map(([block]) => block)
  t.strictSame(blocksOf(picture), [10, 11, 12, 13, 14, 15, 16, 17, 20, 21])
  t.strictSame(blocksOf(after), [20, 21])
  after.delete(frozen)
  picture.delete(frozen)
  t.strictSame(after, picture)
})

t.test('of a damaged page the log’s part is saved; what an older copy names reads as zeros', async (t) => {
  const rig = await PoolRig.create(t)
  let session = await PoolSession.open(rig)
  await session.createVolume('v', 100)
  await session.map('v', ...Array.from({ length: 24 }, (_, at) => at))
  await session.snapshot('v', 's')
  await session.map('v', 3, 4)
  await session.checkpoint({ twice: true })
  const top = session.topOf('v')
  const unit = session.state.units.unitsOf(top)[0]!
  // The checkpoint before is spoilt, so what its copy says may be older than it should be.
  await session.map('v', 5)
  await session.checkpoint()
  await session.map('v', 6)
  await session.crash()
  const { geometry } = session.store
  const { copy } = session.store.units
  const named = rig.unitPageAt(geometry, unit, copy[unit] as 0 | 1)
  rig.zeroPage(named.device, named.offset)
  rig.zeroPage(0, superblockOffsets[session.store.units ? 1 - (superblockSlot(rig) as number) : 0]!)
  const found = await checkPool(rig.paths)
  t.match(found, { usable: false, clean: false })
  t.match(textOf(found), /up to 3 blocks of 4096 bytes are lost: 3, 4, which read as zeros; 1 are not known by number/)
  const repaired = await checkPool(rig.paths, { repair: true })
  t.ok(repaired.clean, textOf(repaired))
  session = await PoolSession.open(rig)
  t.match(session.state.holes.get(top)?.toExtents(), [3, 2], 'not as in the snapshot')
  t.ok(session.state.maps.get(top)!.has(blockIndex(6)))
  t.notOk(session.state.maps.get(top)!.has(blockIndex(3)))
  await session.close()
})

/** Of the newest superblock. */
function superblockSlot(rig: PoolRig): 0 | 1 {
  const sequence = (slot: 0 | 1) => rig.read(0, superblockOffsets[slot], pageBytes).readBigUInt64LE(32)
  return sequence(0) > sequence(1) ? 0 : 1
}

t.test('a page that only the newest checkpoint has is made again from the older one and the log', async (t) => {
  const rig = await PoolRig.create(t)
  const session = await PoolSession.open(rig)
  await session.createVolume('v', 100)
  await session.map('v', 1, 2, 3)
  await session.checkpoint()
  await session.checkpoint()
  await session.map('v', 4, 2)
  await session.checkpoint()
  await session.map('v', 5)
  await session.crash()
  const picture = await recoveredPicture(rig)
  const unit = session.state.units.unitsOf(session.topOf('v'))[0]!
  const { device, offset } = rig.unitPageAt(session.store.geometry, unit, session.store.units.copy[unit] as 0 | 1)
  rig.zeroPage(device, offset)
  await t.rejects(recoveredPicture(rig), { code: 'POOL_DAMAGED' })
  const found = await checkPool(rig.paths)
  t.match(found, { clean: false, usable: false, findings: [{ severity: 'warning', volumes: [] }] })
  const repaired = await checkPool(rig.paths, { repair: true })
  t.ok(repaired.clean && repaired.usable, textOf(repaired))
  t.strictSame(await recoveredPicture(rig), picture)
})

t.test('space of layers that nobody has is found and freed', async (t) => {
  const rig = await PoolRig.create(t)
  const store = await rig.open()
  const changes = [wholeChange(2, 7, [1, 2]), wholeChange(9, 7, [5])]
  const holes = new Map([[layerId(7), Float64Array.of(10, 5)]])
  await store.checkpoint(contentOf(store, { changes, holes, twice: true, clean: true }))
  await store.close()
  const found = await checkPool(rig.paths)
  t.match(textOf(found), /2 units, this one first, belong to layer 7, which does not exist: orphaned space/)
  t.match(textOf(found), /layer 7: it does not exist and has holes/)
  t.match(found, { clean: false, usable: true, allocatedBytes: 2 * 32 * 1024 })
  const repaired = await checkPool(rig.paths, { repair: true })
  t.match(repaired, { clean: true, allocatedBytes: 0, mappedBytes: 0 })
})

t.test('a block in two places, one beyond the end of its volume, and one that lost its place are found', async (t) => {
  const rig = await PoolRig.create(t)
  let session = await PoolSession.open(rig)
  await session.createVolume('v', 50)
  await session.map('v', 1, 2, 3)
  const top = session.topOf('v')
  const own = session.state.units.unitsOf(top)[0]!
  await session.checkpoint()
  const { catalog, holes } = session.store
  const changes = [wholeChange(own + 1, top, [2, 49, 50, 51])]
  const content = contentOf(session.store, { catalog, holes, changes, logSequence: session.sequence })
  await session.store.checkpoint({ ...content, clean: true, twice: true })
  await session.store.close()
  const found = await checkPool(rig.paths)
  t.match(textOf(found), /layer 2: blocks lie in two places, one of which is given up: 2 \[v\]/)
  t.match(textOf(found), /layer 2: blocks beyond the end of the volume take space: 50, 51 \[\]/)
  t.ok((await checkPool(rig.paths, { repair: true })).clean)
  session = await PoolSession.open(rig)
  t.equal(session.state.maps.get(top)!.size, 4)
  const { geometry } = session.store
  const taken = session.state.maps.get(top)!.get(blockIndex(1))!
  rig.appendLog(session.store, session.sequence, [nativeRecords.map(top, blockIndex(30), taken)])
  await session.crash()
  const displaced = await checkPool(rig.paths)
  t.match(textOf(displaced), /layer 2: blocks have lost their place to others: 1 \[v\]/)
  t.match(textOf(displaced), /slots are in use/)
  t.ok((await checkPool(rig.paths, { repair: true })).clean)
  t.ok(geometry.unitCount > 0)
})

t.test('a damaged record of the log is found; what came before it is kept', async (t) => {
  const rig = await PoolRig.create(t)
  const session = await PoolSession.open(rig)
  await session.createVolume('v', 100)
  await session.map('v', 1, 2)
  const at = session.sequence
  await session.map('v', 3, 4, 5)
  await session.crash()
  const { logOffset, logRecords } = session.store.geometry.head
  rig.flipBit(0, logOffset + (at % logRecords) * 32 + 17, 2)
  await t.rejects(recoveredPicture(rig), { code: 'POOL_DAMAGED', message: new RegExp(`record ${at} of the log`) })
  const found = await checkPool(rig.paths)
  t.match(found, { clean: false, usable: false, findings: [{ object: 'log', severity: 'error', volumes: ['v'] }] })
  t.match(textOf(found), /2 records behind it, up to \d+, are lost/)
  const repaired = await checkPool(rig.paths, { repair: true })
  t.ok(repaired.clean && repaired.usable, textOf(repaired))
  const blocks = (await recoveredPicture(rig)).get(`layer ${session.topOf('v')}`) as [number, number][]
  t.strictSame(
    blocks.map(([block]) => block),
    [1, 2],
  )
})

t.test('a record that does not go with the pages ends the log there', async (t) => {
  const rig = await PoolRig.create(t)
  const session = await PoolSession.open(rig)
  await session.createVolume('v', 100)
  await session.map('v', 1)
  const { geometry } = session.store
  const end = rig.appendLog(session.store, session.sequence, [encodeRelease(geometry.unitAt(unitIndex(40)))])
  rig.appendLog(session.store, end, [nativeRecords.commit(end)])
  await session.crash()
  await t.rejects(recoveredPicture(rig), { code: 'POOL_DAMAGED' })
  const found = await checkPool(rig.paths)
  t.match(found, { clean: false, usable: false })
  t.match(textOf(found), /\(release\) does not go with the pages.*given up/)
  t.ok((await checkPool(rig.paths, { repair: true })).clean)
  t.strictSame(((await recoveredPicture(rig)).get(`layer ${session.topOf('v')}`) as unknown[]).length, 1)
})

t.test('a pool without a whole checkpoint, or with a catalog that cannot be, is said to be lost', async (t) => {
  const rig = await PoolRig.create(t)
  const restore = restorable(rig)
  for (const offset of superblockOffsets) rig.zeroPage(0, offset)
  t.match(await checkPool(rig.paths, { repair: true }), { clean: false, usable: false })
  restore()
  const store = await rig.open()
  store.catalog.layers.set(layerId(1), layerId(2))
  store.catalog.layers.set(layerId(2), layerId(1))
  await store.checkpoint(contentOf(store, { clean: true, twice: true }))
  await store.close()
  const found = await checkPool(rig.paths, { repair: true })
  t.match(found, { clean: false, usable: false })
  t.match(textOf(found), /layer 1 is below itself/)
})

t.test('a repair that is cut short anywhere leaves a pool that the next one repairs', async (t) => {
  const seed = seedOf()
  t.comment(`seed ${seed}`)
  const random = seededRandom(seed)
  for (const closed of [true, false]) {
    const rig = await workedRig(t, seed, closed)
    const picture = await recoveredPicture(rig)
    const { geometry, used } = await layoutOf(rig)
    const pages = metadataPages(geometry, used)
    const restore = restorable(rig)
    for (let round = 0; round < 24; round += 1) {
      const [device, offset] = pages[random(pages.length)]!
      rig.zeroPage(device, offset)
      let steps = random(12)
      const onStep = (): void => {
        steps -= 1
        if (steps < 0) throw new Error('cut')
      }
      await checkPool(rig.paths, { repair: true, onStep }).catch((error) => t.match(error, /cut/))
      const repaired = await checkPool(rig.paths, { repair: true })
      if (!repaired.clean) t.fail(`device ${device} at ${offset}: ${textOf(repaired)}`)
      if (repaired.findings.some(({ severity }) => severity === 'error')) t.fail(textOf(repaired))
      t.strictSame(await recoveredPicture(rig), picture, `device ${device} at ${offset}`)
      restore()
    }
  }
})

t.test('random damage never makes the check fail; a repair ends clean or says what is lost', async (t) => {
  const seed = seedOf()
  t.comment(`seed ${seed}`)
  const random = seededRandom(seed)
  for (const closed of [true, false]) {
    const rig = await workedRig(t, random(2 ** 31), closed)
    const { geometry, used } = await layoutOf(rig)
    const restore = restorable(rig)
    const pages = metadataPages(geometry, used)
    for (let round = 0; round < 40; round += 1) {
      for (let count = 1 + random(12); count > 0; count -= 1) {
        const [device, offset] = pages[random(pages.length)]!
        if (random(2)) rig.zeroPage(device, offset)
        else rig.flipBit(device, offset + random(pageBytes), random(8))
      }
      const { logOffset } = geometry.head
      if (random(3) === 0) rig.flipBit(0, logOffset + random(2000) * 32, random(8))
      try {
        const repaired = await checkPool(rig.paths, { repair: true })
        if (!repaired.usable) t.match(textOf(repaired), /no checkpoint is whole|damaged/)
        else t.ok(repaired.clean, `round ${round}: ${textOf(repaired)}`)
        if (repaired.usable) await recoveredPicture(rig)
      } catch (error) {
        t.match(error, { code: /NOT_A_POOL_DEVICE|DEVICE_MISSING/ })
      }
      restore()
    }
  }
})
