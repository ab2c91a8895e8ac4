import { Exclusive } from '../block/exclusive.js'
import type { VolumeCounters } from '../intercept/addon.js'
import type { ThinPool } from '../pool/thin-pool.js'
import { attachedOtherwise, type FrontEndOptions, type OpenedVolume } from './front-end.js'
import type { AttachOptions } from './host-volume.js'
import { ThinVolume } from './thin-volume.js'

/** The device of a snapshot that its host writes: what it shows is not what was taken, so nobody else has it. */
class WrittenSnapshot extends ThinVolume {
  override get readOnly(): boolean {
    return false
  }

  protected override open(): Promise<OpenedVolume> {
    return this.openPool(false)
  }
}

/**
 * A snapshot. Attached read-only, and to whoever holds it, it is what was taken; attached read-write it is that with what
 * hosts have written to it since. So a copy of it can be made, and is of the moment it was taken, while its host writes.
 *
 * One device at a time: both would have the same name.
 */
export class ThinSnapshot extends ThinVolume {
  readonly #written: WrittenSnapshot
  /** Held while it is decided which of the two is attached. */
  readonly #turns = new Exclusive()

  constructor(pool: ThinPool, volume: string, snapshot: string, options: FrontEndOptions) {
    super(pool, volume, snapshot, options)
    this.#written = new WrittenSnapshot(pool, volume, snapshot, options)
  }

  override get device(): string | null {
    return this.#written.device ?? super.device
  }

  override get link(): string | null {
    return this.#written.link ?? super.link
  }

  override get attachedReadOnly(): boolean {
    return this.#written.device === null && super.attachedReadOnly
  }

  override get lost(): string | undefined {
    return this.#written.device === null ? super.lost : this.#written.lost
  }

  override get logicalBlockBytes(): number {
    return this.#written.device === null ? super.logicalBlockBytes : this.#written.logicalBlockBytes
  }

  override counters(): VolumeCounters {
    return this.#written.device === null ? super.counters() : this.#written.counters()
  }

  /** Read-write unless told otherwise. */
  override attach(options: AttachOptions = {}): Promise<string> {
    return this.#turns.run(async () => {
      if (this.device !== null && this.lost === undefined) {
        if (options.readOnly === undefined || options.readOnly === this.attachedReadOnly) return this.device
        throw attachedOtherwise(this)
      }
      // One that was lost may come back the other way.
      if (options.readOnly) await this.#written.detach()
      else await super.detach()
      return options.readOnly ? super.attach({ readOnly: true }) : this.#written.attach({ readOnly: false })
    })
  }

  override detach(): Promise<void> {
    return this.#turns.run(() => (this.#written.device === null ? super.detach() : this.#written.detach()))
  }
}
