import { open, rename, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { makeFolder, syncDirectory } from '../block/durable-file.js'
import type { InboundVolume } from './inbound-state.js'

const incomingSuffix = '.incoming'

/**
 * The image files of one arriving stream.
 *
 * A new generation grows beside the old one and takes its place when it is consistent, so that a state the source
 * passed through stays readable. Invariant: while a generation is not in place, an image without an incoming file was
 * renamed already (a crash between two renames), for all incoming files are made before the generation is recorded.
 */
export class ImageFolder {
  readonly directory: string

  constructor(directory: string) {
    this.directory = directory
  }

  /** Where readers find a volume. */
  path(volume: InboundVolume): string {
    return path.join(this.directory, `${volume.name}.img`)
  }

  /** Where the destager writes a volume. */
  async target(volume: InboundVolume, consistent: boolean): Promise<string> {
    const incoming = this.path(volume) + incomingSuffix
    return !consistent && (await exists(incoming)) ? incoming : this.path(volume)
  }

  /** Empty, sparse images for a new generation; the old ones stay. */
  async begin(volumes: readonly InboundVolume[]): Promise<void> {
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
  }

  /** The new generation is durable and consistent: it takes the place of the old one. May be called again. */
  async promote(volumes: readonly InboundVolume[]): Promise<void> {
    for (const volume of volumes) {
      const incoming = this.path(volume) + incomingSuffix
      if (await exists(incoming)) await rename(incoming, this.path(volume))
    }
    await syncDirectory(this.directory)
  }
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  )
}
