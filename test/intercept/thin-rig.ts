import { strict as assert } from 'node:assert'
import { randomBytes } from 'node:crypto'
import { open, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { crc32c } from '../../src/block/crc32c.js'
import { KiB, MiB, volumeIndex } from '../../src/block/units.js'
import {
  type Fault,
  type Grant,
  leafBlocks,
  type NativePool,
  type NativeVolume,
  type PoolEvent,
  type VolumeOptions,
} from '../../src/intercept/addon.js'
import { intercept } from '../../src/intercept/intercept.js'
import { Rig, run } from './rig.js'

export const blockBytes = 64 * KiB
const recordBytes = 32
const types = { map: 1, hole: 2, commit: 3, operation: 6 }
const logRecords = 8192
/** Blocks that the log takes at the beginning of the device. */
const firstLocation = (logRecords * recordBytes) / blockBytes + 1

export interface LogEntry {
  readonly type: 'map' | 'hole' | 'commit' | 'operation'
  readonly layer: number
  readonly block: number
  /** Of a map the location, of a hole the count. */
  readonly value: number
}

interface Layer {
  readonly parent: number | undefined
  readonly entries: Map<number, number>
  /** From, to. An entry comes before them: they only ever grow. */
  readonly holes: [number, number][]
}

/** An operation as native code takes it: whatever it says, this pool does not read it. */
export function operation(): Buffer {
  const text = Buffer.from('{"op":"snapshot"}')
  const bytes = Buffer.alloc(recordBytes * 2)
  bytes.writeUInt32LE(text.length, 4)
  bytes.writeUInt32LE(crc32c(text), 16)
  bytes[23] = types.operation
  text.copy(bytes, recordBytes)
  return bytes
}

/** Write through the device with direct I/O, in requests as large as offset and length allow, 1 MiB at the most. */
export async function writeLarge(device: string, offset: number, bytes: Uint8Array, folder: string): Promise<void> {
  let request = MiB
  while (offset % request !== 0 || bytes.length % request !== 0) request /= 2
  const source = path.join(folder, `large-${randomBytes(6).toString('hex')}`)
  await writeFile(source, bytes)
  const place = [`bs=${request}`, `seek=${offset / request}`, 'oflag=direct', 'conv=notrunc', 'status=none']
  await run('dd', `if=${source}`, `of=${device}`, ...place).finally(() => rm(source))
}

/** A pool on one file whose places are used once, in order, and what its log has said so far. */
export class TinyPool {
  readonly native: NativePool
  readonly file: string
  readonly log: LogEntry[] = []
  readonly events: PoolEvent[] = []
  readonly #layers = new Map<number, Layer>()
  #next = firstLocation
  /** Sequence of the record behind those taken. */
  #following = 0n
  #closed = false

  constructor(file: string, sizeBytes: number) {
    this.file = file
    this.native = intercept.openPool({
      name: 'tiny',
      devices: [{ path: file, sizeBytes }],
      blockBytes,
      direct: false,
      log: { offset: 0, capacityRecords: logRecords, seed: 7, head: 0n, tail: 0n },
      onEvent: (event) => {
        this.events.push(event)
        // Nothing here survives a restart: what was taken is needed no more.
        if (event.kind !== 'failed' && !this.#closed) this.take()
      },
    })
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.native.close()
  }

  addLayer(layer: number, parent?: number): void {
    this.#layers.set(layer, { parent, entries: new Map(), holes: [] })
  }

  /** Places that were given out. */
  get used(): number {
    return this.#next - firstLocation
  }

  nextPlace(): number {
    this.#next += 1
    return this.#next - 1
  }

  /** Apply what was appended since the last time. */
  take(): LogEntry[] {
    const bytes = this.native.take()
    const taken: LogEntry[] = []
    for (let at = 0; at < bytes.length; at += recordBytes) {
      const kind = bytes[at + 23]
      this.#following = bytes.readBigUInt64LE(at + 8) + 1n
      const layer = bytes.readUInt32LE(at + 4)
      const block = bytes.readUIntLE(at + 16, 6)
      const value = Number(bytes.readBigUInt64LE(at + 24))
      if (kind === types.map) taken.push({ type: 'map', layer, block, value })
      else if (kind === types.hole) taken.push({ type: 'hole', layer, block, value })
      else if (kind === types.commit) taken.push({ type: 'commit', layer, block, value })
      else taken.push({ type: 'operation', layer, block, value })
      if (kind !== types.operation) continue
      const places = Math.ceil(layer / recordBytes)
      at += places * recordBytes
      this.#following += BigInt(places)
    }
    for (const entry of taken) this.#apply(entry)
    this.log.push(...taken)
    if (taken.length > 0) this.native.trim(this.#following)
    return taken
  }

  own(layer: number, block: number): number | undefined {
    return this.#layers.get(layer)!.entries.get(block)
  }

  /** Blocks that the layer or one below it maps. */
  blocks(layer: number | undefined): Set<number> {
    if (layer === undefined) return new Set()
    const { entries, parent } = this.#layers.get(layer)!
    return new Set([...entries.keys(), ...this.blocks(parent)])
  }

  find(layer: number | undefined, block: number): number | undefined {
    if (layer === undefined) return undefined
    const { entries, holes, parent } = this.#layers.get(layer)!
    const location = entries.get(block)
    if (location !== undefined) return location
    return holes.some(([from, to]) => block >= from && block < to) ? undefined : this.find(parent, block)
  }

  /** What lies in the pool in this block of a layer. */
  async read(layer: number, block: number): Promise<Buffer> {
    const location = this.find(layer, block)
    const bytes = Buffer.alloc(blockBytes)
    if (location === undefined) return bytes
    const handle = await open(this.file)
    await handle.read(bytes, 0, blockBytes, location * blockBytes).finally(() => handle.close())
    return bytes
  }

  #apply({ type, layer, block, value }: LogEntry): void {
    if (type !== 'map' && type !== 'hole') return
    const { entries, holes } = this.#layers.get(layer)!
    if (type === 'map') {
      entries.set(block, value)
      return
    }
    for (const mapped of entries.keys()) if (mapped >= block && mapped < block + value) entries.delete(mapped)
    holes.push([block, block + value])
  }
}

/** A thin volume whose faults are answered at once, or, `byHand`, when the test says so. */
export class TinyVolume {
  readonly native: NativeVolume
  readonly asked: Fault[] = []
  /** Taken and not answered. */
  readonly waiting: Fault[] = []
  byHand = false
  /** Places do not read as zeros before they are used. */
  readonly isDirty: boolean
  readonly #pool: TinyPool
  readonly #granted = new Map<number, number>()
  /** Of the pool's log. */
  #seen = 0
  #layer: number

  constructor(
    rig: Rig,
    pool: TinyPool,
    layer: number,
    sizeBytes: number,
    options: Partial<VolumeOptions> & { isDirty?: boolean },
  ) {
    const { isDirty = false, ...volumeOptions } = options
    this.#pool = pool
    this.#layer = layer
    this.isDirty = isDirty
    this.native = rig.volume('', {
      sizeBytes,
      table: { blockBytes },
      pool: { pool: pool.native, layer },
      onFaults: (faults) => {
        this.asked.push(...faults)
        if (this.byHand) this.waiting.push(...faults)
        else this.answer(faults)
      },
      ...volumeOptions,
    })
  }

  get layer(): number {
    return this.#layer
  }

  answer(faults: readonly Fault[]): void {
    this.take()
    const grants: Grant[] = []
    for (const fault of faults) {
      if (fault.kind === 'write') grants.push(this.grantFor(fault))
      else this.loadLeaf(fault.block / leafBlocks)
    }
    if (grants.length > 0) this.native.grant(grants)
  }

  /** Those that wait; by hand no longer. */
  answerAll(): void {
    this.byHand = false
    this.answer(this.waiting.splice(0))
  }

  /** What would be granted now. A place once given to a block stays its until the log has it. */
  grantFor({ block, wholeBlock }: Fault): Grant {
    const own = this.#pool.own(this.#layer, block)
    if (own !== undefined) return { block, location: own, mapped: true, writable: true, known: true }
    const again = this.#granted.get(block)
    const location = again ?? this.#pool.nextPlace()
    this.#granted.set(block, location)
    const grant = { block, location, mapped: true, writable: true }
    if (wholeBlock) return { ...grant, reserve: true }
    const old = this.#pool.find(this.#layer, block)
    if (old !== undefined) return { ...grant, copyFrom: old }
    return this.isDirty || again !== undefined ? { ...grant, copyFrom: -1 } : grant
  }

  loadLeaf(leaf: number): void {
    const entries = new Float64Array(leafBlocks).fill(-1)
    for (const block of this.#pool.blocks(this.#layer)) {
      if (Math.floor(block / leafBlocks) !== leaf) continue
      const location = this.#pool.find(this.#layer, block)
      const isOwn = this.#pool.own(this.#layer, block) !== undefined
      if (location !== undefined) entries[block % leafBlocks] = location * 2 + (isOwn ? 1 : 0)
    }
    this.native.loadLeaf(leaf, entries.some((entry) => entry >= 0) ? entries : null)
  }

  take(): void {
    this.#pool.take()
    // Not what this call took: the pool takes on its own too.
    for (const { type, layer, block, value } of this.#pool.log.slice(this.#seen)) {
      if (type === 'map' && layer === this.#layer && this.#granted.get(block) === value) this.#granted.delete(block)
    }
    this.#seen = this.#pool.log.length
  }

  /** Go on with another layer on top of the one before. What comes meanwhile waits for the new one. */
  async freeze(layer: number): Promise<readonly { block: number; location: number }[]> {
    const wasByHand = this.byHand
    this.byHand = true
    // Before: a hole may be published under it before this hears of the end.
    this.#pool.addLayer(layer, this.#layer)
    const { dropped } = await this.native.freeze(layer, operation())
    this.take()
    for (const { block, location } of dropped) {
      if (this.#granted.get(block) === location) this.#granted.delete(block)
    }
    assert.equal(this.#granted.size, 0, 'everything given out was published or dropped')
    this.#layer = layer
    if (!wasByHand) this.answerAll()
    return dropped
  }
}

/** A folder with a pool and volumes in it; close() gives back whatever is left of them. */
export class ThinRig {
  readonly rig: Rig
  readonly pool: TinyPool
  readonly #volumes: TinyVolume[] = []
  readonly #isDirty: boolean

  private constructor(rig: Rig, pool: TinyPool, isDirty: boolean) {
    this.rig = rig
    this.pool = pool
    this.#isDirty = isDirty
  }

  /** @param isDirty the pool is full of random bytes, as if others had used it before */
  static async open(sizeBytes = 64 * MiB, isDirty = false, file?: string): Promise<ThinRig> {
    const rig = await Rig.open()
    const device = file ?? (await rig.backing('pool', sizeBytes))
    if (isDirty) {
      const handle = await open(device, 'r+')
      for (let at = 0; at < sizeBytes; at += MiB) await handle.write(randomBytes(MiB), 0, MiB, at)
      await handle.close()
    }
    return new ThinRig(rig, new TinyPool(device, sizeBytes), isDirty)
  }

  volume(layer: number, sizeBytes: number, options: Partial<VolumeOptions> = {}): TinyVolume {
    const volume = new TinyVolume(this.rig, this.pool, layer, sizeBytes, { ...options, isDirty: this.#isDirty })
    this.#volumes.push(volume)
    return volume
  }

  /** A volume of a layer of its own. */
  newVolume(layer: number, sizeBytes: number, options: Partial<VolumeOptions> = {}): TinyVolume {
    this.pool.addLayer(layer)
    return this.volume(layer, sizeBytes, options)
  }

  async close(): Promise<void> {
    for (const volume of this.#volumes) {
      // Hosts that a failed test leaves behind would wait for ever, and so would the detach.
      volume.answerAll()
      const { native } = volume
      for (const step of [
        () => native.detach(),
        () => native.unserve(),
        () => native.setJournal(null, volumeIndex(0)),
        () => native.close(),
      ]) {
        await step().catch(() => undefined)
      }
    }
    await this.pool.close().catch(() => undefined)
    await this.rig.close()
  }
}
