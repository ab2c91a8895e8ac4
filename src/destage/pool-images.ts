import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { StorageError } from '../block/storage-error.js'
import type { ThinPool } from '../pool/thin-pool.js'
import type { HostVolume } from '../volume/host-volume.js'
import type { ImageGeneration, Images } from './images.js'
import type { InboundVolume } from './inbound-state.js'

/** Longest name of a volume. */
const nameLimit = 63

export interface PoolImagesOptions {
  /** Of the pool in which generations are begun; undefined: none is. */
  readonly poolName: string | undefined
  /** undefined while it is not open. */
  readonly pool: () => ThinPool | undefined
  /** Any pool that is open: what was begun in one stays in it. */
  readonly poolOf: (id: string) => ThinPool | undefined
  /** The one object of this agent for a volume of the pool. */
  readonly volume: (pool: ThinPool, name: string) => HostVolume
  /** It was renamed or removed. */
  readonly forget: (name: string) => void
  /** Whether a name is used outside the pool, or claimed by another arriving stream. */
  readonly isTaken: (name: string) => boolean
}

/** The images of one arriving stream as thin volumes. What replaces a volume takes its snapshots over. */
export class PoolImages implements Images {
  readonly #options: PoolImagesOptions
  readonly #held = new Map<string, HostVolume>()

  constructor(options: PoolImagesOptions) {
    this.#options = options
  }

  async begin({ stream, volumes, before }: ImageGeneration): Promise<InboundVolume[]> {
    const pool = this.#pool()
    const made: InboundVolume[] = []
    for (const volume of volumes) {
      const known = before.find(({ name, thin }) => name === volume.name && thin?.poolId === pool.id)?.thin
      const isTaken = known !== undefined && isForeign(pool, known.volume)
      if (isTaken) await this.#drop(pool, incomingName(known.volume))
      const name = known && !isTaken ? known.volume : this.#freeName(pool, `${stream}.${volume.name}`, made)
      const incoming = incomingName(name)
      await this.#drop(pool, incoming)
      await pool.createVolume(incoming, volume.sizeBytes, 'inbound')
      made.push({ ...volume, thin: { poolId: pool.id, volume: name } })
    }
    return made
  }

  async open(volumes: readonly InboundVolume[], consistent: boolean): Promise<void> {
    for (const volume of volumes) {
      const pool = this.#poolOf(volume)
      const { volume: name } = thinOf(volume)
      const incoming = incomingName(name)
      if (has(pool, name) && !isForeign(pool, name)) await this.#hold(pool, name)
      if (!consistent && has(pool, incoming)) await this.#hold(pool, incoming)
    }
  }

  path(volume: InboundVolume): string {
    return this.#held.get(thinOf(volume).volume)?.path ?? ''
  }

  async target(volume: InboundVolume, consistent: boolean): Promise<string> {
    const { volume: name } = thinOf(volume)
    const incoming = incomingName(name)
    const pool = this.#poolOf(volume)
    const isIncoming = !consistent && !(await this.isInPlace(volume))
    if (!isIncoming && isForeign(pool, name)) throw taken(name)
    const held = this.#held.get(isIncoming ? incoming : name)
    assert(held, `${name} is not open`)
    return held.path
  }

  async isInPlace(volume: InboundVolume): Promise<boolean> {
    return !has(this.#poolOf(volume), incomingName(thinOf(volume).volume))
  }

  async disks(volume: InboundVolume): Promise<readonly string[]> {
    return this.#poolOf(volume)
      .facts()
      .devices.map(({ path }) => path)
  }

  async promote(volumes: readonly InboundVolume[]): Promise<void> {
    for (const volume of volumes) {
      const pool = this.#poolOf(volume)
      const { volume: name } = thinOf(volume)
      const incoming = incomingName(name)
      if (!has(pool, incoming)) continue
      if (isForeign(pool, name)) throw taken(name)
      if (has(pool, name) && this.#options.volume(pool, name).device !== null) throw attached(name)
      await this.#letGo(incoming)
      await this.#letGo(name)
      await pool.renameVolume(incoming, name, true).catch((error) => {
        throw error instanceof StorageError && error.code === 'VOLUME_OPEN' ? attached(name) : error
      })
      this.#options.forget(incoming)
      await this.#hold(pool, name)
    }
    // Of a generation before this one in another pool, or a volume that the source declares no more.
    const shown = new Set(volumes.map((volume) => thinOf(volume).volume))
    for (const name of this.#held.keys()) if (!shown.has(name)) await this.#letGo(name)
  }

  async remove(volumes: readonly InboundVolume[]): Promise<void> {
    const { poolName, poolOf } = this.#options
    for (const volume of volumes) {
      const { poolId, volume: name } = thinOf(volume)
      const incoming = incomingName(name)
      const pool = poolOf(poolId)
      // It may be the one that is named and not open: what is incomplete would stay in it, under a name that nobody sees.
      if (!pool && poolName !== undefined) this.#pool()
      for (const each of [incoming, name]) await this.#letGo(each)
      if (!pool) continue
      for (const each of [incoming, name]) {
        if (isForeign(pool, each)) continue
        if (has(pool, each)) await pool.removeVolume(each)
        this.#options.forget(each)
      }
    }
  }

  async close(): Promise<void> {
    for (const name of [...this.#held.keys()]) await this.#letGo(name)
  }

  async #hold(pool: ThinPool, name: string): Promise<void> {
    const held = this.#held.get(name)
    if (held && held.lost === undefined) return
    // One that was lost is opened again.
    if (held) await this.#letGo(name)
    const volume = this.#options.volume(pool, name)
    await volume.hold()
    this.#held.set(name, volume)
  }

  async #drop(pool: ThinPool, incoming: string): Promise<void> {
    await this.#letGo(incoming)
    if (has(pool, incoming)) await pool.removeVolume(incoming)
  }

  async #letGo(name: string): Promise<void> {
    const held = this.#held.get(name)
    this.#held.delete(name)
    await held?.release()
  }

  #freeName(pool: ThinPool, wanted: string, made: readonly InboundVolume[]): string {
    const { isTaken } = this.#options
    // A dot at the end of one name and the one between make what is no name.
    const whole = wanted.replaceAll(/\.{2,}/g, '.')
    for (let count = 1; ; count++) {
      const name = fitted(whole, count === 1 ? '' : `-${count}`)
      const mine = made.some(({ thin }) => thin?.volume === name)
      if (!mine && !has(pool, name) && !isTaken(name)) return name
    }
  }

  #pool(): ThinPool {
    const pool = this.#options.pool()
    if (pool) return pool
    throw new StorageError('POOL_MISSING', {
      op: 'destage',
      object: this.#options.poolName ?? 'inbound.pool',
      retry: 'later',
      hint: `The pool of arriving volumes is not open; what arrives, or is to be removed, waits for it. See: tidemark pool list`,
    })
  }

  #poolOf(volume: InboundVolume): ThinPool {
    const pool = this.#options.poolOf(thinOf(volume).poolId)
    if (pool) return pool
    throw new StorageError('POOL_MISSING', {
      op: 'destage',
      object: thinOf(volume).volume,
      retry: 'later',
      hint: 'The pool in which it arrives is not open; what arrives waits for it. See: tidemark pool list. If that pool is gone for good: name another one in inbound.pool, start the agent again, then: tidemark inbound remove',
    })
  }
}

/** No operator can give a name with a dot in front: what is incomplete is attached by nobody. */
export function incomingName(name: string): string {
  return `.${name}.incoming`
}

function thinOf({ name, thin }: InboundVolume): NonNullable<InboundVolume['thin']> {
  assert(thin, `${name} is not thin`)
  return thin
}

function has(pool: ThinPool, volume: string): boolean {
  return pool.volumes().some(({ name }) => name === volume)
}

/** An operator made it. */
function isForeign(pool: ThinPool, volume: string): boolean {
  return has(pool, volume) && pool.volume(volume).role !== 'inbound'
}

/** A name of its own for what is too long. */
function fitted(wanted: string, suffix: string): string {
  const limit = nameLimit - suffix.length
  if (wanted.length <= limit) return wanted + suffix
  const mark = `-${createHash('sha256').update(wanted).digest('hex').slice(0, 8)}`
  return wanted.slice(0, limit - mark.length) + mark + suffix
}

function attached(name: string): StorageError {
  return new StorageError('VOLUME_ATTACHED', {
    op: 'destage',
    object: name,
    retry: 'later',
    hint: `A new generation has arrived and takes its place. Detach it and its snapshots (tidemark volume detach ${name}), and end programs that read its file.`,
  })
}

/** Made by an operator since the stream began: it is not the stream's to replace. */
function taken(name: string): StorageError {
  return new StorageError('NAME_TAKEN', {
    op: 'destage',
    object: name,
    retry: 'later',
    hint: `Another volume has the name under which a stream arrives. Initialize the stream again at the source: it takes another name then. Or remove that volume: tidemark volume remove ${name}`,
  })
}
