import type { ReportEvent } from '../block/event-log.js'
import type { SourceStream } from '../replication/source-stream.js'
import type { Placement } from './placement.js'

/** More streams than these have their warnings in one event. */
const singleEvents = 10

export interface SharedDisksOptions {
  readonly placement: Placement
  readonly report: ReportEvent
  readonly bufferDirectory: string
}

/** Which source buffers lie on a disk with a volume. Nothing is refused: a machine may have but one disk. */
export class SharedDisks {
  readonly #options: SharedDisksOptions
  readonly #disks = new Map<string, string | null>()

  constructor(options: SharedDisksOptions) {
    this.#options = options
  }

  /** Of the buffer with a volume, as it was when it was looked at last. */
  of(stream: string): string | null {
    return this.#disks.get(stream) ?? null
  }

  /** @returns whether the buffer shares a disk with a volume */
  async look({ definition: { name, volumes }, buffer: { directory } }: SourceStream): Promise<boolean> {
    const names = volumes.map((volume) => volume.name)
    const disk = await this.#options.placement.sharedDisk(directory, names)
    this.#disks.set(name, disk)
    return disk !== null
  }

  async lookAndSay(stream: SourceStream): Promise<void> {
    if (await this.look(stream)) this.say([stream])
  }

  /** Of many at once in one event: they would drive all else out of the log. */
  say(streams: readonly SourceStream[]): void {
    const warn = (object: string, text: string): void => {
      this.#options.report({ severity: 'warning', code: 'BUFFER_SHARES_DISK', object, text })
    }
    const why = 'they slow each other, and are lost together.'
    if (streams.length > singleEvents) {
      const text = `The source buffers of ${streams.length} streams lie on a disk with a volume: ${why}`
      warn(this.#options.bufferDirectory, text)
      return
    }
    for (const { definition, buffer } of streams) {
      const disk = this.of(definition.name)
      warn(definition.name, `The source buffer ${buffer.directory} and a volume lie on the disk ${disk}: ${why}`)
    }
  }
}
