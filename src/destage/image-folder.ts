import { open, rename, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { makeFolder, syncDirectory } from '../block/durable-file.js'
import { errnoOf } from '../block/storage-error.js'
import type { ImageGeneration, Images } from './images.js'
import type { InboundVolume } from './inbound-state.js'

const incomingSuffix = '.incoming'

/** The images of one arriving stream as sparse files. */
export class ImageFolder implements Images {
  readonly directory: string

  constructor(directory: string) {
    this.directory = directory
  }

  path(volume: InboundVolume): string {
    return path.join(this.directory, `${volume.name}.img`)
  }

  async target(volume: InboundVolume, consistent: boolean): Promise<string> {
    return consistent || (await this.isInPlace(volume)) ? this.path(volume) : this.path(volume) + incomingSuffix
  }

  async isInPlace(volume: InboundVolume): Promise<boolean> {
    return !(await exists(this.path(volume) + incomingSuffix))
  }

  async disks(volume: InboundVolume, consistent: boolean): Promise<readonly string[]> {
    return [await this.target(volume, consistent)]
  }

  async open(): Promise<void> {}

  async close(): Promise<void> {}

  async remove(volumes: readonly InboundVolume[]): Promise<void> {
    for (const volume of volumes) {
      const file = this.path(volume)
      for (const each of [file, file + incomingSuffix]) await rm(each, { force: true })
    }
    if (await exists(this.directory)) await syncDirectory(this.directory)
  }

  async begin({ volumes }: ImageGeneration): Promise<InboundVolume[]> {
    await makeFolder(this.directory)
    for (const volume of volumes) {
      const incoming = this.path(volume) + incomingSuffix
      await rm(incoming, { force: true })
      const handle = await open(incoming, 'wx', 0o600)
      try {
        await handle.truncate(volume.sizeBytes)
        await handle.sync()
      } finally {
        await handle.close()
      }
    }
    await syncDirectory(this.directory)
    return [...volumes]
  }

  async promote(volumes: readonly InboundVolume[]): Promise<void> {
    for (const volume of volumes) {
      const incoming = this.path(volume) + incomingSuffix
      if (await exists(incoming)) await rename(incoming, this.path(volume))
      // One that is nowhere has not taken its place.
      else await stat(this.path(volume))
    }
    await syncDirectory(this.directory)
  }
}

/** @throws what the file system says: to take that for an absence would write the new generation over the old one */
async function exists(file: string): Promise<boolean> {
  try {
    await stat(file)
    return true
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false
    throw error
  }
}
