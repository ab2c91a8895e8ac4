import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { AgentEvent } from '../../src/block/event-log.js'
import { epochNumber, lsn, volumeIndex } from '../../src/block/units.js'
import { WorkerCalls } from '../../src/block/worker-calls.js'
import { ImageFolder } from '../../src/destage/image-folder.js'
import type { Images } from '../../src/destage/images.js'
import { InboundStream, type InboundStreamOptions } from '../../src/destage/inbound-stream.js'
import { Inbox } from '../../src/destage/inbox.js'
import { AcknowledgementReader } from '../../src/replication/acknowledgement-reader.js'
import { StreamState } from '../../src/replication/stream-state.js'
import {
  ACKNOWLEDGEMENT_NAME,
  type Acknowledgement,
  openAcknowledgement,
} from '../../src/replication-file/acknowledgement.js'
import { encodePart } from '../../src/replication-file/encode-part.js'
import type { PartHeader, PartRecord } from '../../src/replication-file/part.js'
import { partFileName } from '../../src/replication-file/part-file-name.js'
import type { Transport } from '../../src/transport/transport.js'
import { MemoryStore } from '../fixtures/memory-store.js'
import { scratchFolder } from '../fixtures/paths.js'

export const volumeBytes = 64 * 1024

interface Teardown {
  teardown(done: () => Promise<void> | void): void
}

export interface MadeEpoch {
  readonly name: string
  readonly bytes: Buffer
  readonly tag: Buffer
}

/** One arriving stream with a forge for its files: what a source would send, or what an attacker would. */
export class InboundRig {
  readonly folder: string
  readonly streamFolder: string
  readonly pairingId = randomBytes(16)
  readonly streamId = randomBytes(16)
  readonly secret = randomBytes(32)
  readonly events: Omit<AgentEvent, 'number' | 'time'>[] = []
  readonly store = new MemoryStore()
  readonly images: Images
  readonly worker = new WorkerCalls(new URL('../../src/destage/destage-worker.js', import.meta.url))
  stream!: InboundStream
  /** Looks at every state that is shown. */
  onApplied: (() => void | Promise<void>) | undefined
  inbox: Inbox | undefined
  #delivered = 0
  #stop = new AbortController()
  #running: Promise<void> | undefined

  /** @param imagesIn where images lie, given the folder of the rig; default: files in `images` */
  constructor(test: Teardown, imagesIn = (folder: string): Images => new ImageFolder(join(folder, 'images'))) {
    this.folder = scratchFolder(test, 'inbound')
    this.streamFolder = join(this.folder, 'inbox', this.streamId.toString('hex'))
    mkdirSync(this.streamFolder, { recursive: true })
    this.images = imagesIn(this.folder)
    test.teardown(async () => {
      await this.stop()
      await this.worker.close()
    })
  }

  start(more: Pick<Partial<InboundStreamOptions>, 'limits' | 'secret' | 'now'> = {}): void {
    this.#stop = new AbortController()
    const inbox = new Inbox(join(this.folder, 'inbox'), () => this.stream.pause.wake())
    this.inbox = inbox
    this.stream = new InboundStream({
      pairingId: this.pairingId,
      streamId: this.streamId,
      secret: this.secret,
      store: this.store,
      directory: join(this.folder, 'private'),
      images: this.images,
      inbox,
      worker: this.worker,
      report: (event) => this.events.push(event),
      onApplied: async () => this.onApplied?.(),
      ...more,
    })
    this.#running = this.stream.run(this.#stop.signal)
    // The reason of a broken run is told by whoever waits for it next.
    this.#running.catch(() => undefined)
  }

  async stop(): Promise<void> {
    this.#stop.abort()
    this.inbox?.close()
    await this.#running
  }

  /** As kill -9 does: nobody waits for what was under way. The caller sees to it that it goes no further. */
  async kill(): Promise<void> {
    this.inbox?.close()
    this.#running = undefined
    await this.worker.close()
  }

  /** An epoch of one part that fills one 4 KiB block of each volume; the first of a generation declares them. */
  epoch(
    number: number,
    previousTag: Buffer,
    fill: number,
    more: {
      generation?: number
      offset?: number
      initializing?: boolean
      /** Default: `v` alone. */
      volumes?: readonly string[]
      secret?: Buffer
      header?: Partial<PartHeader>
      payload?: Buffer
      /** Behind the write. */
      records?: readonly PartRecord[]
    } = {},
  ): MadeEpoch {
    const generation = more.generation ?? 1
    const stamp = { lsn: lsn(BigInt(number * 4096)), timeNs: 1_700_000_000_000_000_000n }
    const payload = more.payload ?? Buffer.alloc(4096, fill)
    const write = { ...stamp, kind: 'write', offset: more.offset ?? 0, lengthBytes: payload.length, payload } as const
    const names = more.volumes ?? ['v']
    const records: PartRecord[] = names.map((_, index) => ({ ...write, volume: volumeIndex(index) }))
    records.push(...(more.records ?? []))
    if (number === 1) {
      const declared = { kind: 'volume', stream: 'st', sizeBytes: volumeBytes } as const
      records.unshift(...names.map((name, index) => ({ ...declared, volume: volumeIndex(index), name })))
    }
    const header = {
      pairingId: this.pairingId,
      streamId: this.streamId,
      generation,
      epoch: epochNumber(number),
      part: 0,
      partCount: 1,
      previousTag,
      firstLsn: lsn(BigInt(number * 4096)),
      endLsn: lsn(BigInt((number + 1) * 4096)),
      firstTimeNs: stamp.timeNs,
      lastTimeNs: stamp.timeNs,
      initializing: more.initializing ?? false,
      ...more.header,
    }
    const { bytes, tag } = encodePart(header, records, more.secret ?? this.secret)
    return { name: partFileName(header), bytes, tag }
  }

  /** Epochs 1 to `count`, epoch n filling the first block with n. */
  chain(count: number, generation = 1): MadeEpoch[] {
    const epochs: MadeEpoch[] = []
    for (let number = 1; number <= count; number++) {
      epochs.push(this.epoch(number, epochs.at(-1)?.tag ?? Buffer.alloc(16), number % 256, { generation }))
    }
    return epochs
  }

  /** As a transport does: the name appears with the whole content. */
  deliver(name: string, bytes: Buffer): void {
    const temporary = join(this.folder, `delivered-${this.#delivered++}`)
    writeFileSync(temporary, bytes)
    renameSync(temporary, join(this.streamFolder, name))
  }

  /**
   * A source that sends again what the acknowledgements ask for, each place once in five seconds at the most, until an
   * epoch is applied. Resolves to how many files it sent.
   */
  async sendAgainUntil(epoch: number, epochs: readonly MadeEpoch[], limitMs = 60_000): Promise<number> {
    const sentAtMs = new Map<number, number>()
    let sent = 0
    await this.until(() => {
      for (const { epoch: wanted } of this.acknowledgement()?.wanted ?? []) {
        const made = epochs[wanted - 1]
        if (!made || performance.now() - (sentAtMs.get(wanted) ?? Number.NEGATIVE_INFINITY) < 5000) continue
        sentAtMs.set(wanted, performance.now())
        this.deliver(made.name, made.bytes)
        sent++
      }
      return this.stream.position.appliedEpoch >= epoch
    }, limitMs)
    return sent
  }

  /**
   * The source that has sent these epochs: it hears what the destination says, looks itself for what was lost, and sends
   * that again. Its clock goes twenty times as fast.
   */
  async sourceOf(test: Teardown, epochs: readonly MadeEpoch[]): Promise<void> {
    const state = new StreamState(new MemoryStore(), 's')
    for (const [index, { name, bytes }] of epochs.entries()) {
      const parts = [{ name, lengthBytes: bytes.length }]
      await state.commitEpoch({ epoch: index + 1, endLsn: '0', parts, rawBytes: 1, oldestMs: 0 }, {})
    }
    const { length: last } = epochs
    const lastTag = epochs.at(-1)!.tag.toString('hex')
    await state.move({ phase: 'running', generation: 1, cutEpoch: last, sentEpoch: last, lastTag })
    const list = async () => readdirSync(this.streamFolder).map((name) => ({ name, lengthBytes: 0 }))
    const read = async () => {
      const file = join(this.streamFolder, ACKNOWLEDGEMENT_NAME)
      return existsSync(file) ? readFileSync(file) : undefined
    }
    const reader = new AcknowledgementReader({
      folder: this.streamId.toString('hex'),
      secret: this.secret,
      state,
      transport: { read, list } as Partial<Transport> as Transport,
      onApplied: async () => undefined,
      onReceived: async () => false,
      onComparison: () => undefined,
      onReport: () => undefined,
      onLostThere: () => undefined,
      onOvertaken: () => undefined,
      onWanted: (places) => {
        for (const { name, bytes } of places.map(({ epoch }) => epochs[epoch - 1]!)) this.deliver(name, bytes)
      },
      onLink: () => undefined,
      onBadSeal: () => undefined,
      now: () => performance.now() * 20,
    })
    const stop = new AbortController()
    const ended = reader.run(stop.signal)
    test.teardown(() => {
      stop.abort()
      return ended
    })
  }

  /** Texts of the events with this code. */
  told(code: string): string[] {
    return this.events.filter((event) => event.code === code).map(({ text }) => text)
  }

  image(volume = 'v'): Buffer {
    return readFileSync(join(this.folder, `images/${volume}.img`))
  }

  acknowledgement(): Acknowledgement | undefined {
    try {
      return openAcknowledgement(
        readFileSync(join(this.streamFolder, ACKNOWLEDGEMENT_NAME)),
        this.secret,
        this.streamId,
      )
    } catch {
      return undefined
    }
  }

  async until(holds: () => boolean, limitMs = 60_000): Promise<void> {
    const deadline = performance.now() + limitMs
    while (!holds()) {
      if (performance.now() > deadline) throw new Error(`not within ${limitMs} ms: ${JSON.stringify(this.events)}`)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  applied(epoch: number): Promise<void> {
    return this.until(() => this.stream.position.appliedEpoch >= epoch)
  }
}
