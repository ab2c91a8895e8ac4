import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { WorkerCalls } from '../../../src/block/worker-calls.js'
import { ImageFolder } from '../../../src/destage/image-folder.js'
import type { InboundPosition } from '../../../src/destage/inbound-state.js'
import { InboundStream } from '../../../src/destage/inbound-stream.js'
import { Inbox } from '../../../src/destage/inbox.js'
import { deriveStreamSecret } from '../../../src/replication-file/keys.js'
import type { Pairing } from '../../../src/transport/pairing.js'
import { MemoryStore } from '../../fixtures/memory-store.js'
import { sectorIds } from './slot-host.js'

/** What the far side held when it had applied an epoch. */
export interface FarEpoch {
  readonly epoch: number
  /** Of the power-cut device: it was applied by then. */
  readonly position: number
  readonly consistent: boolean
  /** By volume index. */
  readonly sectors: readonly Uint32Array[]
}

/** The destination of one stream, which no cut touches: it remembers what it held after each epoch. */
export class FarSide {
  readonly epochs = new Map<number, FarEpoch>()
  readonly #inbox: Inbox
  readonly #worker = new WorkerCalls(new URL('../../../src/destage/destage-worker.js', import.meta.url))
  readonly #stop = new AbortController()
  readonly #running: Promise<void>

  constructor(folder: string, pairing: Pairing, arrivesIn: string, streamId: string, at: () => Promise<number>) {
    const images = new ImageFolder(join(folder, 'images'))
    this.#inbox = new Inbox(join(arrivesIn, pairing.id.toString('hex')), () => stream.pause.wake())
    const look = async ({ appliedEpoch, consistent, volumes }: InboundPosition): Promise<void> => {
      const sectors = consistent ? volumes.map((volume) => sectorIds(readFileSync(images.path(volume)))) : []
      this.epochs.set(appliedEpoch, { epoch: appliedEpoch, position: await at(), consistent, sectors })
    }
    const stream = new InboundStream({
      pairingId: pairing.id,
      streamId: Buffer.from(streamId, 'hex'),
      secret: deriveStreamSecret(pairing.secret, Buffer.from(streamId, 'hex')),
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

  async close(): Promise<void> {
    this.#stop.abort()
    await this.#running
    this.#inbox.close()
    await this.#worker.close()
  }
}
