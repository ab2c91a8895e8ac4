import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { sectorBytes } from '../../../src/block/units.js'
import { WorkerCalls } from '../../../src/block/worker-calls.js'
import type { VerifyJob, VerifyResult } from '../../../src/destage/destage-job.js'
import { ImageFolder } from '../../../src/destage/image-folder.js'
import type { InboundPosition } from '../../../src/destage/inbound-state.js'
import { InboundStream } from '../../../src/destage/inbound-stream.js'
import { Inbox } from '../../../src/destage/inbox.js'
import { decodePart } from '../../../src/replication-file/decode-part.js'
import { deriveStreamSecret } from '../../../src/replication-file/keys.js'
import type { PartRecord } from '../../../src/replication-file/part.js'
import type { Pairing } from '../../../src/transport/pairing.js'
import { MemoryStore } from '../../fixtures/memory-store.js'
import { ArrivedFiles } from './arrived-files.js'
import { sectorIds } from './slot-host.js'

/** What the far side held when it had applied an epoch. */
export interface FarEpoch {
  readonly generation: number
  readonly epoch: number
  /** Of the power-cut device: it was applied by then. */
  readonly position: number
  /** Of its last part, hexadecimal. */
  readonly tag: string
  /** By volume index. Of a generation that is not consistent: of the images that are to take the place of others. */
  readonly sectors: readonly Uint32Array[]
}

/**
 * Remembers each file that came in: between epochs that are applied at once there is nothing to look at, and what the source
 * was told is here may never be applied, where a new generation takes its place first.
 */
class RememberingWorker extends WorkerCalls {
  readonly arrived = new ArrivedFiles()

  override async call<T>(method: string, argument: unknown): Promise<T> {
    const result = await super.call<T>(method, argument)
    if (method === 'verify') this.arrived.add(result as VerifyResult, readFileSync((argument as VerifyJob).file))
    return result
  }
}

/** The destination of one stream, which no cut touches: it remembers what it held after each epoch. */
export class FarSide {
  /** In the order in which they were applied. */
  readonly epochs: FarEpoch[] = []
  readonly secret: Buffer
  readonly #inbox: Inbox
  readonly #worker = new RememberingWorker(new URL('../../../src/destage/destage-worker.js', import.meta.url))
  readonly #stop = new AbortController()
  readonly #running: Promise<void>

  constructor(folder: string, pairing: Pairing, arrivesIn: string, streamId: string, at: () => Promise<number>) {
    const images = new ImageFolder(join(folder, 'images'))
    this.#inbox = new Inbox(join(arrivesIn, pairing.id.toString('hex')), () => stream.pause.wake())
    const look = async (now: InboundPosition): Promise<void> => {
      const { generation, appliedEpoch: epoch, lastTag: tag, consistent, volumes } = now
      const paths = await Promise.all(volumes.map((volume) => images.target(volume, consistent)))
      const sectors = paths.map((path) => sectorIds(readFileSync(path)))
      this.epochs.push({ generation, epoch, position: await at(), tag, sectors })
    }
    this.secret = deriveStreamSecret(pairing.secret, Buffer.from(streamId, 'hex'))
    const stream = new InboundStream({
      pairingId: pairing.id,
      streamId: Buffer.from(streamId, 'hex'),
      secret: this.secret,
      store: new MemoryStore(),
      directory: join(folder, 'inbound'),
      images,
      inbox: this.#inbox,
      worker: this.#worker,
      report: ({ severity, code, text }) => {
        if (severity !== 'info') console.log(`# far side: ${code}: ${text}`)
      },
      limits: { epochs: 1, rawBytes: 1 },
      onApplied: look,
    })
    this.#running = stream.run(this.#stop.signal)
  }

  /**
   * What it holds, or will, after this epoch, when those that it has not seen are these files.
   * @returns undefined when an epoch is nowhere; and the tag of the last part
   */
  after(
    generation: number,
    epoch: number,
    sizes: readonly number[],
    sent: (epoch: number) => readonly Buffer[] | undefined,
  ): { readonly tag: string | undefined; readonly sectors: Uint32Array[] } | undefined {
    const known = this.epochs.findLast((each) => each.generation === generation && each.epoch <= epoch)
    const sectors =
      known?.sectors.map((ids) => ids.slice()) ?? sizes.map((bytes) => new Uint32Array(bytes / sectorBytes))
    let tag = known?.tag
    for (let next = (known?.epoch ?? 0) + 1; next <= epoch; next++) {
      const files = this.#worker.arrived.files(generation, next) ?? sent(next)
      if (!files) return undefined
      for (const file of files) {
        const part = decodePart(file, this.secret, { expected: { generation } })
        for (const record of part.records) apply(sectors, record)
        tag = part.tag.toString('hex')
      }
    }
    return { tag, sectors }
  }

  /** The files of an epoch as they came in, in order; undefined: not all of them did. */
  received(generation: number, epoch: number): readonly Buffer[] | undefined {
    return this.#worker.arrived.files(generation, epoch)
  }

  /** Files that came again under their old number and were others, in words. */
  get reused(): readonly string[] {
    return this.#worker.arrived.reused
  }

  /** The epochs of a generation that were seen to be applied, for a message. */
  known(generation: number): string {
    const applied = this.epochs.filter((each) => each.generation === generation).map(({ epoch }) => epoch)
    const came = this.#worker.arrived.epochs.filter((key) => key.startsWith(`${generation}/`))
    return `applied ${applied.join(', ')}; here ${came.join(', ')}`
  }

  async close(): Promise<void> {
    this.#stop.abort()
    await this.#running
    this.#inbox.close()
    await this.#worker.close()
  }
}

function apply(sectors: readonly Uint32Array[], record: PartRecord): void {
  if (record.kind === 'marker' || record.kind === 'volume') return
  const ids = sectors[record.volume]!
  const first = record.offset / sectorBytes
  if (record.kind === 'write') ids.set(sectorIds(record.payload), first)
  else ids.fill(0, first, first + record.lengthBytes / sectorBytes)
}
