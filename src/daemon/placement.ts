import { StorageError } from '../block/storage-error.js'
import { deviceNumber, type StorageBelow, storageBelow } from '../volume/storage-below.js'

export interface PlacementOptions {
  readonly runDirectory: string
  /** Paths that a volume of this agent keeps its bytes in. */
  readonly backingOf: (volume: string) => readonly string[]
  /** What the agent writes to while hosts wait. */
  readonly folders: () => readonly { readonly what: string; readonly path: string }[]
}

/**
 * Where the agent's own folders lie with respect to its volumes. A write to a volume is acknowledged once the journal has
 * it: a journal on that volume would wait for itself.
 */
export class Placement {
  readonly #options: PlacementOptions

  constructor(options: PlacementOptions) {
    this.#options = options
  }

  /** @throws StorageError ON_OWN_VOLUME when a folder of the agent lies on one of its volumes */
  async checkFolders(op: string): Promise<void> {
    for (const { what, path } of this.#options.folders()) await this.check(op, what, path)
  }

  /** @throws StorageError ON_OWN_VOLUME */
  async check(op: string, what: string, path: string): Promise<void> {
    const [volume] = (await this.#below(path)).volumes
    if (volume === undefined) return
    throw new StorageError('ON_OWN_VOLUME', {
      op,
      object: path,
      hint: `The ${what} lies on the volume ${volume} and would wait for itself. Give it a folder on another disk.`,
    })
  }

  /** @throws StorageError ON_OWN_VOLUME when a folder of the agent lies on what shall become a volume */
  async checkNewVolume(op: string, backing: string): Promise<void> {
    const device = await deviceNumber(backing)
    for (const { what, path } of this.#options.folders()) {
      const { devices, files } = await this.#below(path)
      if (!files.has(backing) && (device === undefined || !devices.has(device))) continue
      throw new StorageError('ON_OWN_VOLUME', {
        op,
        object: backing,
        hint: `The ${what} ${path} lies on it: a volume of it would wait for itself. Move that to another disk first.`,
      })
    }
  }

  /** The disk that a folder has in common with a volume, or null. What cannot be told is no reason to warn. */
  async sharedDisk(folder: string, volumes: readonly string[]): Promise<string | null> {
    try {
      const { disks } = await this.#below(folder)
      for (const backing of volumes.flatMap((volume) => this.#options.backingOf(volume))) {
        const shared = [...(await this.#below(backing)).disks].find((disk) => disks.has(disk))
        if (shared !== undefined) return shared
      }
    } catch {
      // Warned of is what is known.
    }
    return null
  }

  #below(path: string): Promise<StorageBelow> {
    const { runDirectory, backingOf } = this.#options
    return storageBelow(path, { runDirectory, backingOf })
  }
}
