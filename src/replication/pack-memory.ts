import { alignedBuffer } from '../block/aligned-buffer.js'
import { PART_FILE_LIMIT } from '../replication-file/limits.js'
import { EPOCH_COPY_LIMIT, EPOCH_JOURNAL_LIMIT } from './pack-job.js'

/** Parts in memory at once: one is made while the one before is written. */
export const PART_AREA_COUNT = 2
/** Nothing is kept longer than this after the last epoch. */
const keepMs = 5_000

/**
 * The memory epochs are made in, kept from one to the next: new memory for each would cost its pages, and the collector's time.
 *
 * At the most EPOCH_JOURNAL_LIMIT + EPOCH_COPY_LIMIT + PART_AREA_COUNT * PART_FILE_LIMIT; the system gives pages as they are
 * touched. Of the areas for journal and copy there is one each: one epoch is read at a time.
 */
export class PackMemory {
  #journal: Buffer | undefined
  #copy: Buffer | undefined
  #parts: Buffer[] = []
  #partsInUse = 0
  readonly #waiting: (() => void)[] = []
  #idle: NodeJS.Timeout | undefined

  /** EPOCH_JOURNAL_LIMIT bytes, of any content. */
  get journal(): Buffer {
    this.#journal ??= Buffer.allocUnsafeSlow(EPOCH_JOURNAL_LIMIT)
    return this.#journal
  }

  /** EPOCH_COPY_LIMIT bytes, of any content. */
  get copy(): Buffer {
    this.#copy ??= Buffer.allocUnsafeSlow(EPOCH_COPY_LIMIT)
    return this.#copy
  }

  /** PART_FILE_LIMIT bytes, aligned, until they are given back, as soon as there are some. */
  async takePart(): Promise<Buffer> {
    while (this.#partsInUse === PART_AREA_COUNT) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    this.#partsInUse += 1
    clearTimeout(this.#idle)
    return this.#parts.pop() ?? alignedBuffer(PART_FILE_LIMIT)
  }

  givePart(area: Buffer): void {
    this.#partsInUse -= 1
    this.#parts.push(area)
    this.#waiting.shift()?.()
    clearTimeout(this.#idle)
    if (this.#partsInUse === 0) this.#idle = setTimeout(() => this.#drop(), keepMs).unref()
  }

  #drop(): void {
    this.#journal = undefined
    this.#copy = undefined
    this.#parts = []
  }
}
