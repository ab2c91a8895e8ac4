import type { StateStore } from '../block/state-store.js'
import { StorageError } from '../block/storage-error.js'
import { sectorBytes } from '../block/units.js'
import type { Intercept } from '../intercept/addon.js'
import { type BackingFacts, createBacking, emptyDevice, inspectBacking } from '../volume/backing-checks.js'
import type { FrontEndOptions } from '../volume/front-end.js'
import { Volume, type VolumeDefinition } from '../volume/volume.js'
import type { PoolEngine } from './pool-engine.js'

export interface PathVolumesOptions {
  readonly store: StateStore
  readonly frontEnd: FrontEndOptions
  readonly direct: boolean
  /** Folders of the agent: a volume in its own buffer would feed on itself. */
  readonly forbidden: readonly string[]
  /** @throws StorageError ON_OWN_VOLUME when the agent itself uses what lies on it */
  readonly checkPlace: (op: string, path: string) => Promise<void>
  /** The pool that has a file or device at this path (without links), in words. */
  readonly poolAt: (path: string) => string | undefined
  /** The id of the pool that lies there, whoever has it, or undefined. */
  readonly identify: PoolEngine['identify']
}

/** The volumes whose backing is a file or device that an administrator named. Names are checked by the caller. */
export class PathVolumes {
  readonly #options: PathVolumesOptions
  readonly #volumes = new Map<string, Volume>()

  constructor(options: PathVolumesOptions) {
    this.#options = options
    for (const { value } of options.store.list<VolumeDefinition>('volume/')) this.#admit(value)
  }

  find(name: string): Volume | undefined {
    return this.#volumes.get(name)
  }

  /** The volume that has this path (without links), in words. */
  at(path: string): string | undefined {
    const found = this.all().find(({ definition }) => definition.path === path)
    return found && `the volume ${found.name}`
  }

  all(): Volume[] {
    return [...this.#volumes.values()]
  }

  async adopt(name: string, given: string): Promise<Volume> {
    const op = 'volume adopt'
    const facts = await inspectBacking(op, given, this.#options.forbidden)
    this.#refuseTaken(op, facts.path)
    await this.#options.checkPlace(op, facts.path)
    await this.#refusePool(op, facts.path, 'Writing to it as a volume would destroy that.')
    return this.#add(name, facts)
  }

  async create(name: string, given: string, sizeBytes: number, force: boolean): Promise<Volume> {
    if (sizeBytes % sectorBytes !== 0) {
      throw new StorageError('BAD_SIZE', { op: 'volume create', object: name, hint: 'Use a multiple of 512 bytes.' })
    }
    const facts = await createBacking(given, sizeBytes, this.#options.forbidden, force)
    this.#refuseTaken('volume create', facts.path)
    if (facts.kind === 'raw') await this.#options.checkPlace('volume create', facts.path)
    if (facts.kind === 'raw' && !force) await this.#refusePool('volume create', facts.path, 'To lose it: --force.')
    return this.#add(name, facts, sizeBytes)
  }

  /** Its data stay where they are. */
  async remove(name: string): Promise<void> {
    this.#volumes.delete(name)
    await this.#options.store.remove([`volume/${name}`])
  }

  /** How it is to be attached by an agent that starts, or null. */
  wish(name: string): { readonly readOnly: boolean } | null {
    const definition = this.#options.store.get<VolumeDefinition>(`volume/${name}`)
    return definition?.attached ? { readOnly: definition.readOnly ?? false } : null
  }

  async recordWish(name: string, wish: { readonly readOnly: boolean } | null): Promise<void> {
    const definition = this.#volumes.get(name)?.definition
    if (definition) await this.#record({ ...definition, attached: wish !== null, readOnly: wish?.readOnly ?? false })
  }

  #admit(definition: VolumeDefinition): Volume {
    const { frontEnd, direct } = this.#options
    const volume = new Volume(definition, { ...frontEnd, direct })
    this.#volumes.set(definition.name, volume)
    return volume
  }

  #refuseTaken(op: string, path: string): void {
    const twin = this.all().find(({ definition }) => definition.path === path)
    if (twin) {
      const hint = `It backs the volume ${twin.name} already.`
      throw new StorageError('ALREADY_A_VOLUME', { op, object: path, hint })
    }
    const pool = this.#options.poolAt(path)
    if (pool !== undefined) {
      throw new StorageError('ALREADY_IN_USE', { op, object: path, hint: `It belongs to ${pool}.` })
    }
  }

  /** No other program knows a pool when it sees one. @throws StorageError DATA_PRESENT */
  async #refusePool(op: string, path: string, hint: string): Promise<void> {
    const id = await this.#options.identify(path)
    if (id === undefined) return
    const what = `It is a part of the pool ${id}, which tidemark pool import takes in.`
    throw new StorageError('DATA_PRESENT', { op, object: path, hint: `${what} ${hint}` })
  }

  /** @param wantedBytes a new volume; of a block device it uses only so much, and empties that */
  async #add(name: string, facts: BackingFacts, wantedBytes?: number): Promise<Volume> {
    this.#refuseTaken('volume create', facts.path)
    const pool = this.#options.poolAt(facts.path)
    if (pool !== undefined) {
      throw new StorageError('ALREADY_IN_USE', {
        op: 'volume adopt',
        object: facts.path,
        hint: `It belongs to ${pool}.`,
      })
    }
    const sizeBytes = facts.sizeBytes ?? (await this.#deviceSize(name, facts.path, wantedBytes))
    if (facts.kind === 'raw' && wantedBytes !== undefined) await emptyDevice(facts.path, sizeBytes)
    const definition: VolumeDefinition = { name, path: facts.path, kind: facts.kind, sizeBytes, attached: false }
    await this.#record(definition)
    return this.#admit(definition)
  }

  /** Opening exclusively is also what tells whether the device is in use. */
  async #deviceSize(name: string, device: string, wantedBytes: number | undefined): Promise<number> {
    const { sizeBytes } = await openForSize(this.#options.frontEnd.intercept, name, device)
    if (wantedBytes === undefined || wantedBytes <= sizeBytes) return wantedBytes ?? sizeBytes
    throw new StorageError('BAD_SIZE', {
      op: 'volume create',
      object: device,
      hint: `The device has ${sizeBytes} bytes; ask for no more.`,
    })
  }

  async #record(definition: VolumeDefinition): Promise<void> {
    await this.#options.store.put({ [`volume/${definition.name}`]: definition })
  }
}

async function openForSize(intercept: Intercept, name: string, device: string): Promise<{ sizeBytes: number }> {
  const options = { sizeBytes: 0, direct: false, readOnly: false, syncBacking: false, threads: 1 }
  const native = intercept.openVolume({ name, path: device, ...options })
  const { sizeBytes } = native
  await native.close()
  return { sizeBytes }
}
