import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'
import t, { type Test } from 'tap'
import { StorageError } from '../../src/block/storage-error.js'
import { ImageCopies, type ImageCopiesOptions } from '../../src/volume/image-copies.js'
import { FakeThinPool, fakeThinVolumes } from '../fixtures/fake-thin-pool.js'
import { scratchFolder } from '../fixtures/paths.js'

const blockBytes = 65536
const blockCount = 24
const sizeBytes = blockCount * blockBytes + 4096

function rig(t: Test, more: Partial<ImageCopiesOptions> = {}) {
  const pool = new FakeThinPool(scratchFolder(t, 'images'))
  const volumes = fakeThinVolumes()
  const events: { code: string; text: string }[] = []
  const make = (): ImageCopies => {
    const copies = new ImageCopies({
      volumes,
      atBoundary: (_volume, action) => action(),
      holdEpoch: async () => async () => {},
      isRecorded: () => false,
      report: (event) => events.push(event),
      ...more,
    })
    t.teardown(() => copies.stop())
    return copies
  }
  return { pool, volumes, events, make }
}

/** Fills one block, or its half, with one value; 0 is zeros. */
function write(file: string, block: number, fill: number, lengthBytes = blockBytes): void {
  const fd = openSync(file, 'r+')
  writeSync(
    fd,
    Buffer.alloc(Math.min(lengthBytes, sizeBytes - block * blockBytes), fill),
    0,
    undefined,
    block * blockBytes,
  )
  closeSync(fd)
}

function equalsBase(pool: FakeThinPool, image: string): boolean {
  const { volume, base } = pool.volume(image).image!
  return readFileSync(pool.file(image)).equals(readFileSync(pool.file(volume, base)))
}

const hidden = (pool: FakeThinPool, volume: string): number =>
  pool.volume(volume).snapshots.filter((snapshot) => snapshot.hidden).length

t.test('an image equals its source, and a refresh copies what changed on either side', async (t) => {
  const { pool, make } = rig(t)
  const copies = make()
  await pool.createVolume('v', sizeBytes)
  for (const block of [0, 3, 4, blockCount]) write(pool.file('v'), block, 7)
  await copies.create(pool, 'i', 'v', null)
  t.match(copies.progress('i'), { doneBytes: 0 })
  t.equal(pool.volume('i').image!.complete, false, 'while it is copied')
  await copies.wait('i')
  t.ok(equalsBase(pool, 'i'))
  t.equal(pool.volume('i').image!.complete, true)
  t.equal(copies.progress('i'), null)

  write(pool.file('v'), 9, 1)
  write(pool.file('v'), 3, 0)
  write(pool.file('i'), 20, 5)
  write(pool.file('i'), 0, 5, 512)
  await copies.refresh(pool, 'i', null)
  await copies.wait('i')
  t.ok(equalsBase(pool, 'i'), 'what was written to the image is gone')
  t.same(readFileSync(pool.file('i')), readFileSync(pool.file('v')))
  t.same([hidden(pool, 'v'), hidden(pool, 'i')], [1, 1], 'nothing is kept beyond what the next one needs')
})

t.test('a refresh reads no more than what changed', async (t) => {
  const { pool, events, make } = rig(t)
  const copies = make()
  await pool.createVolume('v', sizeBytes)
  for (let block = 0; block < blockCount; block++) write(pool.file('v'), block, 7)
  await copies.create(pool, 'i', 'v', null)
  await copies.wait('i')
  write(pool.file('v'), 9, 1)
  write(pool.file('i'), 11, 1)
  await copies.refresh(pool, 'i', null)
  await copies.wait('i')
  t.match(
    events.map(({ text }) => text),
    [new RegExp(`${blockCount * blockBytes} bytes`), /131072 bytes/],
  )
})

t.test('refreshed from a snapshot of an operator, also an older one, also one made again under its name', async (t) => {
  const { pool, make } = rig(t)
  const copies = make()
  await pool.createVolume('v', sizeBytes)
  write(pool.file('v'), 1, 1)
  await pool.createSnapshot('v', 'one')
  write(pool.file('v'), 2, 2)
  await pool.createSnapshot('v', 'two')
  await copies.create(pool, 'i', 'v', 'one')
  await copies.wait('i')
  for (const name of ['two', 'one', 'two']) {
    await copies.refresh(pool, 'i', name)
    await copies.wait('i')
    t.ok(readFileSync(pool.file('i')).equals(readFileSync(pool.file('v', name))), name)
  }
  t.equal(hidden(pool, 'v'), 0)
  await pool.removeSnapshot('v', 'two')
  write(pool.file('v'), 2, 9)
  await pool.createSnapshot('v', 'two')
  await copies.refresh(pool, 'i', 'one')
  await copies.wait('i')
  t.ok(readFileSync(pool.file('i')).equals(readFileSync(pool.file('v', 'one'))), 'the new one is not taken for the old')
})

t.test('an image takes the size of its source, unless a stream records it', async (t) => {
  let recorded = false
  const { pool, make } = rig(t, { isRecorded: () => recorded })
  const copies = make()
  await pool.createVolume('v', sizeBytes)
  await copies.create(pool, 'i', 'v', null)
  await copies.wait('i')
  await pool.resizeVolume('v', sizeBytes + 4 * blockBytes)
  write(pool.file('v'), blockCount - 1, 3)
  recorded = true
  await t.rejects(copies.refresh(pool, 'i', null), { code: 'SIZE_CHANGED' })
  t.match(pool.volume('i').image, { complete: true }, 'and it is as it was')
  t.equal(hidden(pool, 'v'), 1)
  recorded = false
  await copies.refresh(pool, 'i', null)
  await copies.wait('i')
  t.ok(equalsBase(pool, 'i'))
  t.equal(pool.volume('i').sizeBytes, sizeBytes + 4 * blockBytes)
})

t.test('what cannot be refreshed is refused, and nothing of the attempt stays', async (t) => {
  const { pool, volumes, make } = rig(t)
  const copies = make()
  await pool.createVolume('v', sizeBytes)
  await t.rejects(copies.refresh(pool, 'v', null), { code: 'NOT_AN_IMAGE' })
  await t.rejects(copies.create(pool, 'v', 'v', null), { code: 'ALREADY_EXISTS' })
  await t.rejects(copies.create(pool, 'i', 'v', 'no'), { code: 'NO_SUCH_SNAPSHOT' })
  t.equal(hidden(pool, 'v'), 0)
  await copies.create(pool, 'i', 'v', null)
  await t.rejects(copies.refresh(pool, 'i', null), { code: 'COPY_RUNNING' })
  await copies.wait('i')
  volumes.device = '/dev/loop9'
  await t.rejects(copies.refresh(pool, 'i', null), { code: 'VOLUME_ATTACHED' })
  t.match(pool.volume('i').image, { complete: true })
  t.equal(hidden(pool, 'v'), 1)
})

t.test(
  'the epochs of an image that a stream sends are held while it is not whole, and let go when it failed',
  async (t) => {
    const log: string[] = []
    const holdEpoch = async (volume: string) => {
      log.push(`hold ${volume}`)
      return async () => void log.push(`let go ${volume} ${pool.volume(volume).image!.complete}`)
    }
    const { pool, events, make } = rig(t, { holdEpoch })
    const copies = make()
    await pool.createVolume('v', sizeBytes)
    await copies.create(pool, 'i', 'v', null)
    await copies.wait('i')
    t.same(log, ['hold i', 'let go i true'])
    pool.fail = (call) => {
      if (call.startsWith('diff')) throw new StorageError('POOL_FAILED', { op: 'x', object: 'p', hint: 'no' })
    }
    await copies.refresh(pool, 'i', null)
    await t.rejects(copies.wait('i'), { code: 'POOL_FAILED' })
    t.same(log.slice(2), ['hold i', 'let go i false'])
    t.match(events.at(-1), { code: 'IMAGE_COPY_FAILED' })
    pool.fail = () => {}
    await copies.refresh(pool, 'i', null)
    await copies.wait('i')
    t.ok(equalsBase(pool, 'i'))
  },
)

t.test('a pool that is nearly full refuses the mark, and the next refresh copies everything', async (t) => {
  const { pool, events, make } = rig(t)
  const copies = make()
  await pool.createVolume('v', sizeBytes)
  write(pool.file('v'), 1, 1)
  pool.fail = (call) => {
    if (call.startsWith('createSnapshot i')) {
      throw new StorageError('POOL_NEARLY_FULL', { op: 'x', object: 'p', hint: 'no' })
    }
  }
  await copies.create(pool, 'i', 'v', null)
  await copies.wait('i')
  t.match(pool.volume('i').image, { complete: true, own: null })
  t.ok(events.some(({ code }) => code === 'IMAGE_UNTRACKED'))
  pool.fail = () => {}
  write(pool.file('i'), 5, 5)
  await copies.refresh(pool, 'i', null)
  await copies.wait('i')
  t.ok(equalsBase(pool, 'i'))
})

t.test('before a volume is removed, nothing hidden holds it back', async (t) => {
  const { pool, make } = rig(t)
  const copies = make()
  await pool.createVolume('v', sizeBytes)
  for (const image of ['i', 'i-2']) {
    await copies.create(pool, image, 'v', null)
    await copies.wait(image)
  }
  t.equal(hidden(pool, 'v'), 2)
  await copies.forget(pool, 'i')
  await pool.removeVolume('i')
  t.equal(hidden(pool, 'v'), 1, 'the other image keeps its own')
  await copies.forget(pool, 'v')
  await pool.removeVolume('v')
  t.equal(pool.volume('i-2').image, null, 'a volume like any other')
  await copies.forget(pool, 'i-2')
  await pool.removeVolume('i-2')
})

t.test('whatever is interrupted wherever, an image that says it is complete equals its base', async (t) => {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31))
  t.comment(`seed ${seed}`)
  const random = generator(seed)
  const pick = (limit: number): number => Math.floor(random() * limit)
  const { pool, make } = rig(t)
  await pool.createVolume('v', sizeBytes)
  for (let block = 0; block < blockCount; block += 2) write(pool.file('v'), block, 100)
  let copies = make()
  await copies.create(pool, 'i', 'v', null)
  await copies.wait('i')
  let { own } = pool.volume('i').image!
  let refreshes = 0
  for (let round = 0; round < 60; round++) {
    for (let n = pick(6); n > 0; n--) write(pool.file('v'), pick(blockCount + 1), pick(4), pick(2) ? blockBytes : 4096)
    for (let n = pick(4); n > 0; n--) write(pool.file('i'), pick(blockCount + 1), pick(4), pick(2) ? blockBytes : 4096)
    const named = pick(3) === 0
    if (named) {
      if (pool.volume('v').snapshots.some(({ name }) => name === 's')) await pool.removeSnapshot('v', 's')
      await pool.createSnapshot('v', 's')
    }
    let left = pick(14)
    pool.fail = () => {
      if (left-- <= 0) throw new Error('killed')
    }
    const refreshed = copies.refresh(pool, 'i', named ? 's' : null).then(() => copies.wait('i'))
    await refreshed.catch(() => undefined)
    await copies.stop()
    pool.fail = () => {}
    copies = make()
    await copies.resume(pool)
    await copies.wait('i')
    const { image } = pool.volume('i')
    t.ok(image!.complete, `round ${round}`)
    // What was interrupted before anything was recorded leaves the image with what its host wrote.
    if (image!.own !== own && !equalsBase(pool, 'i')) return t.fail(`round ${round} of seed ${seed}`)
    refreshes += image!.own === own ? 0 : 1
    own = image!.own
    t.ok(hidden(pool, 'v') <= 1 && hidden(pool, 'i') === 1, 'nothing hidden is left')
  }
  t.ok(refreshes > 20, `${refreshes} refreshes came to their end`)
})

function generator(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32
  }
}
