import { mkdirSync, readFileSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { MiB } from '../../src/block/units.js'
import { Backing } from '../../src/volume/backing.js'
import { createBacking, inspectBacking } from '../../src/volume/backing-checks.js'
import { GatheredWrites } from '../../src/volume/gathered-writes.js'
import { scratchFolder } from '../fixtures/paths.js'
import { newSeed, Random } from '../pool/model/random.js'

t.test('a backing reads what was written, zeros where it was zeroed, and tells its holes', async (t) => {
  const file = join(scratchFolder(t, 'backing'), 'f')
  writeFileSync(file, Buffer.alloc(3 * 65536, 1))
  const backing = new Backing(file, 'write')
  t.teardown(() => backing.close())
  backing.write(512, Buffer.alloc(1024, 2))
  backing.zero(65536, 65536)
  backing.sync()
  const expected = Buffer.alloc(3 * 65536, 1)
    .fill(2, 512, 1536)
    .fill(0, 65536, 131072)
  t.ok(readFileSync(file).equals(expected))
  const beyond = Buffer.alloc(1024, 9)
  backing.read(3 * 65536 - 512, beyond)
  t.ok(beyond.equals(Buffer.concat([Buffer.alloc(512, 1), Buffer.alloc(512)])), 'beyond the end are zeros')
  t.equal(backing.nextData(65536), 131072)
  t.equal(backing.nextData(0), 0)
  t.ok(statSync(file).blocks * 512 < 3 * 65536, 'and the space is free')
  const unavailable = { code: 'BACKING_UNAVAILABLE', retry: 'later' }
  t.throws(() => new Backing(join(file, 'no'), 'read'), unavailable)
})

t.test('what cannot be a volume is refused, and creating leaves nothing behind', async (t) => {
  const folder = scratchFolder(t, 'checks')
  const state = join(folder, 'state')
  mkdirSync(join(state, 'buffer'), { recursive: true })
  const inside = join(state, 'buffer/v')
  symlinkSync(state, join(folder, 'link'))
  await t.rejects(createBacking(inside, 4096, [state], false), { code: 'PATH_IN_BUFFER' })
  await t.rejects(createBacking(join(folder, 'link/v'), 4096, [state], false), { code: 'PATH_IN_BUFFER' })
  await t.rejects(createBacking(join(folder, 'no/v'), 4096, [state], false), { code: 'NOT_FOUND' })
  await t.rejects(inspectBacking('volume adopt', folder, [state]), { code: 'NOT_A_FILE_OR_BLOCK_DEVICE' })
  await t.rejects(inspectBacking('volume adopt', '/dev/null', [state]), { code: 'NOT_A_FILE_OR_BLOCK_DEVICE' })
  const made = await createBacking(join(folder, 'v'), 8192, [state], false)
  t.match(made, { kind: 'file', sizeBytes: 8192 })
  t.equal(statSync(made.path).size, 8192)
  await t.rejects(createBacking(made.path, 8192, [state], true), { code: 'ALREADY_EXISTS' })
  truncateSync(made.path, 1000)
  await t.rejects(inspectBacking('volume adopt', made.path, [state]), { code: 'BAD_SIZE' })
  t.equal(statSync(made.path).size, 1000, 'untouched')
})

t.test('gathered writes end as if each had been written in its turn', async (t) => {
  const seed = newSeed()
  const random = new Random(seed)
  t.comment(`seed ${seed}`)
  const sizeBytes = 4 * MiB
  const file = join(scratchFolder(t, 'backing'), 'f')
  const expected = Buffer.alloc(sizeBytes)
  writeFileSync(file, expected)
  const backing = new Backing(file, 'write')
  t.teardown(() => backing.close())
  const writes = new GatheredWrites(backing)
  for (let count = 0; count < 5000; count++) {
    // Often the same place, sometimes across another, at times in a large one.
    const lengthBytes = 512 * random.pick([1, 1, 8, 8, 8, 9, 64, 600])
    const step = random.pick([512, 4096, 65_536])
    const offset = step * random.between(0, Math.floor((sizeBytes - lengthBytes) / step))
    const bytes = random.chance(0.05) ? undefined : Buffer.alloc(lengthBytes, 1 + (count % 255))
    if (bytes) writes.write(offset, bytes)
    else writes.zero(offset, lengthBytes)
    if (bytes) expected.set(bytes, offset)
    else expected.fill(0, offset, offset + lengthBytes)
    if (!random.chance(0.002)) continue
    writes.flush()
    t.ok(readFileSync(file).equals(expected), `${count}`)
  }
  writes.sync()
  t.ok(readFileSync(file).equals(expected))
})

t.test('of writes that are gathered each is tried, and the failure of one is told', async (t) => {
  const file = join(scratchFolder(t, 'backing'), 'f')
  writeFileSync(file, '')
  const backing = new Backing(file, 'write')
  t.teardown(() => backing.close())
  const writes = new GatheredWrites(backing)
  writes.write(2 ** 62, Buffer.alloc(512, 1))
  writes.write(0, Buffer.alloc(512, 2))
  t.throws(() => writes.flush(), { code: 'BACKING_UNAVAILABLE', message: /File too large/ })
  t.ok(readFileSync(file).equals(Buffer.alloc(512, 2)))
  // Who overlaps, is large, or zeros finds out, and is done nevertheless.
  for (const [fill, act] of [
    [3, () => writes.write(0, Buffer.alloc(4096, 3))],
    [4, () => writes.write(0, Buffer.alloc(MiB, 4))],
    [0, () => writes.zero(0, MiB)],
  ] as const) {
    writes.write(2 ** 62, Buffer.alloc(512, 1))
    writes.write(0, Buffer.alloc(512, 2))
    t.throws(act, { code: 'BACKING_UNAVAILABLE' })
    writes.flush()
    t.equal(readFileSync(file)[0], fill)
  }
  writes.sync()
})
