import assert from 'node:assert/strict'
import { isName } from '../block/names.js'
import { StorageError } from '../block/storage-error.js'
import type { OpenThinVolume, ThinPool, ThinVolumeFacts } from '../pool/thin-pool.js'
import { FrontEnd, type FrontEndOptions, type OpenedVolume } from './front-end.js'

/** VOLUME, or VOLUME@SNAPSHOT. */
export function thinName(volume: string, snapshot: string | null): string {
  return snapshot === null ? volume : `${volume}@${snapshot}`
}

/**
 * A volume of a pool, or a snapshot of one as it was taken. It is known by its name: what the pool has under that name is what is
 * opened, on the first hold or attach, and closed when nobody needs it any more.
 */
export class ThinVolume extends FrontEnd {
  readonly pool: ThinPool
  readonly volume: string
  readonly snapshot: string | null
  readonly kind = 'thin'
  protected readonly servesFile = true
  #thin: OpenThinVolume | undefined

  constructor(pool: ThinPool, volume: string, snapshot: string | null, options: FrontEndOptions) {
    super(options)
    this.pool = pool
    this.volume = volume
    this.snapshot = snapshot
  }

  get name(): string {
    return thinName(this.volume, this.snapshot)
  }

  /** @throws StorageError NO_SUCH_VOLUME */
  get facts(): ThinVolumeFacts {
    return this.pool.volume(this.volume)
  }

  get sizeBytes(): number {
    const { facts } = this
    if (this.snapshot === null) return facts.sizeBytes
    const found = facts.snapshots.find(({ name }) => name === this.snapshot)
    if (found) return found.sizeBytes
    throw new StorageError('NO_SUCH_SNAPSHOT', {
      op: 'volume',
      object: this.name,
      hint: `See: tidemark snapshot list ${this.volume}`,
    })
  }

  get readOnly(): boolean {
    return this.snapshot !== null || this.facts.role === 'inbound'
  }

  get path(): string {
    return this.servedFile
  }

  nextData(offset: number): number | undefined {
    assert(this.#thin, `${this.name} is not held`)
    return this.#thin.nextMapped(offset)
  }

  /** A device may be read-only, what the file serves is not: destaging writes an arriving volume. */
  protected open(): Promise<OpenedVolume> {
    return this.openPool(this.snapshot !== null)
  }

  protected async openPool(readOnly: boolean): Promise<OpenedVolume> {
    const { volume, snapshot } = this
    const { threads } = this.options
    const onLost = (message: string): void => this.noteLost(message)
    const thin = await this.pool.open(volume, snapshot, { readOnly, threads, onLost })
    this.#thin = thin
    const close = async (): Promise<void> => {
      this.#thin = undefined
      await thin.close()
    }
    return { native: thin.native, close }
  }

  override checkUsable(): void {
    if (!isName(this.volume)) {
      throw new StorageError('IMAGE_INCOMPLETE', {
        op: 'volume',
        object: this.name,
        hint: `The stream that brought it never completed it. To have its space back: tidemark volume remove ${this.name} --yes`,
      })
    }
    if (this.snapshot !== null || this.facts.image?.complete !== false) return
    throw new StorageError('IMAGE_INCOMPLETE', {
      op: 'volume',
      object: this.name,
      retry: 'later',
      hint: `It is being copied, or its copy was interrupted. See: tidemark volume show ${this.name}`,
    })
  }
}
