import { KiB, MiB } from '../block/units.js'
import type { Backing } from './backing.js'

const blockBytes = 4 * KiB
/** Gathered at the most. */
const writeLimit = 1024
const gatheredLimitBytes = 8 * MiB
/** Written by itself: nothing is gained by gathering it. */
const largeBytes = 256 * KiB

/**
 * Writes to one backing that wait for each other only where they overlap. What one that is gathered would write is left out when
 * another takes its very place. Payloads must not change until they are flushed.
 *
 * A call that throws has done its own part, too: what fails may be one that was gathered before.
 */
export class GatheredWrites {
  readonly #backing: Backing
  #payloads: Uint8Array[] = []
  #offsets: number[] = []
  #gatheredBytes = 0
  /** By block: which of the gathered ones touches it. */
  readonly #touched = new Map<number, number>()

  constructor(backing: Backing) {
    this.#backing = backing
  }

  /** @throws StorageError as flush() */
  write(offset: number, bytes: Uint8Array): void {
    if (bytes.length >= largeBytes) {
      this.#afterFlush(() => this.#backing.write(offset, bytes))
      return
    }
    const first = Math.floor(offset / blockBytes)
    const last = Math.floor((offset + bytes.length - 1) / blockBytes)
    const same = this.#touched.get(first)
    if (same !== undefined && this.#offsets[same] === offset && this.#payloads[same]!.length === bytes.length) {
      this.#payloads[same] = bytes
      return
    }
    const gather = (): void => this.#gather(offset, bytes, first, last)
    if (this.#touches(first, last)) this.#afterFlush(gather)
    else gather()
    if (this.#payloads.length === writeLimit || this.#gatheredBytes >= gatheredLimitBytes) this.flush()
  }

  /** Reads as zeros behind what was written before. @throws StorageError as flush() */
  zero(offset: number, lengthBytes: number): void {
    this.#afterFlush(() => this.#backing.zero(offset, lengthBytes))
  }

  /** All are written when this returns; all were tried when it throws. @throws StorageError BACKING_FULL, BACKING_UNAVAILABLE */
  flush(): void {
    if (this.#payloads.length === 0) return
    const payloads = this.#payloads
    const offsets = this.#offsets
    this.#payloads = []
    this.#offsets = []
    this.#gatheredBytes = 0
    this.#touched.clear()
    this.#backing.writeMany(payloads, offsets)
  }

  /** @throws StorageError as flush(), and where the sync fails */
  sync(): void {
    this.flush()
    this.#backing.sync()
  }

  #afterFlush(action: () => void): void {
    try {
      this.flush()
    } finally {
      action()
    }
  }

  #touches(first: number, last: number): boolean {
    for (let block = first; block <= last; block++) if (this.#touched.has(block)) return true
    return false
  }

  #gather(offset: number, bytes: Uint8Array, first: number, last: number): void {
    for (let block = first; block <= last; block++) this.#touched.set(block, this.#payloads.length)
    this.#payloads.push(bytes)
    this.#offsets.push(offset)
    this.#gatheredBytes += bytes.length
  }
}
