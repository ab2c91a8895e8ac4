import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import t from 'tap'
import { applyOperation, type Catalog, volumeId } from '../../src/pool/catalog.js'
import { catalogText } from '../../src/pool/catalog-codec.js'
import { checkPool } from '../../src/pool/check.js'
import {
  labelOffsets,
  layerId,
  logSequence,
  noLayer,
  pageBytes,
  superblockOffsets,
  unitIndex,
} from '../../src/pool/geometry.js'
import type { CheckpointContent, CheckpointStep, MetadataStore } from '../../src/pool/metadata-store.js'
import { mapPageOffset } from '../../src/pool/tree-reader.js'
import { freeSlot, type UnitChange } from '../../src/pool/unit-page.js'
import { contentOf, freed, PoolRig, type Random, seededRandom, wholeChange } from '../fixtures/pool/pool-rig.js'

const steps: CheckpointStep[] = ['unit-pages', 'unit-map', 'catalog', 'sync', 'superblock', 'done']

/** What every unit holds, as plain data: what a store must say after each checkpoint. */
class Model {
  readonly units = new Map<number, { layer: number; blocks: number[] }>()
  logSequence = 0
  holes = new Map<number, number[]>()

  copy(): Model {
    return Object.assign(new Model(), structuredClone({ ...this }))
  }

  /** Change some units; what a checkpoint has to be told about it. */
  change(random: Random, unitCount: number, slots: number, count: number): UnitChange[] {
    const changes = new Map<number, UnitChange>()
    for (let round = 0; round < count; round += 1) {
      const index = random(unitCount)
      if (changes.has(index)) continue
      const old = this.units.get(index)
      const what = random(10)
      if (old && what < 2) {
        this.units.delete(index)
        changes.set(index, freed(index))
      } else if (!old || what < 4) {
        const blocks = Array.from({ length: slots }, () => (random(2) ? random(2 ** 31) * 2 ** 17 : freeSlot))
        blocks[random(slots)] = 5
        const unit = { layer: 1 + random(9), blocks }
        this.units.set(index, unit)
        const used = unit.blocks.filter((block) => block !== freeSlot).length
        const named = blocks.map((_, slot) => slot).filter((slot) => random(2) === 0 || blocks[slot] !== freeSlot)
        changes.set(index, {
          ...wholeChange(index, unit.layer, []),
          slots: named,
          blocks: named.map((slot) => blocks[slot]!),
          used,
        })
      } else {
        const unit = { layer: what < 6 ? 1 + random(9) : old.layer, blocks: [...old.blocks] }
        const named = [...new Set(Array.from({ length: random(4) }, () => random(slots)))]
        for (const slot of named) unit.blocks[slot] = random(3) ? random(1000) : freeSlot
        const used = unit.blocks.filter((block) => block !== freeSlot).length
        if (used === 0) continue
        this.units.set(index, unit)
        const blocks = named.map((slot) => unit.blocks[slot]!)
        changes.set(index, {
          index: unitIndex(index),
          layer: layerId(unit.layer),
          whole: false,
          slots: named,
          blocks,
          used,
        })
      }
    }
    this.holes = new Map([[3, [0, 1 + random(9), 20, random(2 ** 20) + 1]]])
    return [...changes.values()]
  }

  content(store: MetadataStore, changes: UnitChange[], twice = false): CheckpointContent {
    const holes = new Map([...this.holes].map(([layer, extents]) => [layerId(layer), Float64Array.from(extents)]))
    return contentOf(store, { changes, holes, logSequence: logSequence(this.logSequence), twice })
  }
}

/** Everything a store says, to be compared with a model. */
async function pictureOf(store: MetadataStore): Promise<Model> {
  const model = new Model()
  model.logSequence = store.logSequence
  for (const [layer, extents] of store.holes) model.holes.set(layer, [...extents])
  const used: number[] = []
  store.units.layer.forEach((layer, index) => {
    if (layer !== noLayer) used.push(index)
  })
  await store.readPages(used.map(unitIndex), ({ layer, blocks }, index) => {
    assert.equal(layer, store.units.layer[index])
    assert.equal(blocks.filter((block) => block !== freeSlot).length, store.units.used[index])
    model.units.set(index, { layer, blocks: [...blocks] })
  })
  return model
}

/** Unit maps and pages are compared, in any order. */
function isSame(a: Model, b: Model): boolean {
  const plain = (model: Model) => ({ ...model, units: [...model.units].sort(([x], [y]) => x - y) })
  try {
    assert.deepEqual(plain(a), plain(b))
    return true
  } catch {
    return false
  }
}

const seedOf = () => Number(process.env.SEED ?? randomInt(2 ** 31))

t.test('what checkpoints wrote is what is read, page by page', async (t) => {
  const seed = seedOf()
  t.comment(`seed ${seed}`)
  const random = seededRandom(seed)
  const rig = await PoolRig.create(t, { sizes: [40 * 2 ** 20, 12 * 2 ** 20] })
  const model = new Model()
  let store = await rig.open({ lock: true })
  for (let round = 0; round < 60; round += 1) {
    const { unitCount, blocksPerUnit } = store.geometry
    const before = model.logSequence
    model.logSequence += random(1000)
    const changes = model.change(random, unitCount, blocksPerUnit, random(200))
    const twice = random(5) === 0
    const { keepFrom } = await store.checkpoint(model.content(store, changes, twice))
    t.equal(keepFrom, twice ? model.logSequence : before)
    if (random(3) > 0) continue
    await store.close()
    store = await rig.open({ lock: true })
    t.strictSame(store.damage, [])
    t.ok(isSame(await pictureOf(store), model), `round ${round}`)
  }
  await store.close()
})

t.test('a checkpoint that is cut short anywhere, by a crash or a power cut, changed nothing', async (t) => {
  const seed = seedOf()
  t.comment(`seed ${seed}`)
  const random = seededRandom(seed)
  const rig = await PoolRig.create(t, { sizes: [24 * 2 ** 20] })
  const file = rig.paths[0]!
  let cutAt: CheckpointStep | undefined
  const onStep = (step: CheckpointStep): void => {
    if (step === cutAt) throw new Error('cut')
  }
  const model = new Model()
  let store = await rig.open({ lock: true, onStep })
  for (let round = 0; round < 60; round += 1) {
    const before = model.copy()
    const bytesBefore = readFileSync(file)
    model.logSequence += 1 + random(100)
    const changes = model.change(random, store.geometry.unitCount, store.geometry.blocksPerUnit, 1 + random(150))
    cutAt = round % 7 === 6 ? undefined : steps[round % 7]
    const done = store.checkpoint(model.content(store, changes))
    if (cutAt === undefined) await done
    else await t.rejects(done, /cut/)
    await t.rejects(cutAt === undefined ? Promise.reject(new Error('x')) : store.checkpoint(contentOf(store)), {
      message: cutAt === undefined ? 'x' : /POOL_FAILED/,
    })
    await store.close()
    if (cutAt !== undefined && random(2) === 0) mixPages(file, bytesBefore, cutAt, random)
    cutAt = undefined
    store = await rig.open({ lock: true, onStep })
    const picture = await pictureOf(store)
    const isNew = isSame(picture, model)
    t.ok(isNew || isSame(picture, before), `round ${round}, cut at ${steps[round % 7]}`)
    if (round % 7 === 6 || round % 7 === 5) t.ok(isNew, 'the superblock was written')
    else t.notOk(isNew)
    if (!isNew) Object.assign(model, before)
  }
  await store.close()
})

function changedSectors(one: Buffer, other: Buffer): number {
  let count = 0
  for (let at = 0; at < one.length; at += 512) {
    if (!one.subarray(at, at + 512).equals(other.subarray(at, at + 512))) count += 1
  }
  return count
}

/** A power cut: of what was not synced, some pages are there. What was synced before the step is. */
function mixPages(file: string, before: Buffer, step: CheckpointStep, random: Random): void {
  if (step === 'done') return
  const after = readFileSync(file)
  // 'superblock' comes before it is written.
  for (let at = 0; at < after.length; at += 512) {
    if (step !== 'superblock' && random(2) === 0) before.copy(after, at, at, at + 512)
  }
  writeFileSync(file, after)
}

t.test('a pool that dies between the two checkpoints of its closing is not damaged', async (t) => {
  for (const cutAt of steps) {
    const rig = await PoolRig.create(t)
    let checkpoints = 0
    const store = await rig.open({
      lock: true,
      onStep: (step) => {
        if (step === 'unit-pages') checkpoints += 1
        if (checkpoints === 2 && step === cutAt) throw new Error('cut')
      },
    })
    const content = contentOf(store, { changes: [wholeChange(3, 1, [7])], logSequence: logSequence(5) })
    await t.rejects(store.checkpoint({ ...content, clean: true, twice: true }), /cut/)
    await store.close()
    const { findings } = await checkPool(rig.paths)
    t.same(
      findings.filter(({ text }) => /damaged/.test(text)),
      [],
      `at ${cutAt}`,
    )
  }
})

t.test('a pool that was closed and dies in its first checkpoint is not damaged, after a power cut too', async (t) => {
  const seed = seedOf()
  t.comment(`seed ${seed}`)
  const random = seededRandom(seed)
  for (const cutAt of ['reopen', ...steps] as const) {
    const rig = await PoolRig.create(t)
    const closing = await rig.open()
    const content = contentOf(closing, { changes: [wholeChange(3, 1, [7])], logSequence: logSequence(5) })
    await closing.checkpoint({ ...content, clean: true, twice: true })
    await closing.close()
    const file = rig.paths[0]!
    let synced = readFileSync(file)
    const onStep = (step: CheckpointStep): void => {
      if (step === 'unit-pages') {
        const reopened = readFileSync(file)
        t.equal(changedSectors(synced, reopened), 1, 'one sector says that it is open: it cannot be torn')
        synced = reopened
      }
      if (step === cutAt) throw new Error('cut')
    }
    const store = await rig.open({ lock: true, onStep, bootId: Buffer.alloc(16, 7) })
    const more = contentOf(store, { changes: [wholeChange(4, 1, [8])], logSequence: logSequence(9) })
    await t.rejects(store.checkpoint(more), /cut/)
    await store.close()
    mixPages(file, synced, cutAt, random)
    const { findings } = await checkPool(rig.paths)
    t.same(
      findings.filter(({ text }) => /damaged/.test(text)),
      [],
      `at ${cutAt}`,
    )
  }
})

t.test('a torn superblock costs the checkpoint it stood for, and nothing else', async (t) => {
  const rig = await PoolRig.create(t)
  const store = await rig.open()
  await store.checkpoint(contentOf(store, { changes: [wholeChange(3, 1, [7])], logSequence: logSequence(5) }))
  const old = rig.read(0, superblockOffsets[0], pageBytes)
  const sequenceBefore = logSequence(5)
  await store.checkpoint(contentOf(store, { changes: [wholeChange(3, 1, [8])], logSequence: logSequence(9) }))
  await store.close()
  const torn = rig.read(0, superblockOffsets[0], pageBytes)
  t.notSame(torn, old)
  old.copy(torn, 64, 64)
  rig.write(0, superblockOffsets[0], torn)
  const again = await rig.open()
  t.equal(again.logSequence, sequenceBefore)
  t.match(again.damage, [{ where: 'device 0, superblock A', what: 'it is damaged' }])
  t.strictSame((await pictureOf(again)).units.get(3)?.blocks[0], 7)
  await again.close()
})

/** Offsets of pages of device 0, by what lies there. */
function pagesOf(store: MetadataStore): Record<string, number[]> {
  const layout = store.geometry.devices[0]!
  const { catalogOffset, catalogBytes } = store.geometry.head
  const maps = [0, 1].flatMap((copy) =>
    Array.from({ length: layout.mapPages }, (_, page) => mapPageOffset(layout, copy as 0 | 1, page)),
  )
  const units = Array.from({ length: 2 * layout.unitCount }, (_, page) => layout.pagesOffset + page * pageBytes)
  return {
    labels: [...labelOffsets],
    superblocks: [...superblockOffsets],
    catalogs: [catalogOffset, catalogOffset + catalogBytes],
    maps,
    units,
  }
}

async function damagedRig(t: Parameters<typeof PoolRig.create>[0], twice: boolean) {
  const rig = await PoolRig.create(t, { sizes: [24 * 2 ** 20] })
  const store = await rig.open()
  const random = seededRandom(7)
  const model = new Model()
  const models = new Map<number, Model>()
  for (let round = 0; round < 12; round += 1) {
    model.logSequence += 10
    const changes = model.change(random, store.geometry.unitCount, store.geometry.blocksPerUnit, 40)
    const last = round === 11
    await store.checkpoint(model.content(store, changes, last && twice))
    models.set(model.logSequence, model.copy())
  }
  await store.close()
  const bytes = readFileSync(rig.paths[0]!)
  return { rig, store, model, models, bytes }
}

t.test('any one damaged page costs nothing after a close: everything is there twice', async (t) => {
  const { rig, store, model } = await damagedRig(t, true)
  for (const [kind, offsets] of Object.entries(pagesOf(store))) {
    let noticed = 0
    // Enough of the many unit pages: one after the other takes minutes.
    for (const [at, offset] of offsets.entries()) {
      if (kind === 'units' && at % 9 !== 0) continue
      const old = rig.read(0, offset, pageBytes)
      rig.zeroPage(0, offset)
      const again = await rig.open()
      if (!isSame(await pictureOf(again), model)) t.fail(`${kind} at ${offset}`)
      if (again.damage.length > 0) noticed += 1
      await again.close()
      rig.write(0, offset, old)
    }
    // The older superblock and catalog are not looked at; the second copies of pages neither.
    const expected = { labels: 2, superblocks: 2, catalogs: 1, maps: offsets.length / 2, units: 0 }[kind]
    t.equal(noticed, expected, `${kind} are named`)
  }
})

t.test('a damaged superblock, catalog or map page costs a longer replay, a unit page what it maps', async (t) => {
  const { rig, store, model, models } = await damagedRig(t, false)
  const { labels, superblocks, catalogs, maps, units } = pagesOf(store)
  for (const offset of [...labels!, ...superblocks!, ...catalogs!, ...maps!]) {
    const old = rig.read(0, offset, pageBytes)
    rig.zeroPage(0, offset)
    const again = await rig.open()
    const expected = models.get(again.logSequence)
    t.ok(expected && isSame(await pictureOf(again), expected), `state as of ${again.logSequence}`)
    t.ok(again.logSequence >= model.logSequence - 10)
    await again.close()
    rig.write(0, offset, old)
  }
  let lost = 0
  for (const [at, offset] of units!.entries()) {
    if (at % 4 !== 0) continue
    const old = rig.read(0, offset, pageBytes)
    rig.zeroPage(0, offset)
    const again = await rig.open()
    t.strictSame(again.damage, [])
    const picture = await pictureOf(again).catch((error) => error)
    if (picture instanceof Model) t.ok(isSame(picture, model))
    else {
      lost += 1
      t.match(picture, { code: 'POOL_DAMAGED', object: /^device 0, unit \d+$/ })
    }
    await again.close()
    rig.write(0, offset, old)
  }
  t.ok(lost > 0 && lost <= 20, `${lost} pages changed since the checkpoint before`)
})

t.test('any one bit of any structure that flips is noticed', async (t) => {
  const { rig, store, model, models } = await damagedRig(t, false)
  const seed = seedOf()
  t.comment(`seed ${seed}`)
  const random = seededRandom(seed)
  const { labels, superblocks, catalogs, maps } = pagesOf(store)
  const used = {
    labels: [labels!, 120],
    superblocks: [superblocks!, 88],
    catalogs: [catalogs!, 300],
    maps: [maps!, 4096],
  } as const
  for (const [kind, [offsets, length]] of Object.entries(used)) {
    for (let round = 0; round < 60; round += 1) {
      const offset = offsets[round % offsets.length]! + random(length)
      const bit = random(8)
      rig.flipBit(0, offset, bit)
      const again = await rig.open()
      const expected = models.get(again.logSequence)
      if (!expected || !isSame(await pictureOf(again), expected)) t.fail(`${kind}: bit ${bit} at ${offset}`)
      await again.close()
      rig.flipBit(0, offset, bit)
    }
  }
  const again = await rig.open()
  t.ok(isSame(await pictureOf(again), model))
  await again.close()
})

t.test('a pool without a whole checkpoint is refused, and says what is damaged', async (t) => {
  const { rig, store } = await damagedRig(t, false)
  const { catalogs, superblocks, labels } = pagesOf(store)
  for (const offset of catalogs!) rig.zeroPage(0, offset)
  await t.rejects(rig.open(), { code: 'POOL_DAMAGED', message: /catalog A: it is damaged; device 0, catalog B/ })
  for (const offset of superblocks!) rig.zeroPage(0, offset)
  await t.rejects(rig.open(), { code: 'POOL_DAMAGED', message: /superblock A.*superblock B/ })
  for (const offset of labels!) rig.zeroPage(0, offset)
  await t.rejects(rig.open(), { code: 'NOT_A_POOL_DEVICE' })
})

t.test('devices of another pool, a copy of one, a missing and a shortened one are refused by name', async (t) => {
  const rig = await PoolRig.create(t, { sizes: [4 * 2 ** 20, 4 * 2 ** 20] })
  const other = await PoolRig.create(t)
  const [a, b] = rig.paths as [string, string]
  const open = (...paths: string[]) => Object.assign(Object.create(rig), { paths }).open()
  await t.rejects(open(a, b, other.paths[0]!), { code: 'FOREIGN_DEVICE', object: other.paths[0] })
  await t.rejects(open(a), { code: 'DEVICE_MISSING', hint: new RegExp(`number 1 is missing. It was added as ${b}`) })
  await t.rejects(open(b), { code: 'DEVICE_MISSING', object: /device 0/ })
  await t.rejects(open(), { code: 'NOT_A_POOL_DEVICE' })
  await t.rejects(open(a, `${b}x`), { code: 'NOT_FOUND' })
  writeFileSync(`${b}-copy`, readFileSync(b))
  await t.rejects(open(a, b, `${b}-copy`), { code: 'DUPLICATE_DEVICE' })
  writeFileSync(b, readFileSync(b).subarray(0, 3 * 2 ** 20))
  await t.rejects(open(a, b), { code: 'DEVICE_TOO_SMALL', object: b })
  writeFileSync(b, 'no pool')
  await t.rejects(open(a, b), { code: 'NOT_A_POOL_DEVICE', object: b })
})

t.test('a pool that somebody has open is refused, until that one lets go', async (t) => {
  const rig = await PoolRig.create(t)
  const first = await rig.open({ lock: true })
  await t.rejects(rig.open({ lock: true }), { code: 'POOL_OPEN' })
  await first.unlock()
  const second = await rig.open({ lock: true })
  await first.assertUnchanged()
  await second.checkpoint(contentOf(second))
  await t.rejects(first.assertUnchanged(), { code: 'POOL_OPEN' })
  await second.assertUnchanged()
  await first.close()
  await second.close()
})

t.test('clean and the boot are as of the last checkpoint', async (t) => {
  const rig = await PoolRig.create(t)
  let store = await rig.open()
  await store.checkpoint(contentOf(store, { clean: false }))
  t.match(await reopened(), { clean: false, afterPowerCut: false })
  await store.checkpoint(contentOf(store, { clean: true }))
  t.match(await reopened(), { clean: true })
  await store.close()

  async function reopened(): Promise<MetadataStore> {
    await store.close()
    store = await rig.open()
    return store
  }
})

t.test('pages can be read while checkpoints are written', async (t) => {
  const rig = await PoolRig.create(t, { sizes: [24 * 2 ** 20] })
  const store = await rig.open()
  const indices = Array.from({ length: 200 }, (_, index) => unitIndex(index))
  let round = 0
  const write = () => {
    round += 1
    const changes = indices.map((index) => wholeChange(index, 1, [round]))
    return store.checkpoint(contentOf(store, { changes, twice: round % 3 === 0 }))
  }
  await write()
  let reading = true
  const reader = async () => {
    let reads = 0
    for (; reading; reads += 1) {
      const seen: number[] = []
      await store.readPages(indices, (page) => seen.push(page.blocks[0]!))
      assert.equal(seen.length, indices.length)
      assert(seen.every((block) => block >= 1 && block <= round))
    }
    return reads
  }
  const reads = reader()
  for (let count = 0; count < 40; count += 1) await write()
  reading = false
  t.ok((await reads) > 5)
  await store.close()
})

t.test('a change that does not add up stops the checkpoint', async (t) => {
  for (const change of [{ ...wholeChange(1, 1, [5]), used: 2 }, wholeChange(1, 1, [freeSlot])]) {
    const rig = await PoolRig.create(t)
    const store = await rig.open()
    await t.rejects(store.checkpoint(contentOf(store, { changes: [change] })), assert.AssertionError)
    await store.close()
    const again = await rig.open()
    t.equal(again.units.layer[1], noLayer)
    await again.close()
  }
})

t.test('a catalog that has no room is refused, and the pool is as it was', async (t) => {
  const rig = await PoolRig.create(t)
  const store = await rig.open()
  const holes = new Map([[layerId(1), Float64Array.from({ length: 80_000 }, (_, at) => (at % 2 ? 1 : at + 1))]])
  const content = contentOf(store, { changes: [wholeChange(1, 1, [5])] })
  await t.rejects(store.checkpoint({ ...content, holes }), { code: 'CATALOG_FULL' })
  await store.checkpoint(content)
  await store.close()
  const again = await rig.open()
  t.equal(again.holes.size, 0)
  t.equal(again.units.layer[1], 1, 'the next one that fits is written')
  await again.close()
})

t.test('the catalog comes back with its volumes', async (t) => {
  const rig = await PoolRig.create(t)
  const store = await rig.open()
  const catalog: Catalog = store.catalog
  const at = '2024-05-01T00:00:00.000Z'
  applyOperation(catalog, {
    op: 'create-volume',
    volume: volumeId(1),
    layer: layerId(2),
    name: 'v',
    sizeBytes: 2 ** 40,
    createdAt: at,
    role: 'volume',
  })
  applyOperation(catalog, {
    op: 'snapshot',
    volume: volumeId(1),
    name: 's',
    layer: layerId(3),
    createdAt: at,
    hidden: false,
  })
  await store.checkpoint(contentOf(store))
  await store.close()
  const again = await rig.open()
  t.equal(catalogText(again.catalog), catalogText(catalog))
  await again.close()
})
