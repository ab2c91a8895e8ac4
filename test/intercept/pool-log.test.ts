import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { open, truncate, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { KiB, MiB } from '../../src/block/units.js'
import type { NativePool, PoolEvent, PoolOptions } from '../../src/intercept/addon.js'
import { intercept } from '../../src/intercept/intercept.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { mountSmallDisk } from '../fixtures/small-disk.js'
import { Rig, readAt, run, until } from './rig.js'

const blockBytes = 64 * KiB
const seed = 0x89abcdef
const ringOffset = MiB
const ringPlaces = 4096
const deviceBytes = 8 * MiB
const placeBytes = 32
const release = 5
const operation = 6

/** Bit by bit, so that it shares nothing with what it checks. */
function crc32c(...parts: Uint8Array[]): number {
  let crc = 0xffffffff
  for (const byte of Buffer.concat(parts)) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0)
  }
  return ~crc >>> 0
}

function record(type: number, layer: number, subject: bigint, value: bigint): Buffer {
  const bytes = Buffer.alloc(placeBytes)
  bytes.writeUInt32LE(layer, 4)
  bytes.writeBigUInt64LE(subject | (BigInt(type) << 56n), 16)
  bytes.writeBigUInt64LE(value, 24)
  return bytes
}

function operationOf(text: string): Buffer {
  const bytes = Buffer.from(text)
  const padded = Buffer.concat([bytes], Math.ceil(bytes.length / placeBytes) * placeBytes)
  return Buffer.concat([record(operation, bytes.length, BigInt(crc32c(bytes)), 0n), padded])
}

/** What FORMAT.md says a reader finds from this sequence on, up to the first place that is not valid. */
async function readRing(device: string, from: bigint) {
  const ring = await readAt(device, ringOffset, ringPlaces * placeBytes)
  const seeded = Buffer.alloc(4)
  seeded.writeUInt32LE(seed)
  const place = (sequence: bigint) => {
    const at = Number(sequence % BigInt(ringPlaces)) * placeBytes
    return ring.subarray(at, at + placeBytes)
  }
  const found: { sequence: bigint; type: number; layer: number; subject: bigint; value: bigint; text: string }[] = []
  for (let sequence = from; ; ) {
    const bytes = place(sequence)
    if (bytes.readUInt32LE(0) !== crc32c(seeded, bytes.subarray(4)) || bytes.readBigUInt64LE(8) !== sequence) break
    const [type, layer] = [bytes.readUInt8(23), bytes.readUInt32LE(4)]
    const subject = bytes.readBigUInt64LE(16) & 0xff_ffff_ffff_ffffn
    const texts = type === operation ? Math.ceil(layer / placeBytes) : 0
    const places = Array.from({ length: texts }, (_, index) => place(sequence + 1n + BigInt(index)))
    const text = Buffer.concat(places).subarray(0, type === operation ? layer : 0)
    if (type === operation && BigInt(crc32c(text)) !== subject) break
    found.push({ sequence, type, layer, subject, value: bytes.readBigUInt64LE(24), text: text.toString() })
    sequence += BigInt(1 + texts)
  }
  return found
}

/** Opens pools of devices in a folder, and closes them when the test has ended. */
async function poolRig(t: Test) {
  const rig = await Rig.open()
  const pools: NativePool[] = []
  t.teardown(async () => {
    for (const pool of pools) await pool.close().catch(() => undefined)
    await rig.close()
  })
  const events: PoolEvent[] = []
  const openPool = (devices: string[], options: Partial<PoolOptions> = {}): NativePool => {
    const pool = intercept.openPool({
      name: 'tank',
      devices: devices.map((device) => ({ path: device, sizeBytes: deviceBytes })),
      blockBytes,
      direct: false,
      log: { offset: ringOffset, capacityRecords: ringPlaces, seed, head: 5n, tail: 5n },
      onEvent: (event) => events.push(event),
      ...options,
    })
    pools.push(pool)
    return pool
  }
  return { rig, openPool, events, kinds: () => events.map((event) => event.kind) }
}

t.test('what is appended lies on the device as the format says, and is taken as it was appended', async (t) => {
  const { rig, openPool, kinds } = await poolRig(t)
  const device = await rig.backing('device', deviceBytes)
  const pool = openPool([device])
  t.equal(pool.head(), 5n)
  const text = '{"operation":"create","volume":"größer als ein Platz"}'
  t.equal(pool.append(operationOf(text)), 5n)
  t.equal(pool.append(Buffer.concat([record(release, 0, 12n, 0n), record(release, 0, 13n, 0n)])), 8n)
  t.equal(pool.head(), 10n)
  const read = await readRing(device, 5n)
  t.match(read, [
    { sequence: 5n, type: operation, text },
    { sequence: 8n, type: release, layer: 0, subject: 12n, value: 0n },
    { sequence: 9n, type: release, subject: 13n },
  ])
  t.equal(read.length, 3)
  const taken = pool.take()
  t.ok(taken.equals(await readAt(device, ringOffset + 5 * placeBytes, 5 * placeBytes)))
  t.equal(pool.take().length, 0)
  t.strictSame(kinds(), [])
})

t.test('a sync commits what was appended before it, says so once, and adds nothing when nothing came', async (t) => {
  const { rig, openPool, kinds } = await poolRig(t)
  const device = await rig.backing('device', deviceBytes)
  const pool = openPool([device])
  t.equal(await pool.sync(), 5n)
  t.strictSame(await readRing(device, 5n), [])
  pool.append(record(release, 0, 1n, 0n))
  t.equal(pool.committed(), 5n)
  const [first, second] = await Promise.all([pool.sync(), pool.sync()])
  t.ok(first >= 6n && second >= 6n)
  t.ok(pool.committed() >= 6n)
  await until(() => kinds().length > 0)
  t.strictSame(kinds(), ['appended'])
  await pool.sync()
  const read = await readRing(device, 5n)
  t.match(read, [{ type: release }, { sequence: 6n, type: 3, subject: 0n, value: 6n }])
  t.equal(read.length, 2)
  t.equal(pool.take().length, 2 * placeBytes)
})

t.test('a full log refuses what is appended until it is trimmed, and a third of it is said once', async (t) => {
  const { rig, openPool, kinds } = await poolRig(t)
  const device = await rig.backing('device', deviceBytes)
  const pool = openPool([device])
  const many = Buffer.concat(Array.from({ length: 1000 }, () => record(release, 0, 1n, 0n)))
  for (let i = 0; i < 4; i++) pool.append(many)
  t.throws(() => pool.append(many), { name: 'StorageError', code: 'LOG_FULL', retry: 'later' })
  t.equal(pool.head(), 4005n, 'nothing of it was appended')
  t.equal(await pool.sync(), 4005n, 'a sync finds room all the same')
  t.throws(() => pool.trim(4006n), { code: 'INVALID_ARGUMENT' }, 'what was not taken is needed')
  t.equal(pool.take().length, 4001 * placeBytes)
  pool.trim(4005n)
  for (let i = 0; i < 4; i++) pool.append(many)
  t.equal((await readRing(device, 4005n)).length, 4001)
  await until(() => kinds().length >= 3)
  t.strictSame(kinds().sort(), ['appended', 'log-filling', 'log-filling'])
})

t.test('a pool goes on where its log ended, also past the page cache, and on a raw device', async (t) => {
  const { rig, openPool } = await poolRig(t)
  const file = await rig.backing('device', deviceBytes)
  const raw = await run('losetup', '--find', '--show', '--direct-io=off', await rig.backing('disk', deviceBytes))
  for (const [device, direct] of [
    [file, false],
    [file, true],
    [raw, false],
    [raw, true],
  ] as const) {
    const log = { offset: ringOffset, capacityRecords: ringPlaces, seed, head: 4094n, tail: 4094n }
    const pool = openPool([device], { direct, log })
    pool.append(operationOf('a text that wraps around the end of the ring, and then some'))
    await pool.sync()
    await pool.close()
    const read = await readRing(device, 4094n)
    t.match(read, [{ type: operation }, { sequence: 4097n, type: 3, value: 4097n }])
    const again = openPool([device], { direct, log: { ...log, head: 4098n } })
    again.append(record(release, 0, 9n, 0n))
    await again.sync()
    await again.close()
    t.match(await readRing(device, 4094n), [{}, {}, { sequence: 4098n, subject: 9n }, { type: 3, value: 4099n }])
  }
  await run('losetup', '--detach', raw)
})

t.test('a pool is opened once, by whoever comes first; a closed one is free again', async (t) => {
  const { rig, openPool } = await poolRig(t)
  const [a, b, c] = [
    await rig.backing('a', deviceBytes),
    await rig.backing('b', deviceBytes),
    await rig.backing('c', MiB),
  ]
  const raw = await run('losetup', '--find', '--show', await rig.backing('disk', deviceBytes))
  const pool = openPool([a, raw])
  t.throws(() => openPool([a]), { name: 'StorageError', code: 'DEVICE_BUSY' })
  t.throws(() => openPool([b, raw]), { code: 'DEVICE_BUSY' }, 'a raw device too')
  t.throws(() => rig.volume(a), { code: 'DEVICE_BUSY' })
  t.throws(() => openPool([c]), { code: 'BACKING_TOO_SMALL' })
  t.throws(() => openPool([rig.file('none')]), { code: 'NOT_FOUND' })
  pool.addDevice({ path: b, sizeBytes: deviceBytes })
  t.throws(() => pool.addDevice({ path: b, sizeBytes: deviceBytes }), { code: 'DEVICE_BUSY' })
  await pool.close()
  t.throws(() => pool.head(), { code: 'POOL_CLOSED' })
  await t.rejects(pool.sync(), { code: 'POOL_CLOSED' })
  await openPool([a, raw, b]).close()
  await run('losetup', '--detach', raw)
})

t.test('a pool is opened although the server of a loop device somewhere on this machine hangs', async (t) => {
  const { rig, openPool } = await poolRig(t)
  const device = await rig.backing('device', deviceBytes)
  const mountPoint = await rig.mountPoint('mount')
  const program = path.join(path.dirname(fileURLToPath(import.meta.url)), 'attached-agent.js')
  const parameters = [program, await rig.backing('backing', MiB), mountPoint]
  const agent = spawn(process.execPath, parameters, { stdio: ['ignore', 'pipe', 'inherit'] })
  const left = { kind: 'process', pid: agent.pid! } as const
  remember(left)
  await once(agent.stdout, 'data')
  agent.kill('SIGSTOP')
  // This thread could not let it go on if it waited for it.
  const rescue = spawn(process.execPath, ['-e', `setTimeout(() => process.kill(${agent.pid}, 'SIGCONT'), 20000)`])
  // What the kernel knows of the file is no longer good for an answer.
  await delay(1500)
  const began = Date.now()
  const pool = openPool([device])
  t.throws(() => pool.addDevice({ path: device, sizeBytes: 0 }), { code: 'DEVICE_BUSY' })
  t.ok(Date.now() - began < 10_000, 'nothing waited for it')
  await pool.close()
  rescue.kill()
  agent.kill('SIGKILL')
  await once(agent, 'exit')
  forget(left)
  await intercept.releaseStale(mountPoint)
})

t.test('a pool that a volume or a call uses is not closed, and is as soon as they have ended', async (t) => {
  const { rig, openPool } = await poolRig(t)
  const device = await rig.backing('device', deviceBytes)
  for (let round = 0; round < 20; round++) {
    const pool = openPool([device])
    const volume = rig.volume('', { sizeBytes: MiB, table: { blockBytes }, pool: { pool, layer: 1 }, onFaults() {} })
    await t.rejects(pool.close(), { name: 'StorageError', code: 'POOL_IN_USE', retry: 'later' })
    await Promise.all([volume.close(), pool.sync(), pool.discard([{ location: 100, count: 1 }])])
    await pool.close()
  }
})

t.test('what is discarded in a file reads as zeros for certain; on a raw device nobody can say', async (t) => {
  const { rig, openPool } = await poolRig(t)
  const file = await rig.backing('file', deviceBytes)
  const disk = await rig.backing('disk', deviceBytes)
  const raw = await run('losetup', '--find', '--show', disk)
  const full = Buffer.alloc(deviceBytes, 7)
  for (const device of [file, raw]) {
    const handle = await open(device, 'r+')
    await handle.write(full)
    await handle.sync()
    await handle.close()
  }
  const pool = openPool([file, raw])
  const at = (device: number, block: number, count: number) => ({ location: device * 2 ** 34 + block, count })
  t.equal(await pool.discard([at(0, 100, 8), at(0, 120, 1)]), true)
  t.equal(await pool.discard([at(0, 110, 1), at(1, 100, 8)]), false)
  t.equal(await pool.discard([]), true)
  const expected = Buffer.from(full)
  for (const [block, count] of [
    [100, 8],
    [110, 1],
    [120, 1],
  ] as const)
    expected.fill(0, block * blockBytes, (block + count) * blockBytes)
  t.ok((await readAt(file, 0, deviceBytes)).equals(expected))
  const left = await readAt(raw, 0, deviceBytes)
  t.ok(left.subarray(0, 100 * blockBytes).equals(full.subarray(0, 100 * blockBytes)), 'its neighbours are as before')
  t.ok(left.subarray(108 * blockBytes).equals(full.subarray(108 * blockBytes)))
  await t.rejects(pool.discard([at(2, 0, 1)]), { code: 'INVALID_ARGUMENT' })
  await t.rejects(pool.discard([at(0, 127, 2)]), { code: 'INVALID_ARGUMENT' })
  await pool.close()
  await run('losetup', '--detach', raw)
})

t.test(
  'a log that could not be written through fails the pool for good, although the kernel would say yes',
  async (t) => {
    const { openPool, events, kinds } = await poolRig(t)
    const disk = await mountSmallDisk(8 * MiB)
    t.teardown(() => disk.unmount())
    // A device that promises its size and has room for no more.
    const promised = path.join(disk.directory, 'promised')
    await writeFile(promised, '')
    await truncate(promised, deviceBytes)
    const raw = await run('losetup', '--find', '--show', promised)
    const pool = openPool([raw])
    try {
      const several = (count: number) => Buffer.concat(Array.from({ length: count }, () => record(release, 0, 1n, 0n)))
      // With the COMMIT just the first page: a loop device calls a write that is cut short a success.
      pool.append(several(122))
      t.equal(await pool.sync(), 127n)
      await writeFile(path.join(disk.directory, 'rest'), Buffer.alloc(8 * MiB)).catch(() => undefined)
      pool.append(several(1000))
      await t.rejects(pool.sync(), { name: 'StorageError', code: 'POOL_FAILED' })
      await t.rejects(pool.sync(), { code: 'POOL_FAILED' })
      t.throws(() => pool.append(several(1)), { code: 'POOL_FAILED' })
      t.equal(pool.committed(), 127n)
      await until(() => kinds().includes('failed'))
      t.equal(kinds().filter((kind) => kind === 'failed').length, 1)
      t.match(
        events.find((event) => event.kind === 'failed'),
        { message: /mapping log|sync/ },
      )
    } finally {
      await pool.close()
      await run('losetup', '--detach', raw)
    }
  },
)

t.test('what is no record, and what is no pool, is a mistake of the caller', async (t) => {
  const { rig, openPool } = await poolRig(t)
  const device = await rig.backing('device', deviceBytes)
  const pool = openPool([device])
  const refused = { name: 'Error', code: 'INVALID_ARGUMENT' }
  t.throws(() => pool.append(Buffer.alloc(31)), refused)
  t.throws(() => pool.append(record(3, 0, 0n, 0n)), refused, 'a COMMIT is native')
  t.throws(() => pool.append(operationOf('cut off').subarray(0, 32)), refused)
  t.throws(() => pool.trim(-1n), refused)
  t.throws(() => openPool([]), refused)
  t.throws(() => openPool([device], { blockBytes: 96 * KiB }), refused)
  const log = { offset: 100, capacityRecords: ringPlaces, seed, head: 0n, tail: 0n }
  await pool.close()
  t.throws(() => openPool([device], { log }), refused)
  t.equal((await readRing(device, 5n)).length, 0)
})
