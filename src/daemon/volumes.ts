import path from 'node:path'
import type { VolumeView } from '../api/agent-operations.js'
import type { ReportEvent } from '../block/event-log.js'
import { checkName } from '../block/names.js'
import type { StateStore } from '../block/state-store.js'
import { StorageError } from '../block/storage-error.js'
import { sectorBytes } from '../block/units.js'
import type { Intercept } from '../intercept/addon.js'
import { type BackingFacts, createBacking, emptyDevice, inspectBacking } from '../volume/backing-checks.js'
import { Volume, type VolumeDefinition } from '../volume/volume.js'
import type { AgentConfig } from './config.js'

export interface VolumesOptions {
  readonly store: StateStore
  readonly intercept: Intercept
  readonly stateDirectory: string
  readonly config: AgentConfig
  readonly report: ReportEvent
}

/** The volumes of this agent, by name. */
export class Volumes {
  readonly #options: VolumesOptions
  readonly #volumes = new Map<string, Volume>()
  readonly #failures = new Map<string, string>()

  constructor(options: VolumesOptions) {
    this.#options = options
    for (const { value } of options.store.list<VolumeDefinition>('volume/')) this.#admit(value)
  }

  get(name: string): Volume {
    const volume = this.#volumes.get(name)
    if (volume) return volume
    throw new StorageError('NO_SUCH_VOLUME', { op: 'volume', object: name, hint: 'See: tidemark volume list' })
  }

  all(): Volume[] {
    return [...this.#volumes.values()].sort((a, b) => a.name.localeCompare(b.name))
  }

  async adopt(name: string, given: string): Promise<Volume> {
    this.#checkNew(name)
    return this.#add(name, await inspectBacking('volume adopt', given, this.#forbidden()))
  }

  async create(name: string, given: string, sizeBytes: number, force: boolean): Promise<Volume> {
    this.#checkNew(name)
    if (sizeBytes % sectorBytes !== 0) {
      throw new StorageError('BAD_SIZE', { op: 'volume create', object: name, hint: 'Use a multiple of 512 bytes.' })
    }
    return this.#add(name, await createBacking(given, sizeBytes, this.#forbidden(), force), sizeBytes)
  }

  async attach(name: string): Promise<string> {
    const volume = this.get(name)
    try {
      const device = await volume.attach()
      this.#failures.delete(name)
      await this.#record({ ...volume.definition, attached: true })
      return device
    } catch (error) {
      if (volume.device === null) this.#failures.set(name, error instanceof Error ? error.message : String(error))
      throw error
    }
  }

  async detach(name: string): Promise<void> {
    const volume = this.get(name)
    await volume.detach()
    this.#failures.delete(name)
    await this.#record({ ...volume.definition, attached: false })
  }

  async remove(name: string): Promise<void> {
    const volume = this.get(name)
    if (volume.device !== null) {
      throw new StorageError('VOLUME_ATTACHED', {
        op: 'volume remove',
        object: name,
        hint: `Detach it first: tidemark volume detach ${name}`,
      })
    }
    this.#volumes.delete(name)
    await this.#options.store.remove([`volume/${name}`])
  }

  /** Whether it was attached when the agent stopped. */
  wantsAttached(name: string): boolean {
    return this.#options.store.get<VolumeDefinition>(`volume/${name}`)?.attached ?? false
  }

  view(volume: Volume, stream: string | null): VolumeView {
    const { name, path: backing, kind, sizeBytes } = volume.definition
    const failure = volume.lost ?? this.#failures.get(name)
    const state = failure !== undefined ? 'failed' : volume.device === null ? 'detached' : 'attached'
    const { reads, writes, flushes, trims, readBytes, writtenBytes, errors } = volume.counters()
    return {
      name,
      path: backing,
      kind,
      sizeBytes,
      device: volume.device,
      link: volume.link,
      state,
      reason: failure ?? (state === 'attached' ? 'serves its host' : 'not attached'),
      stream,
      logicalBlockBytes: volume.logicalBlockBytes,
      counters: { reads, writes, flushes, trims, readBytes, writtenBytes, errors },
    }
  }

  #admit(definition: VolumeDefinition): Volume {
    const { intercept, stateDirectory, config, report } = this.#options
    const volume = new Volume(definition, {
      intercept,
      runDirectory: path.join(stateDirectory, 'run'),
      threads: config.threads,
      direct: config.direct,
      onLost: ({ name }, message) =>
        report({
          severity: 'error',
          code: 'DEVICE_LOST',
          object: name,
          text: `${message}. Hosts get errors. Run: tidemark volume attach ${name}`,
        }),
    })
    this.#volumes.set(definition.name, volume)
    return volume
  }

  /** @param wantedBytes a new volume; of a block device it uses only so much, and empties that */
  async #add(name: string, facts: BackingFacts, wantedBytes?: number): Promise<Volume> {
    const twin = this.all().find(({ definition }) => definition.path === facts.path)
    if (twin) {
      throw new StorageError('ALREADY_A_VOLUME', {
        op: 'volume adopt',
        object: facts.path,
        hint: `It backs the volume ${twin.name} already.`,
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
    const { threads } = this.#options.config
    const native = this.#options.intercept.openVolume({
      name,
      path: device,
      sizeBytes: 0,
      direct: false,
      readOnly: false,
      syncBacking: false,
      threads,
    })
    const { sizeBytes } = native
    await native.close()
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

  #checkNew(name: string): void {
    checkName('volume', name)
    if (!this.#volumes.has(name)) return
    throw new StorageError('ALREADY_EXISTS', {
      op: 'volume',
      object: name,
      hint: 'A volume of this name exists. Choose another name.',
    })
  }

  #forbidden(): string[] {
    const { stateDirectory, config } = this.#options
    return [stateDirectory, config.bufferDirectory, config.inboundDirectory]
  }
}
