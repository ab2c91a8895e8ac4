import { spawnSync } from 'node:child_process'
import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { crc32c } from '../../src/block/crc32c.js'
import { StateLog } from '../../src/daemon/state-log.js'
import { encodeStateRecord, readState } from '../../src/daemon/state-record.js'
import { repositoryRoot, scratchFolder } from '../fixtures/paths.js'
import { mountSmallDisk } from '../fixtures/small-disk.js'
import { goldenState, makeGoldenCopiedState, makeGoldenState } from '../fixtures/state-golden.js'
import { newSeed, Random } from '../pool/model/random.js'

const golden = readFileSync(join(repositoryRoot, 'test/fixtures/golden-v1.state'))
const copied = readFileSync(join(repositoryRoot, 'test/fixtures/golden-v1-copy.state'))
const sector = 512

const filesOf = (folder: string): Buffer[] => [0, 1].map((file) => readFileSync(join(folder, `state.${file}`)))

const generationOf = (bytes: Buffer): bigint => (bytes.length > 16 ? bytes.readBigUInt64LE(8) : 0n)

function valuesOf(files: readonly Buffer[]): Record<string, unknown> | undefined {
  const image = readState(files, 'state')
  return image && Object.fromEntries([...image.entries].map(([key, json]) => [key, JSON.parse(json)]))
}

t.test('the golden file is read as it always was, and written so', (t) => {
  t.same(valuesOf([Buffer.alloc(0), golden]), goldenState)
  t.same(makeGoldenState(), golden)
  t.same(valuesOf([Buffer.alloc(0), copied]), goldenState)
  t.same(makeGoldenCopiedState(), copied)
  t.end()
})

t.test('what was put is there after the process is killed', async (t) => {
  const folder = scratchFolder(t, 'state')
  const script = `import { StateLog } from ${JSON.stringify(new URL('../../src/daemon/state-log.js', import.meta.url).href)}
    const store = await StateLog.open(${JSON.stringify(folder)})
    for (let n = 1; n <= 50; n++) await store.put({ ['k/' + n]: { n }, last: n })
    await store.remove(['k/7'])
    process.kill(process.pid, 'SIGKILL')`
  t.equal(spawnSync(process.execPath, ['--input-type=module', '-e', script]).signal, 'SIGKILL')
  const store = await StateLog.open(folder)
  t.equal(store.get('last'), 50)
  t.equal(store.list('k/').length, 49)
  t.equal(store.get('k/7'), undefined)
  await store.close()
  for (const file of [0, 1]) t.equal(statSync(join(folder, `state.${file}`)).mode & 0o777, 0o600)
})

t.test(
  'a power cut in any commit, also in one that begins the other file, leaves the state before it or after it',
  async (t) => {
    const folder = scratchFolder(t, 'state-cut')
    const random = new Random(newSeed())
    t.comment(`seed ${random.seed}`)
    let store = await StateLog.open(folder)
    const expected: Record<string, unknown> = {}
    let files = filesOf(folder)
    let turns = 0
    for (let commit = 0; commit < 400; commit++) {
      const before = { ...expected }
      const key = `k/${random.below(12)}`
      if (random.chance(0.2)) {
        delete expected[key]
        await store.remove([key])
      } else {
        expected[key] = `TMST${'x'.repeat(random.below(60_000))}`
        await store.put({ [key]: expected[key] })
      }
      const now = filesOf(folder)
      const turned = now.some((bytes, file) => generationOf(bytes) !== generationOf(files[file]!))
      if (turned) turns++
      for (let cut = 0; cut < 12 && (turned || commit % 15 === 0); cut++) {
        const found = valuesOf(now.map((bytes, file) => tear(files[file]!, bytes, random)))
        if (JSON.stringify(found) !== JSON.stringify(before)) t.same(found, expected, `commit ${commit}, cut ${cut}`)
      }
      files = now
      if (!random.chance(0.02)) continue
      await store.close()
      store = await StateLog.open(folder)
      t.same(Object.fromEntries(store.list('').map(({ key, value }) => [key, value])), expected)
    }
    await store.close()
    t.ok(turns > 3, `the files took turns ${turns} times`)
  },
)

t.test('what the disk has changed is not taken for an older state', (t) => {
  const first = encodeStateRecord(4n, 0n, [['a', '1']])
  const second = encodeStateRecord(4n, 1n, [['a', '2']])
  const third = encodeStateRecord(4n, 2n, [['a', '3']])
  const old = Buffer.concat([encodeStateRecord(3n, 0n, []), encodeStateRecord(3n, 1n, [['a', '0']])])
  const whole = Buffer.concat([first, second, third, Buffer.alloc(100)])
  t.same(valuesOf([whole, old]), { a: 3 })
  for (let at = 0; at < first.length + second.length; at++) {
    const bytes = Buffer.from(whole)
    bytes[at] = bytes[at]! ^ 0x10
    t.throws(() => valuesOf([bytes, old]), { code: 'STATE_DAMAGED' }, `byte ${at}`)
  }
  const last = Buffer.from(whole)
  last[first.length + second.length + 20] = 0xff
  t.same(valuesOf([last, old]), { a: 2 }, 'the last one may be torn')
  t.throws(() => valuesOf([Buffer.from('nonsense'), Buffer.alloc(9)]), { code: 'STATE_DAMAGED' })
  const newer = Buffer.from(first)
  newer.writeUInt32LE(2, 24)
  newer.writeUInt32LE(crc32c(newer.subarray(8)), 4)
  t.throws(() => valuesOf([newer, old]), { code: 'STATE_TOO_NEW' }, 'a newer agent has written it')
  t.end()
})

t.test('a bit that flips in the last record, or in its copy, takes nothing back', async (t) => {
  const folder = scratchFolder(t, 'state-flip')
  const store = await StateLog.open(folder)
  const check = (what: string): void => {
    const files = filesOf(folder)
    const { file, tail } = readState(files, 'state')!
    const bytes = files[file]!
    const last = bytes.lastIndexOf('TMST', tail)
    const copy = Math.ceil(tail / 4096) * 4096
    const expected = valuesOf(files)
    for (const from of [last, copy]) {
      const step = Math.ceil((tail - last) / 150)
      for (let done = 0; done < tail - last; done += step) {
        const flipped = [...files]
        flipped[file] = Buffer.from(bytes)
        flipped[file]![from + done]! ^= 1 << (done % 8)
        t.same(valuesOf(flipped), expected, `${what}: byte ${from + done}`)
      }
    }
    const lost = [...files]
    lost[file] = Buffer.from(bytes).fill(0, last, tail)
    t.same(valuesOf(lost), expected, `${what}: all of it`)
  }
  await store.put({ a: 1, filler: 'x'.repeat(5000) })
  check('the first commit')
  await store.put({ a: 2 })
  check('a short one')
  const before = readState(filesOf(folder), 'state')!.generation
  for (let n = 0; readState(filesOf(folder), 'state')!.generation === before; n++)
    await store.put({ a: n, filler: `${n}${'x'.repeat(30_000)}` })
  const { sequence } = readState(filesOf(folder), 'state')!
  t.equal(sequence, 1n, 'all there is, in the other file')
  check('a turn')
  await store.close()
})

t.test('what only its copy has is written back, before the next commit takes the place of that copy', async (t) => {
  const folder = scratchFolder(t, 'state-mend')
  let store = await StateLog.open(folder)
  await store.put({ a: 1 })
  await store.close()
  const path = join(folder, 'state.0')
  const bytes = readFileSync(path)
  const last = bytes.lastIndexOf('TMST')
  const copy = bytes.indexOf('TMSC')
  bytes[last + 20]! ^= 1
  writeFileSync(path, bytes)
  store = await StateLog.open(folder)
  t.equal(store.get('a'), 1)
  await store.put({ b: 'x'.repeat(10_000) })
  await store.close()
  t.not(readFileSync(path).indexOf('TMSC'), copy, 'the copy is gone')
  t.match(valuesOf(filesOf(folder)), { a: 1, b: /^x+$/ })
})

t.test(
  'a full disk: what fits in the room there is goes on being recorded; the rest is refused, and works again',
  async (t) => {
    const { directory, unmount } = await mountSmallDisk(4 * 2 ** 20)
    t.teardown(unmount)
    const store = await StateLog.open(directory)
    t.teardown(() => store.close())
    const filler = join(directory, 'filler')
    fill(filler)
    for (let n = 0; n < 4000; n++) await store.put({ last: n, [`k/${n % 10}`]: 'x'.repeat(1000) })
    t.equal(store.get('last'), 3999, 'and both files were begun several times')
    let refused: unknown
    for (let n = 0; n < 40 && !refused; n++) {
      await store.put({ [`large/${n}`]: 'x'.repeat(100_000), count: n + 1 }).catch((error) => {
        refused = error
      })
    }
    t.match(refused, { code: 'STATE_UNAVAILABLE', retry: 'later' })
    const count = store.get<number>('count')!
    t.equal(store.list('large/').length, count, 'what was refused is not there')
    t.same(valuesOf(filesOf(directory))?.count, count, 'on the disk either')
    rmSync(filler)
    await store.put({ [`large/${count}`]: 'x'.repeat(100_000), count: count + 1 })
    t.same(valuesOf(filesOf(directory))?.count, count + 1)
  },
)

t.test('calls that come together are one commit, in their order', async (t) => {
  const folder = scratchFolder(t, 'state-order')
  const store = await StateLog.open(folder)
  const calls = Array.from({ length: 200 }, (_, n) => (n % 3 === 2 ? store.remove(['k']) : store.put({ k: n })))
  await Promise.all(calls)
  t.equal(store.get('k'), 199)
  const { sequence } = readState(filesOf(folder), 'state')!
  t.ok(sequence < 5n, `${sequence} records`)
  await store.close()
})

/** Of each sector the old or the new, as a disk that loses power has them. */
function tear(old: Buffer, now: Buffer, random: Random): Buffer {
  const torn = Buffer.alloc(now.length)
  old.copy(torn)
  const share = random.pick([0, 0.1, 0.5, 0.9, 1])
  for (let at = 0; at < now.length; at += sector) if (random.chance(share)) now.copy(torn, at, at, at + sector)
  return torn
}

function fill(file: string): void {
  for (let bytes = 2 ** 20; bytes >= 4096; ) {
    try {
      writeFileSync(file, Buffer.alloc(bytes, 1), { flag: 'a' })
    } catch {
      bytes /= 2
    }
  }
}
