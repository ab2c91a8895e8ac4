import { randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { type FileHandle, open, stat } from 'node:fs/promises'
import path from 'node:path'
import t from 'tap'
import { GiB, KiB, MiB } from '../../src/block/units.js'
import { createPool } from '../../src/pool/create-pool.js'
import { Pool } from '../../src/pool/pool.js'
import type { OpenThinVolume } from '../../src/pool/thin-pool.js'
import { fio } from '../fixtures/fio.js'
import { scratchFolder } from '../fixtures/paths.js'
import { alignedBuffer } from './model/aligned.js'

const TiB = 1024 * GiB
const blockBytes = 64 * KiB

/** A pool on a file, with its volumes served beside it. */
class Served {
  readonly folder: string
  readonly events: string[] = []
  pool!: Pool
  #mounts = 0

  constructor(folder: string) {
    this.folder = folder
  }

  static async create(test: Parameters<typeof scratchFolder>[0], sizeBytes: number): Promise<Served> {
    const served = new Served(scratchFolder(test, 'pool'))
    mkdirSync(path.join(served.folder, 'mounts'))
    const device = { path: served.device, kind: 'file' as const, sizeBytes }
    await createPool({ name: 'pool', unitBytes: 8 * MiB, blockBytes, devices: [device] })
    await served.open()
    return served
  }

  get device(): string {
    return path.join(this.folder, 'device')
  }

  async open(): Promise<void> {
    this.pool = await Pool.open([this.device], { report: ({ code }) => this.events.push(code) })
  }

  mountPoint(): string {
    this.#mounts += 1
    const file = path.join(this.folder, 'mounts', String(this.#mounts))
    writeFileSync(file, '')
    return file
  }

  openVolume(name: string, snapshot: string | null = null): Promise<OpenThinVolume> {
    return this.pool.open(name, snapshot, { readOnly: snapshot !== null, threads: 2, onLost: () => {} })
  }

  async serve(name: string, snapshot: string | null = null): Promise<{ file: FileHandle; close: () => Promise<void> }> {
    const opened = await this.openVolume(name, snapshot)
    const mountPoint = this.mountPoint()
    await opened.native.serve(mountPoint)
    const file = await open(mountPoint, snapshot === null ? 'r+' : 'r')
    const close = async (): Promise<void> => {
      await file.close()
      await opened.native.detach()
      await opened.native.unserve()
      await opened.close()
    }
    return { file, close }
  }
}

async function write(file: FileHandle, offset: number, bytes: Buffer): Promise<void> {
  const aligned = alignedBuffer(bytes.length)
  bytes.copy(aligned)
  await file.write(aligned, 0, bytes.length, offset)
}

async function read(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const aligned = alignedBuffer(length)
  await file.read(aligned, 0, length, offset)
  return aligned
}

/** What a file takes on its file system. */
async function heldBytes(file: string): Promise<number> {
  return (await stat(file)).blocks * 512
}

t.test('a volume of 16 TiB with 1 GiB in it is opened in no time, from pages', async (t) => {
  const served = await Served.create(t, 8 * GiB)
  await served.pool.createVolume('huge', 16 * TiB)
  const { file, close } = await served.serve('huge')
  const stamp = alignedBuffer(MiB)
  randomBytes(MiB).copy(stamp)
  for (let at = 0; at < GiB / MiB; at += 1) await file.write(stamp, 0, MiB, at * 16 * GiB)
  await close()
  t.equal(served.pool.facts().mappedBytes, GiB)
  await served.pool.close()
  await served.open()
  const begin = performance.now()
  const opened = await served.openVolume('huge')
  const milliseconds = performance.now() - begin
  t.comment(`${milliseconds.toFixed(1)} ms`)
  // The bar is 200 ms on a machine that does nothing else; what must not happen is a step for each of 4 billion blocks.
  t.ok(milliseconds < 10_000)
  t.equal(opened.nextMapped(0), 0)
  t.equal(opened.nextMapped(4 * KiB), 4 * KiB)
  t.equal(opened.nextMapped(MiB), 16 * GiB)
  t.equal(opened.nextMapped(15.999 * TiB), undefined)
  await opened.close()
  const again = await served.serve('huge')
  t.ok((await read(again.file, 300 * 16 * GiB, MiB)).equals(stamp))
  t.ok((await read(again.file, 300 * 16 * GiB + MiB, MiB)).equals(Buffer.alloc(MiB)))
  await again.close()
  await served.pool.audit()
  await served.pool.close()
})

t.test('a volume under load keeps its content while snapshots come and go', async (t) => {
  const served = await Served.create(t, 2 * GiB)
  await served.pool.createVolume('a', 256 * MiB)
  const opened = await served.openVolume('a')
  const { device } = await opened.native.attach(served.mountPoint())
  let busy = true
  const load = fio(device, {
    rw: 'randwrite',
    bsrange: '4k-256k',
    size: '64m',
    verify: 'crc32c',
    verify_interval: 4096,
    iodepth: 16,
  }).finally(() => {
    busy = false
  })
  const times: number[] = []
  for (let at = 0; busy; at += 1) {
    const begin = performance.now()
    await served.pool.createSnapshot('a', `s${at}`, { durable: at % 2 === 0 })
    times.push(performance.now() - begin)
    if (at >= 2) await served.pool.removeSnapshot('a', `s${at - 2}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  t.equal((await load).errors, 0, 'fio saw no error')
  t.comment(`${times.length} snapshots, the slowest took ${Math.max(...times).toFixed(1)} ms`)
  await opened.native.detach()
  await opened.close()
  for (const { name } of served.pool.volume('a').snapshots) await served.pool.removeSnapshot('a', name)
  await served.pool.settled()
  t.ok(served.pool.facts().mappedBytes <= 64 * MiB, 'each block is there once')
  await served.pool.audit()
  t.same(
    served.events.filter((code) => code === 'POOL_FAILED'),
    [],
  )
  await served.pool.close()
})

t.test('trimmed space comes back to the file', async (t) => {
  const served = await Served.create(t, GiB)
  await served.pool.createVolume('a', 256 * MiB)
  const { file, close } = await served.serve('a')
  const before = await heldBytes(served.device)
  for (let at = 0; at < 64; at += 1) await write(file, at * MiB, randomBytes(MiB))
  await close()
  await served.pool.removeVolume('a')
  await served.pool.settled()
  const after = await heldBytes(served.device)
  t.ok(after < before + 4 * MiB, `${after} bytes after, ${before} before`)
  t.equal(served.pool.facts().allocatedBytes, 0)
  await served.pool.close()
})
