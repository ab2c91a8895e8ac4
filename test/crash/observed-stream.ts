import { join } from 'node:path'
import { WorkerCalls } from '../../src/block/worker-calls.js'
import { ImageFolder } from '../../src/destage/image-folder.js'
import type { InboundPosition } from '../../src/destage/inbound-state.js'
import { InboundStream } from '../../src/destage/inbound-stream.js'
import { Inbox } from '../../src/destage/inbox.js'
import { deriveStreamSecret } from '../../src/replication-file/keys.js'
import type { Pairing } from '../../src/transport/pairing.js'
import { MemoryStore } from '../fixtures/memory-store.js'
import { stampVerify, type Verdict } from '../fixtures/stamp.js'

interface Teardown {
  teardown(done: () => Promise<void> | void): void
}

export interface ObservedOptions {
  readonly folder: string
  readonly pairing: Pairing
  /** Where its files arrive: a folder that holds the pairing's. */
  readonly arrivesIn: string
  readonly streamId: string
  /** Of the stamps that the source's host writes. */
  readonly log: string
  /** A judge is judged: what the destination does is changed on the way. */
  readonly spoil?: (worker: WorkerCalls, image: () => string) => WorkerCalls
}

/** The destination of one stream inside a test. One epoch at a time, and the image is judged after each. */
export class ObservedStream {
  readonly applied: number[] = []
  readonly verdicts: { readonly epoch: number; readonly verdict: Verdict }[] = []
  /** Events by their code. */
  readonly told = new Map<string, number>()
  readonly images: ImageFolder
  readonly stream: InboundStream

  constructor(test: Teardown, options: ObservedOptions) {
    const { folder, pairing, arrivesIn, streamId, log, spoil } = options
    const worker = new WorkerCalls(new URL('../../src/destage/destage-worker.js', import.meta.url))
    test.teardown(() => worker.close())
    this.images = new ImageFolder(join(folder, 'images'))
    const inbox = new Inbox(join(arrivesIn, pairing.id.toString('hex')), () => this.stream.pause.wake())
    test.teardown(() => inbox.close())
    this.stream = new InboundStream({
      pairingId: pairing.id,
      streamId: Buffer.from(streamId, 'hex'),
      secret: deriveStreamSecret(pairing.secret, Buffer.from(streamId, 'hex')),
      store: new MemoryStore(),
      directory: join(folder, 'inbound'),
      images: this.images,
      inbox,
      worker: spoil ? spoil(worker, () => this.image) : worker,
      report: ({ code }) => void this.told.set(code, (this.told.get(code) ?? 0) + 1),
      limits: { epochs: 1, rawBytes: 1 },
      onApplied: async (position) => this.#look(position, log),
    })
    const stop = new AbortController()
    const running = this.stream.run(stop.signal)
    test.teardown(async () => {
      stop.abort()
      await running
    })
  }

  get image(): string {
    return this.images.path(this.stream.position.volumes[0]!)
  }

  #look({ appliedEpoch, consistent }: InboundPosition, log: string): void {
    this.applied.push(appliedEpoch)
    if (consistent) this.verdicts.push({ epoch: appliedEpoch, verdict: stampVerify(this.image, log) })
  }
}
