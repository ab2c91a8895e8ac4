import type { ImageGeneration, Images } from './images.js'
import type { InboundVolume } from './inbound-state.js'

export interface StreamImagesOptions {
  readonly files: Images
  readonly thin: Images
  /** A new generation is made thin. */
  readonly preferThin: boolean
}

/** The images of one arriving stream, thin or as files. What was begun in one way stays so until its next generation. */
export class StreamImages implements Images {
  readonly #options: StreamImagesOptions

  constructor(options: StreamImagesOptions) {
    this.#options = options
  }

  begin(generation: ImageGeneration): Promise<InboundVolume[]> {
    const { files, thin, preferThin } = this.#options
    return (preferThin ? thin : files).begin(generation)
  }

  open(volumes: readonly InboundVolume[], consistent: boolean): Promise<void> {
    return this.#of(volumes[0]).open(volumes, consistent)
  }

  path(volume: InboundVolume): string {
    return this.#of(volume).path(volume)
  }

  target(volume: InboundVolume, consistent: boolean): Promise<string> {
    return this.#of(volume).target(volume, consistent)
  }

  disks(volume: InboundVolume, consistent: boolean): Promise<readonly string[]> {
    return this.#of(volume).disks(volume, consistent)
  }

  isInPlace(volume: InboundVolume): Promise<boolean> {
    return this.#of(volume).isInPlace(volume)
  }

  promote(volumes: readonly InboundVolume[]): Promise<void> {
    return this.#of(volumes[0]).promote(volumes)
  }

  async remove(volumes: readonly InboundVolume[]): Promise<void> {
    const { files, thin } = this.#options
    await thin.remove(volumes.filter((volume) => volume.thin))
    // Also of a generation before, which was made of files.
    await files.remove(volumes)
  }

  close(): Promise<void> {
    return this.#options.thin.close()
  }

  #of(volume: InboundVolume | undefined): Images {
    return volume?.thin ? this.#options.thin : this.#options.files
  }
}
