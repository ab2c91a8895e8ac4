import assert from 'node:assert/strict'
import { constants } from 'node:os'
import { StorageError } from '../../src/block/storage-error.js'
import {
  type Fault,
  type Grant,
  type Intercept,
  leafBlocks,
  type NativePool,
  type NativeVolume,
  type PoolDevice,
  type PoolEvent,
  type PoolOptions,
  type VolumeCounters,
  type VolumeOptions,
} from '../../src/intercept/addon.js'
import { blockIndex, layerId, logSequence, poolLocation, recordBytes } from '../../src/pool/geometry.js'
import { nativeRecords, sealRecords } from '../../src/pool/log-record.js'
import type { FakeDisk } from './fake-disk.js'
import type { Random } from './model/random.js'

const deviceShift = 2 ** 34
const commitReserve = 8

/** Turns of the event loop, so many as chance has it: what another thread would take. */
export async function pause(random: Random): Promise<void> {
  for (let turns = random.below(4); turns > 0; turns -= 1) await new Promise(setImmediate)
}

/** Native code without threads or kernel, on files. It keeps every promise of addon.ts, in orders that chance decides. */
export class FakeNative implements Pick<Intercept, 'openPool' | 'openVolume'> {
  readonly random: Random
  readonly #disks: Map<string, FakeDisk>
  pool: FakePool | undefined
  readonly volumes = new Set<FakeVolume>()
  #dead = false

  constructor(random: Random, disks: Map<string, FakeDisk>) {
    this.random = random
    this.#disks = disks
  }

  openPool(options: PoolOptions): NativePool {
    const disks = options.devices.map(({ path }) => this.disk(path))
    const pool = new FakePool(options, disks, this)
    this.pool = pool
    return pool
  }

  openVolume(options: VolumeOptions): FakeVolume {
    assert(this.pool && options.pool?.pool === this.pool)
    const volume = new FakeVolume(options, this.pool, this)
    this.volumes.add(volume)
    return volume
  }

  addDisk(disk: FakeDisk): void {
    this.#disks.set(disk.path, disk)
  }

  disk(path: string): FakeDisk {
    const disk = this.#disks.get(path)
    assert(disk, `a disk for ${path}`)
    return disk
  }

  /** The process is gone: nothing more happens, nobody hears anything. */
  kill(): void {
    this.#dead = true
  }

  get isDead(): boolean {
    return this.#dead
  }

  /** A turn of another thread; never comes back in a process that is dead. */
  async turn(): Promise<void> {
    await pause(this.random)
    if (this.#dead) await new Promise(() => {})
  }
}

export class FakePool implements NativePool {
  readonly options: PoolOptions
  readonly #disks: FakeDisk[]
  readonly #fake: FakeNative
  #head: number
  #tail: number
  #committed: number
  #waiting: Buffer[] = []
  #filling = false
  #syncing: Promise<void> = Promise.resolve()
  failure: string | undefined
  /** Trimmed blocks then read as zeros for certain. */
  certain = true
  /** Syncs do not end while it is set. */
  hold: Promise<void> | undefined
  #closed = false
  #roomWaiters: (() => void)[] = []

  constructor(options: PoolOptions, disks: FakeDisk[], fake: FakeNative) {
    this.options = options
    this.#disks = [...disks]
    this.#fake = fake
    this.#head = Number(options.log.head)
    this.#tail = Number(options.log.tail)
    this.#committed = this.#head
    assert(this.#tail <= this.#head)
  }

  take(): Buffer {
    this.#alive()
    const bytes = Buffer.concat(this.#waiting)
    this.#waiting = []
    return bytes
  }

  append(bytes: Buffer): bigint {
    this.#alive()
    this.#checkFailed()
    assert(bytes.length > 0 && bytes.length % recordBytes === 0)
    const count = bytes.length / recordBytes
    if (this.#head - this.#tail + count > this.#capacity - commitReserve) throw logFull()
    return BigInt(this.#write(Buffer.from(bytes)))
  }

  async sync(): Promise<bigint> {
    this.#alive()
    this.#checkFailed()
    const run = this.#syncing.then(() => this.#syncOnce())
    this.#syncing = run.then(
      () => undefined,
      () => undefined,
    )
    return BigInt(await run)
  }

  trim(tail: bigint): void {
    this.#alive()
    assert(Number(tail) <= this.#head)
    this.#tail = Math.max(this.#tail, Number(tail))
    this.#filling = false
    for (const wake of this.#roomWaiters.splice(0)) wake()
  }

  head(): bigint {
    return BigInt(this.#head)
  }

  committed(): bigint {
    return BigInt(this.#committed)
  }

  async discard(ranges: readonly { location: number; count: number }[]): Promise<boolean> {
    this.#alive()
    await this.#fake.turn()
    for (const { location, count } of ranges) {
      assert(count > 0)
      const bytes = this.certain ? Buffer.alloc(count * this.blockBytes) : Buffer.alloc(count * this.blockBytes, 0xdd)
      this.writeBlocks(location, bytes)
    }
    await this.#fake.turn()
    return this.certain
  }

  addDevice(device: PoolDevice): void {
    this.#disks.push(this.#fake.disk(device.path))
  }

  async close(): Promise<void> {
    this.#closed = true
    if (!this.#fake.isDead) await this.#fake.turn()
  }

  get blockBytes(): number {
    return this.options.blockBytes
  }

  readBlock(location: number): Buffer {
    const { disk, offset } = this.#place(location)
    return disk.read(offset, this.blockBytes)
  }

  writeBlocks(location: number, bytes: Uint8Array, within = 0): void {
    const { disk, offset } = this.#place(location)
    disk.write(offset + within, bytes)
  }

  /** Room for a publisher's record. */
  async room(): Promise<void> {
    while (this.#head - this.#tail >= this.#capacity - this.#capacity / 8) {
      if (this.failure) return
      this.raise({ kind: 'log-full' })
      await new Promise<void>((resolve) => this.#roomWaiters.push(resolve))
    }
  }

  /** False: the log has failed. The caller has waited for room(). */
  publishMap(layer: number, block: number, location: number): boolean {
    if (this.failure) return false
    this.#write(nativeRecords.map(layerId(layer), blockIndex(block), poolLocation(location)))
    return true
  }

  publishHoles(layer: number, block: number, count: number): boolean {
    if (this.failure) return false
    this.#write(nativeRecords.hole(layerId(layer), blockIndex(block), count))
    return true
  }

  fail(message: string): void {
    this.failure = message
    this.raise({ kind: 'failed', message })
    for (const wake of this.#roomWaiters.splice(0)) wake()
  }

  raise(event: PoolEvent): void {
    void this.#fake.turn().then(() => {
      if (!this.#closed) this.options.onEvent(event)
    })
  }

  async #syncOnce(): Promise<number> {
    await this.hold
    await this.#fake.turn()
    this.#checkFailed()
    const covered = this.#head
    for (const disk of this.#disks) disk.sync()
    if (covered > this.#committed) {
      const sequence = this.#write(nativeRecords.commit(logSequence(covered)))
      // Here the COMMIT can be taken and is not durable yet.
      await this.#fake.turn()
      this.#disks[0]!.sync()
      this.#committed = covered === sequence ? sequence + 1 : covered
      this.raise({ kind: 'appended' })
    }
    await this.#fake.turn()
    return covered
  }

  #write(records: Buffer): number {
    const { offset, seed } = this.options.log
    const first = this.#head
    const sealed = sealRecords([records], logSequence(first), seed)
    for (let at = 0; at < sealed.length; at += recordBytes) {
      const place = (first + at / recordBytes) % this.#capacity
      this.#disks[0]!.write(offset + place * recordBytes, sealed.subarray(at, at + recordBytes))
    }
    this.#head += sealed.length / recordBytes
    assert(this.#head - this.#tail <= this.#capacity, 'the log overwrites what is needed')
    this.#waiting.push(sealed)
    if (!this.#filling && this.#head - this.#tail > this.#capacity / 3) {
      this.#filling = true
      this.raise({ kind: 'log-filling' })
    }
    if (this.#waiting.length % 64 === 0) this.raise({ kind: 'appended' })
    return first
  }

  #place(location: number): { disk: FakeDisk; offset: number } {
    const device = Math.floor(location / deviceShift)
    const disk = this.#disks[device]
    assert(disk, `device ${device}`)
    return { disk, offset: (location % deviceShift) * this.blockBytes }
  }

  #checkFailed(): void {
    if (!this.failure) return
    throw new StorageError('POOL_FAILED', { op: 'fake', object: 'pool', hint: this.failure })
  }

  #alive(): void {
    assert(!this.#closed && !this.#fake.isDead, 'a pool that is gone is not called')
  }

  get #capacity(): number {
    return this.options.log.capacityRecords
  }
}

function logFull(): StorageError {
  return new StorageError('LOG_FULL', { op: 'fake', object: 'log', hint: 'checkpoint' })
}

interface Entry {
  readonly location: number
  writable: boolean
}

interface Question {
  readonly kind: Fault['kind']
  readonly block: number
  wholeBlock: boolean
  taken: boolean
  changed: boolean
  readonly waiters: { resolve: () => void; reject: (error: Error) => void }[]
}

export class RefusedError extends Error {
  readonly errno: number
  constructor(errno: number) {
    super(`refused with ${errno}`)
    this.errno = errno
  }
}

/** A volume's front end as functions: write() and the others resolve when a host would be answered. */
export class FakeVolume implements NativeVolume {
  readonly logicalBlockBytes = 512
  readonly isBlockDevice = false
  sizeBytes: number
  readonly name: string
  layer: number
  readonly #options: VolumeOptions
  readonly #pool: FakePool
  readonly #fake: FakeNative
  readonly #table = new Map<number, Entry>()
  readonly #leaves = new Set<number>()
  readonly #reserved = new Map<number, { location: number; touched: boolean }>()
  readonly #questions = new Map<string, Question>()
  #grants: Grant[] = []
  #working = false
  #holding = false
  #raising = false
  #frozen: Promise<void> | undefined
  closed = false
  faults = 0
  #makesHoles = true

  constructor(options: VolumeOptions, pool: FakePool, fake: FakeNative) {
    assert(options.table && options.pool)
    this.#options = options
    this.#pool = pool
    this.#fake = fake
    this.sizeBytes = options.sizeBytes
    this.name = options.name
    this.layer = options.pool.layer
  }

  // What a host does.

  async read(offset: number, length: number): Promise<Buffer> {
    const bytes = Buffer.alloc(length)
    for (const { block, within, at, count } of this.#pieces(offset, length)) {
      await this.#known(block)
      const entry = this.#table.get(block)
      if (!entry) continue
      this.#pool.readBlock(entry.location).copy(bytes, at, within, within + count)
    }
    return bytes
  }

  async write(offset: number, bytes: Buffer): Promise<void> {
    assert(!this.#options.readOnly)
    for (const { block, within, at, count } of this.#pieces(offset, bytes.length)) {
      await this.#writePiece(block, within, bytes.subarray(at, at + count))
    }
  }

  async trim(offset: number, length: number): Promise<void> {
    if (!this.#makesHoles) throw new RefusedError(constants.errno.EOPNOTSUPP)
    await this.#discard(offset, length)
  }

  async #discard(offset: number, length: number): Promise<void> {
    const { blockBytes } = this.#pool
    for (const { block, within, count } of this.#pieces(offset, length)) {
      const isLast =
        (block + 1) * blockBytes >= this.sizeBytes && within + count === this.sizeBytes - block * blockBytes
      await this.#known(block)
      if (within === 0 && (count === blockBytes || isLast)) await this.#hole(block)
      else if (this.#table.has(block)) await this.#writePiece(block, within, Buffer.alloc(count))
    }
  }

  async flush(): Promise<void> {
    await this.#pool.sync()
  }

  // What the pool is promised.

  setHoles(allowed: boolean): void {
    this.#makesHoles = allowed
  }

  grant(grants: readonly Grant[]): void {
    assert(!this.closed)
    for (const { mapped, writable } of grants) assert(mapped && writable)
    this.#grants.push(...grants)
    void this.#work()
  }

  loadLeaf(leaf: number, entries: Float64Array | null): void {
    assert(entries === null || entries.length === leafBlocks)
    if (!this.#leaves.has(leaf)) {
      this.#leaves.add(leaf)
      for (let at = 0; entries && at < leafBlocks; at += 1) {
        const entry = entries[at]!
        if (entry < 0) continue
        const writable = entry % 2 === 1 && !this.#holding
        this.#table.set(leaf * leafBlocks + at, { location: Math.floor(entry / 2), writable })
      }
    }
    this.#answered('read-unknown', leaf * leafBlocks)
  }

  refuse(blocks: readonly number[], errno: number): void {
    for (const block of blocks) {
      for (const kind of ['write', 'read-unknown'] as const) {
        const question = this.#questions.get(`${kind} ${block}`)
        if (!question) continue
        this.#questions.delete(`${kind} ${block}`)
        for (const { reject } of question.waiters) reject(new RefusedError(errno))
      }
    }
  }

  async freeze(layer: number, operation: Buffer): Promise<{ dropped: readonly { block: number; location: number }[] }> {
    assert(!this.#holding)
    let thaw = (): void => {}
    this.#frozen = new Promise((resolve) => {
      thaw = resolve
    })
    this.#holding = true
    try {
      // What is being carried out ends; what waits behind it does not begin any more.
      while (this.#working) await new Promise(setImmediate)
      await this.#fake.turn()
      this.#pool.append(operation)
      const dropped = this.#grants.filter((grant) => !grant.known).map(({ block, location }) => ({ block, location }))
      for (const [block, { location }] of this.#reserved) dropped.push({ block, location })
      const again = this.#grants
      this.#grants = []
      this.#reserved.clear()
      for (const entry of this.#table.values()) entry.writable = false
      this.layer = layer
      for (const { block } of again) this.#answered('write', block)
      // A location may have been granted more than once for the same block.
      const distinct = new Map(dropped.map((place) => [`${place.block} ${place.location}`, place]))
      await this.#fake.turn()
      return { dropped: [...distinct.values()] }
    } catch (error) {
      // Nothing has changed.
      this.#holding = false
      void this.#work()
      throw error
    } finally {
      this.#holding = false
      this.#frozen = undefined
      thaw()
    }
  }

  async resize(sizeBytes: number): Promise<void> {
    await this.#fake.turn()
    // What is cut off is discarded first.
    if (sizeBytes < this.sizeBytes) await this.#discard(sizeBytes, this.sizeBytes - sizeBytes)
    this.sizeBytes = sizeBytes
  }

  async close(): Promise<void> {
    if (this.#fake.isDead) return
    await this.#fake.turn()
    while (this.#working) await new Promise(setImmediate)
    this.closed = true
    this.#fake.volumes.delete(this)
    for (const { waiters } of this.#questions.values()) for (const { reject } of waiters) reject(new Error('closed'))
  }

  attach = (): Promise<never> => assert.fail('a fake has no device')
  serve = (): Promise<never> => assert.fail('a fake has no file')
  unserve = async (): Promise<void> => {}
  detach = async (): Promise<void> => {}
  setJournal = async (): Promise<void> => {}
  syncBacking = (): Promise<void> => this.flush()
  counters(): VolumeCounters {
    return assert.fail('a fake counts nothing')
  }

  // How it goes about it.

  *#pieces(offset: number, length: number): Generator<{ block: number; within: number; at: number; count: number }> {
    assert(offset >= 0 && offset + length <= this.sizeBytes, 'inside the volume')
    const { blockBytes } = this.#pool
    for (let at = 0; at < length; ) {
      const block = Math.floor((offset + at) / blockBytes)
      const within = (offset + at) % blockBytes
      const count = Math.min(blockBytes - within, length - at)
      yield { block, within, at, count }
      at += count
    }
  }

  async #known(block: number): Promise<void> {
    for (;;) {
      await this.#frozen
      const leaf = Math.floor(block / leafBlocks)
      if (this.#leaves.has(leaf)) return
      await this.#ask('read-unknown', leaf * leafBlocks, false)
    }
  }

  async #writePiece(block: number, within: number, piece: Buffer): Promise<void> {
    const isWhole = piece.length === this.#pool.blockBytes
    for (;;) {
      await this.#known(block)
      const entry = this.#table.get(block)
      if (((isWhole && this.#makesHoles) || !entry) && piece.every((byte) => byte === 0)) {
        if (entry && !(await this.#holeNow(block))) continue
        return
      }
      if (entry?.writable) {
        this.#pool.writeBlocks(entry.location, piece, within)
        return
      }
      const place = isWhole ? this.#reserved.get(block) : undefined
      if (!place) {
        await this.#ask('write', block, isWhole)
        continue
      }
      this.#pool.writeBlocks(place.location, piece)
      place.touched = true
      // The same turn from here on: nobody comes between.
      if (!this.#pool.publishMap(this.layer, block, place.location)) throw new RefusedError(5)
      this.#table.set(block, { location: place.location, writable: true })
      this.#reserved.delete(block)
      this.#changed(block)
      return
    }
  }

  async #hole(block: number): Promise<void> {
    for (;;) {
      await this.#known(block)
      if (!this.#table.has(block) || (await this.#holeNow(block))) return
    }
  }

  /** False: something happened while there was no room. */
  async #holeNow(block: number): Promise<boolean> {
    const before = this.#table.get(block)
    await this.#pool.room()
    await this.#frozen
    if (this.#table.get(block) !== before) return false
    if (!this.#pool.publishHoles(this.layer, block, 1)) throw new RefusedError(5)
    this.#table.delete(block)
    this.#changed(block)
    return true
  }

  #ask(kind: Fault['kind'], block: number, wholeBlock: boolean): Promise<void> {
    const key = `${kind} ${block}`
    return new Promise((resolve, reject) => {
      const question = this.#questions.get(key)
      if (question) {
        question.wholeBlock &&= wholeBlock || question.taken
        question.waiters.push({ resolve, reject })
        return
      }
      const waiters = [{ resolve, reject }]
      this.#questions.set(key, { kind, block, wholeBlock, taken: false, changed: false, waiters })
      void this.#raise()
    })
  }

  async #raise(): Promise<void> {
    if (this.#raising) return
    this.#raising = true
    await this.#fake.turn()
    this.#raising = false
    if (this.closed) return
    const faults: Fault[] = []
    for (const question of this.#questions.values()) {
      if (question.taken) continue
      question.taken = true
      faults.push({ block: question.block, kind: question.kind, wholeBlock: question.wholeBlock })
    }
    this.faults += faults.length
    if (faults.length > 0) this.#options.onFaults?.(faults)
  }

  /** Everybody looks again; who is not satisfied asks anew. */
  #answered(kind: Fault['kind'], block: number): void {
    const key = `${kind} ${block}`
    const question = this.#questions.get(key)
    if (!question?.taken) return
    this.#questions.delete(key)
    for (const { resolve } of question.waiters) resolve()
  }

  #changed(block: number): void {
    const question = this.#questions.get(`write ${block}`)
    if (question) question.changed = true
  }

  async #work(): Promise<void> {
    if (this.#working || this.#holding) return
    this.#working = true
    while (this.#grants.length > 0 && !this.#holding) {
      await this.#fake.turn()
      if (this.#holding) break
      const grant = this.#grants.shift()
      if (grant) {
        await this.#pool.room()
        this.#install(grant)
        this.#answered('write', grant.block)
      }
    }
    this.#working = false
  }

  #install(grant: Grant): void {
    const { block, location } = grant
    const question = this.#questions.get(`write ${block}`)
    if (this.#table.get(block)?.writable || !question?.taken || question.changed) return
    if (grant.reserve) {
      const before = this.#reserved.get(block)
      this.#reserved.set(block, { location, touched: before?.location === location && before.touched })
      return
    }
    if (!grant.known) {
      const { copyFrom } = grant
      if (copyFrom === undefined) {
        assert(
          this.#pool.readBlock(location).every((byte) => byte === 0),
          'a fresh place reads as zeros',
        )
      } else if (copyFrom >= 0) {
        assert.equal(this.#table.get(block)?.location, copyFrom, 'what is copied is what hosts see')
        this.#pool.writeBlocks(location, this.#pool.readBlock(copyFrom))
      } else {
        assert(!this.#table.has(block), 'zeros are what hosts see')
        this.#pool.writeBlocks(location, Buffer.alloc(this.#pool.blockBytes))
      }
      if (!this.#pool.publishMap(this.layer, block, location)) return
    } else {
      assert.equal(this.#table.get(block)?.location, location, 'a known block lies where hosts see it')
    }
    this.#table.set(block, { location, writable: true })
    this.#reserved.delete(block)
  }
}
