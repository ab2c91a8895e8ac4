import type { InboundVolume } from './inbound-state.js'

/** A volume as its source declares it. */
export type DeclaredVolume = Omit<InboundVolume, 'thin'>

export interface ImageGeneration {
  readonly stream: string
  readonly volumes: readonly DeclaredVolume[]
  /** Of the generation before, whose images stay readable until this one is consistent. */
  readonly before: readonly InboundVolume[]
}

/**
 * Where the volumes of one arriving stream lie.
 *
 * A new generation grows beside the old one and takes its place when it is consistent, so that a state the source
 * passed through stays readable. Invariant: while a generation is not in place, an image without an incoming one took
 * its place already (a crash between two of them), for all incoming ones are made before anything of it is applied.
 */
export interface Images {
  /** Empty images for a new generation; the old ones stay. Resolves to what shall be recorded of its volumes. */
  begin(generation: ImageGeneration): Promise<InboundVolume[]>
  /** Make them readable and writable, as far as they are not. Before target(), and again whenever that may have changed. */
  open(volumes: readonly InboundVolume[], consistent: boolean): Promise<void>
  /** Where readers find a volume. */
  path(volume: InboundVolume): string
  /** Where a worker writes a volume. */
  target(volume: InboundVolume, consistent: boolean): Promise<string>
  /** The files and devices that hold its bytes in the end: what the page cache has of them hides what the disk says. */
  disks(volume: InboundVolume, consistent: boolean): Promise<readonly string[]>
  /** Whether, of a generation that is not in place, this one took its place already. */
  isInPlace(volume: InboundVolume): Promise<boolean>
  /**
   * The new generation is durable and consistent: it takes the place of the old one. May be called again.
   * @throws when one of its images is nowhere, or cannot be looked up: the generation has not taken its place then
   */
  promote(volumes: readonly InboundVolume[]): Promise<void>
  /**
   * They are gone, with what has arrived of the next ones; what is gone already is none. Those in a pool that is not
   * open, and not the configured one, stay in it. @throws StorageError VOLUME_OPEN, HAS_SNAPSHOTS, POOL_MISSING
   */
  remove(volumes: readonly InboundVolume[]): Promise<void>
  /** Nobody reads or writes them any more. */
  close(): Promise<void>
}
