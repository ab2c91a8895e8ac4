/**
 * A bit that flips on the far image's own disk (R34) is found, named and sent again while hosts write; nothing else is ever
 * called different, whatever hosts, kills and restarts do meanwhile.
 */
import { execFile } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { type FileHandle, open, truncate } from 'node:fs/promises'
import { request } from 'node:http'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import type { StreamView, VerifyView } from '../../src/api/agent-operations.js'
import { KiB, MiB } from '../../src/block/units.js'
import { Agent, delay, flush, mirror, pair } from '../fixtures/agent.js'
import { startFio } from '../fixtures/fio.js'
import { remember } from '../fixtures/leftovers.js'
import { scratchFolder } from '../fixtures/paths.js'
import { difference, farPath, type Sites, twoSites } from '../fixtures/sites.js'
import { stampVerify, startStamp } from '../fixtures/stamp.js'
import { farPool, thinVolume, twoThinSites } from '../fixtures/thin-sites.js'
import { newSeed, Random } from '../pool/model/random.js'

const run = promisify(execFile)
const seed = newSeed()
const random = new Random(seed)
t.comment(`seed ${seed} (SEED=${seed} repeats its choices)`)
const isLong = process.env.TORTURE_ROUNDS !== undefined
const blockBytes = 64 * KiB
const stampedBlocks = (16 * MiB) / 4096
const load = { threads: 3, sizes: '512-65536', rate: 300, seconds: 600, fsyncEvery: 20, blocks: stampedBlocks }

/** Change one bit of a file, or of what lies below one, durably. */
async function flip(path: string, at: number): Promise<void> {
  const file = await open(path, 'r+')
  try {
    const one = Buffer.alloc(1)
    await file.read(one, 0, 1, at)
    one[0]! ^= 1 << random.below(8)
    await file.write(one, 0, 1, at)
    await file.sync()
  } finally {
    await file.close()
  }
}

async function verified(sites: Sites, name: string, ...options: string[]): Promise<VerifyView> {
  const { json, stdout } = await sites.source.run('stream', 'verify', name, '--wait', ...options)
  const view = (json ?? (stdout.startsWith('{') ? JSON.parse(stdout) : undefined)) as StreamView | undefined
  return view?.verify ?? (await sites.source.streamStatus(name)).verify!
}

/** The same without a command, which takes longer than the comparison: begun through the API, and looked at until it is over. */
async function verifiedAtOnce({ source }: Sites, name: string): Promise<VerifyView> {
  const body = JSON.stringify({ repair: false })
  const headers = { host: 'localhost', 'content-type': 'application/json', 'content-length': body.length }
  const path = `/v1/streams/${name}/verify`
  const code = await new Promise<number | undefined>((resolve, reject) => {
    const sent = request({ socketPath: source.socket, path, method: 'POST', agent: false, headers }, (response) => {
      response.resume()
      response.on('end', () => resolve(response.statusCode))
    })
    sent.on('error', reject)
    sent.end(body)
  })
  if (code !== 200) throw new Error(`POST ${path}: ${code}`)
  for (;;) {
    const { verify } = await source.streamStatus(name)
    if (verify && verify.state !== 'comparing') return verify
    await delay(20)
  }
}

/** Exactly these blocks, as they are named. */
const blocksOf = (volume: string, places: readonly number[]) =>
  [...new Set(places.map((at) => at - (at % blockBytes)))]
    .sort((a, b) => a - b)
    .map((offset) => ({ volume, offset, lengthBytes: blockBytes }))

/** Overlapping writes of all sizes, and trims of the same places, by hosts that know nothing of one another. */
function churn(device: string, offset: number, size: number) {
  const common = { offset, size, time_based: true, runtime: 600, norandommap: true } as const
  const jobs = [
    startFio(device, { ...common, rw: 'randwrite', bssplit: '512/30:4k/40:64k/20:512k/10', rate_iops: 250 }),
    startFio(device, { ...common, rw: 'randwrite', bs: '4k', rate_iops: 250, zero_buffers: true }),
    startFio(device, { ...common, rw: 'randtrim', bssplit: '4k/80:64k/18:1m/2', rate_iops: 200, iodepth: 4 }),
  ]
  return { stop: () => Promise.all(jobs.map((job) => job.stop())) }
}

/** The destination's state on a file system of its own: what lies below an image can be changed behind its page cache. */
async function sitesAboveDisk(test: Test): Promise<Sites & { readonly disk: string }> {
  const folder = scratchFolder(test, 'verify')
  const disk = join(folder, 'disk.img')
  const state = join(folder, 'destination')
  writeFileSync(disk, '')
  await truncate(disk, 512 * MiB)
  mkdirSync(state)
  await run('mkfs.ext4', ['-q', disk])
  await run('mount', ['-o', 'loop', disk, state])
  remember({ kind: 'folder', path: folder })
  const source = await Agent.start(test, folder, 'source')
  const destination = await Agent.start(test, folder, 'destination')
  mkdirSync(join(folder, 'between'))
  await pair(source, destination, { via: 'folder', folder: join(folder, 'between') })
  test.teardown(async () => {
    await destination.stop()
    await run('umount', ['-l', state]).catch(() => undefined)
  })
  return { folder, source, destination, disk }
}

/** Where a byte of a file lies on the disk below its file system. */
async function placeOnDisk(file: string, at: number): Promise<number> {
  const { stdout } = await run('filefrag', ['-v', '-b512', file])
  const sector = Math.floor(at / 512)
  for (const [, first, last, physical] of stdout.matchAll(/^\s*\d+:\s+(\d+)\.\.\s*(\d+):\s+(\d+)\.\./gm)) {
    if (sector < Number(first) || sector > Number(last)) continue
    return (Number(physical) + sector - Number(first)) * 512 + (at % 512)
  }
  throw new Error(`${file} has a hole at ${at}: ${stdout}`)
}

async function readThrough(path: string): Promise<void> {
  const file: FileHandle = await open(path, 'r')
  const buffer = Buffer.alloc(MiB)
  while ((await file.read(buffer, 0, MiB, null)).bytesRead > 0);
  await file.close()
}

const writeRandom = (device: string, seek: number, count: number) =>
  run('dd', [
    'if=/dev/urandom',
    `of=${device}`,
    'bs=1M',
    `seek=${seek}`,
    `count=${count}`,
    'oflag=direct',
    'status=none',
  ])

t.jobs = 2

t.test(
  'R34: a bit flipped on the disk below the far image is found behind its page cache, named and repaired',
  async (t) => {
    const sites = await sitesAboveDisk(t)
    const { folder, source, destination, disk } = sites
    const name = 'verify-flipped'
    const { device } = await source.volume(folder, name, '80MiB')
    await writeRandom(device, 16, 48)
    await mirror(source, name, [name])
    const log = join(folder, 'stamps')
    const writer = startStamp(device, log, { ...load, seed })
    const image = await farPath(sites, name)
    t.match(await verified(sites, name), { state: 'equal', doneBytes: 80 * MiB, mismatches: [] }, 'before')
    const places = [20, 41, 63].map((mib) => mib * MiB + random.below(MiB))
    await readThrough(image)
    await run('sync', ['-f', image])
    for (const at of places) await flip(disk, await placeOnDisk(image, at))
    await readThrough(image)
    const named = blocksOf(name, places)
    const reported = await verified(sites, name, '--no-repair')
    t.match(reported, { state: 'differs', mismatchedBytes: named.length * blockBytes, repair: false })
    t.strictSame(reported.mismatches, named, 'exactly those blocks')
    t.strictSame((await verified(sites, name, '--no-repair')).mismatches, named, 'which were left as they are')
    const repaired = await verified(sites, name)
    t.match(repaired, { state: 'repaired', mismatchedBytes: named.length * blockBytes })
    t.strictSame(repaired.mismatches, named)
    t.match(await verified(sites, name), { state: 'equal', mismatches: [] }, 'afterwards')
    t.equal((await writer.stop()).errno, 0, 'hosts see nothing')
    await flush(source, name)
    await run('sync', ['-f', image])
    writeFileSync('/proc/sys/vm/drop_caches', '1')
    t.equal(await difference(device, image), '', 'both sides are equal, on their disks')
    t.match(stampVerify(image, log, { requireAll: true, blocks: load.blocks }), { ok: true })
    t.match(await source.streamStatus(name), { state: 'replicating', generation: 1 }, 'no new copy')
    const codes = (await source.events()).map(({ code }) => code)
    for (const code of ['FAR_SIDE_DIFFERS', 'VERIFY_DIFFERS', 'FAR_SIDE_REPAIR', 'VERIFY_REPAIRED'])
      t.ok(codes.includes(code), code)
    const told = (await destination.events()).filter(({ code }) => code === 'IMAGE_DIFFERS')
    t.ok(
      told.some(({ text }) => text.includes(`${name} at byte ${named[0]!.offset}`)),
      'named at the destination, too',
    )
  },
)

t.test('R34: what lies in a pool is compared and repaired as well, and what should be a hole', async (t) => {
  const sites = await twoThinSites(t, { via: 'folder', poolSize: '1GiB' })
  const { folder, source } = sites
  const name = 'verify-thin'
  const device = await thinVolume(source, name, '128MiB')
  await writeRandom(device, 16, 40)
  await mirror(source, name, [name])
  const log = join(folder, 'stamps')
  const writer = startStamp(device, log, { ...load, seed: seed + 1 })
  t.match(await verified(sites, name), { state: 'equal', doneBytes: 128 * MiB, mismatches: [] }, 'before')
  const pool = join(folder, `${farPool}.img`)
  const at = 37 * MiB + random.below(MiB)
  // Where it lies in the pool is told by its content.
  const needle = Buffer.alloc(512)
  const near = await open(device, 'r')
  await near.read(needle, 0, 512, at - (at % 512))
  await near.close()
  const place = readFileSync(pool).indexOf(needle)
  t.ok(place > 0, 'it lies in the pool')
  await flip(pool, place + (at % 512))
  // And something where the source has nothing.
  const image = await farPath(sites, name)
  const hole = 100 * MiB + random.below(MiB)
  await run('dd', [
    'if=/dev/urandom',
    `of=${image}`,
    'bs=512',
    `seek=${Math.floor(hole / 512)}`,
    'count=1',
    'conv=notrunc,fsync',
    'status=none',
  ])
  const repaired = await verified(sites, name)
  t.match(repaired, { state: 'repaired' })
  t.strictSame(repaired.mismatches, blocksOf(name, [at, hole]))
  t.equal((await writer.stop()).errno, 0)
  await flush(source, name)
  t.equal(await difference(device, image), '', 'both sides are equal')
  t.match(stampVerify(image, log, { requireAll: true, blocks: load.blocks }), { ok: true })
})

for (const kind of ['file', 'thin'] as const) {
  t.test(
    `nothing is called different while hosts write and trim the same places, one comparison after another (${kind})`,
    async (t) => {
      const sites = kind === 'thin' ? await twoThinSites(t, { poolSize: '1GiB' }) : await twoSites(t)
      const { folder, source } = sites
      const name = `verify-busy-${kind}`
      const device =
        kind === 'thin' ? await thinVolume(source, name, '64MiB') : (await source.volume(folder, name, '64MiB')).device
      await writeRandom(device, 0, 48)
      await mirror(source, name, [name])
      const log = join(folder, 'stamps')
      const writer = startStamp(device, log, { ...load, overlap: true, fsyncEvery: 5, seed: seed + 2 })
      const others = churn(device, 16 * MiB, 48 * MiB)
      const untilMs = performance.now() + (isLong ? 60_000 : 8_000)
      let rounds = 0
      let comparedBytes = 0
      let busyBytes = 0
      while (performance.now() < untilMs) {
        const view = await verifiedAtOnce(sites, name)
        if (view.state !== 'equal' || view.mismatchedBytes > 0) {
          t.fail(`comparison ${rounds + 1}: ${JSON.stringify(view)}`)
          break
        }
        rounds += 1
        comparedBytes += view.doneBytes
        busyBytes += view.busyBytes
      }
      const trimmed = (await others.stop()).reduce((sum, { trimmedBytes }) => sum + trimmedBytes, 0)
      t.equal((await writer.stop()).errno, 0)
      t.comment(
        `${rounds} comparisons, ${comparedBytes / MiB} MiB equal, ${busyBytes / MiB} MiB never at rest, ${trimmed / MiB} MiB trimmed`,
      )
      t.ok(rounds > 0 && trimmed > 0, `${rounds} comparisons`)
      t.ok(comparedBytes > 10 * busyBytes, 'nearly all of it was compared')
      await flush(source, name)
      t.equal(await difference(device, await farPath(sites, name)), '', 'both sides are equal')
    },
  )
}

t.test(
  'a comparison goes on after kill -9 of either agent and both, and still finds what it has to find',
  async (t) => {
    const sites = await twoSites(t, 'folder')
    const { folder, source, destination } = sites
    const name = 'verify-killed'
    const sizeBytes = (isLong ? 1024 : 256) * MiB
    const { device } = await source.volume(folder, name, `${sizeBytes}`)
    await writeRandom(device, 16, sizeBytes / MiB - 16)
    const second = 'verify-killed-2'
    const { device: other } = await source.volume(folder, second, '8MiB')
    await writeRandom(other, 2, 4)
    await mirror(source, name, [name, second])
    const log = join(folder, 'stamps')
    const writer = startStamp(device, log, { ...load, seed: seed + 3 })
    const image = await farPath(sites, name, name)
    const otherImage = await farPath(sites, name, second)
    const places = [0.1, 0.5, 0.95].map((part) => Math.floor(sizeBytes * part) + random.below(MiB))
    for (const at of places) await flip(image, at)
    const otherPlace = 3 * MiB + random.below(MiB)
    await flip(otherImage, otherPlace)
    await source.cli('stream', 'verify', name)
    t.equal((await source.run('stream', 'verify', name)).errorCode, 'VERIFY_RUNNING')
    let interrupted = 0
    let done = 0
    for (const victims of [[source], [destination], [source, destination]]) {
      await delay(random.between(50, 500))
      const { verify } = await source.streamStatus(name)
      if (verify?.state === 'comparing') interrupted += 1
      t.ok(verify!.doneBytes >= done, `it goes on: ${verify!.doneBytes / MiB} MiB of ${sizeBytes / MiB}`)
      done = verify!.doneBytes
      await Promise.all(victims.map((agent) => agent.kill()))
      await Promise.all(victims.map((agent) => agent.start()))
    }
    t.ok(interrupted >= 1, `${interrupted} kills in its middle`)
    const { verify } = await source.until(
      () => source.streamStatus(name),
      ({ verify: now }) => now !== null && now.state !== 'comparing' && now.state !== 'repairing',
      120_000,
    )
    t.match(verify, { state: 'repaired', doneBytes: sizeBytes + 8 * MiB - verify!.busyBytes, reason: '' })
    const flipped = [...blocksOf(name, places), ...blocksOf(second, [otherPlace])]
    t.strictSame(verify!.mismatches, flipped, 'exactly what was flipped')
    t.equal((await writer.stop()).errno, 0, 'hosts see a pause')
    await flush(source, name)
    t.equal(await difference(device, image), '', 'both sides are equal')
    t.equal(await difference(other, otherImage), '', 'of the other volume, too')
    t.match(stampVerify(image, log, { requireAll: true, blocks: load.blocks }), { ok: true })
    t.match(await source.streamStatus(name), { state: 'replicating', generation: 1 }, 'no new copy')
  },
)

t.test(
  'a comparison waits while a stream is paused, is ended by an operator, and refused where it cannot be',
  async (t) => {
    const sites = await twoSites(t, 'folder')
    const { folder, source } = sites
    const name = 'verify-refused'
    const { device } = await source.volume(folder, name, '128MiB')
    await source.cli('stream', 'create', name, '--volume', name, '--destination', 'far')
    t.equal((await source.run('stream', 'verify', name)).errorCode, 'NOT_INITIALIZED')
    await source.cli('stream', 'initialize', name, '--wait')
    t.equal((await source.run('stream', 'verify', name, '--abort')).errorCode, 'NO_VERIFY')
    await writeRandom(device, 0, 128)
    await flush(source, name)
    await source.cli('stream', 'verify', name)
    await source.cli('stream', 'pause', name)
    t.equal((await source.run('stream', 'verify', name)).errorCode, 'STREAM_NOT_REPLICATING')
    const { verify } = await source.streamStatus(name)
    t.match(verify, { state: 'comparing', reason: 'waits: the stream is paused' })
    await source.cli('stream', 'verify', name, '--abort')
    t.match((await source.streamStatus(name)).verify, { state: 'aborted', mismatches: [] })
    await source.cli('stream', 'resume', name)
    t.match(await verified(sites, name), { state: 'equal', doneBytes: 128 * MiB }, 'one that begins anew is whole')
    await source.cli('stream', 'verify', name)
    await source.cli('stream', 'initialize', name, '--wait')
    t.equal((await source.streamStatus(name)).verify, null, 'a new copy ends it')
    t.match(await verified(sites, name), { state: 'equal', doneBytes: 128 * MiB })
  },
)
