import type {
  AgentOperations,
  AgentView,
  CreatePairing,
  DestinationTestView,
  DestinationView,
  InboundView,
  StreamView,
  VolumeView,
} from '../api/agent-operations.js'
import type { AgentEvent } from '../block/event-log.js'
import { Exclusive } from '../block/exclusive.js'
import { StorageError } from '../block/storage-error.js'
import type { Intercept } from '../intercept/addon.js'
import { describeEndpoint } from '../transport/pairing.js'
import type { Destination, Destinations } from './destinations.js'
import type { EventJournal } from './event-journal.js'
import type { InboundStreams } from './inbound-streams.js'
import type { Pairings } from './pairings.js'
import type { NewStream, Streams } from './streams.js'
import type { Volumes } from './volumes.js'

/** A connection is tried for so long at the most. */
const testMs = 30_000

export interface AgentParts {
  readonly version: string
  readonly intercept: Intercept
  readonly volumes: Volumes
  readonly destinations: Destinations
  readonly streams: Streams
  readonly inbound: InboundStreams
  readonly pairings: Pairings
  readonly events: EventJournal
}

/** What the agent does for its operators: the parts, under one face. */
export class Agent implements AgentOperations {
  readonly #parts: AgentParts
  /** What makes, links or removes objects happens one at a time: no object is removed while another is tied to it. */
  readonly #changes = new Exclusive()

  constructor(parts: AgentParts) {
    this.#parts = parts
  }

  async agent(): Promise<AgentView> {
    const { version, intercept, pairings } = this.#parts
    return {
      version,
      pid: process.pid,
      state: 'running',
      listen: pairings.listening,
      javascriptCalls: intercept.javascriptCalls(),
    }
  }

  async volumeAdopt({ name, path }: { name: string; path: string }): Promise<VolumeView> {
    return this.#changes.run(async () => this.#volumeView((await this.#parts.volumes.adopt(name, path)).name))
  }

  async volumeCreate(given: { name: string; path: string; sizeBytes: number; force?: boolean }): Promise<VolumeView> {
    const { name, path, sizeBytes, force } = given
    return this.#changes.run(async () => {
      const volume = await this.#parts.volumes.create(name, path, sizeBytes, force ?? false)
      return this.#volumeView(volume.name)
    })
  }

  async volumeAttach(name: string): Promise<VolumeView> {
    // A stream that could not be recovered records nothing: it is tried again before a host may write.
    await this.#parts.streams.ofVolume(name)?.start()
    await this.#parts.volumes.attach(name)
    return this.#volumeView(name)
  }

  async volumeDetach(name: string): Promise<VolumeView> {
    await this.#parts.volumes.detach(name)
    return this.#volumeView(name)
  }

  async volumeList(): Promise<VolumeView[]> {
    return this.#parts.volumes.all().map(({ name }) => this.#volumeView(name))
  }

  async volumeShow(name: string): Promise<VolumeView> {
    return this.#volumeView(name)
  }

  volumeRemove(name: string): Promise<void> {
    return this.#changes.run(async () => {
      const stream = this.#parts.streams.ofVolume(name)
      if (stream) {
        throw new StorageError('VOLUME_IN_USE', {
          op: 'volume remove',
          object: name,
          hint: `The stream ${stream.definition.name} records it. Remove that first.`,
        })
      }
      await this.#parts.volumes.remove(name)
    })
  }

  pairingCreate(request: CreatePairing): Promise<{ pairing: string }> {
    return this.#changes.run(() => this.#parts.pairings.create(request))
  }

  async destinationAdd({ name, pairing }: { name: string; pairing: string }): Promise<DestinationView> {
    return this.#changes.run(async () => this.#destinationView(await this.#parts.destinations.add(name, pairing)))
  }

  async destinationList(): Promise<DestinationView[]> {
    return this.#parts.destinations.all().map((destination) => this.#destinationView(destination))
  }

  async destinationTest(name: string): Promise<DestinationTestView> {
    const { transport } = this.#parts.destinations.get(name)
    return { name, ...(await transport.test(AbortSignal.timeout(testMs))) }
  }

  destinationRemove(name: string): Promise<void> {
    return this.#changes.run(async () => {
      const [stream] = this.#parts.streams.toDestination(name)
      if (stream) {
        throw new StorageError('DESTINATION_IN_USE', {
          op: 'destination remove',
          object: name,
          hint: `The stream ${stream.definition.name} sends there. Remove that first.`,
        })
      }
      await this.#parts.destinations.remove(name)
    })
  }

  async streamCreate(given: NewStream): Promise<StreamView> {
    return this.#changes.run(async () => this.#parts.streams.view(await this.#parts.streams.create(given)))
  }

  async streamInitialize(name: string): Promise<StreamView> {
    const stream = this.#parts.streams.get(name)
    await stream.initialize()
    return this.#parts.streams.view(stream)
  }

  async streamStatus(name: string): Promise<StreamView> {
    return this.#parts.streams.view(this.#parts.streams.get(name))
  }

  async streamList(): Promise<StreamView[]> {
    return this.#parts.streams.all().map((stream) => this.#parts.streams.view(stream))
  }

  async streamFlush(name: string): Promise<{ epoch: number; lsn: string }> {
    const { epoch, lsn } = await this.#parts.streams.get(name).flush()
    return { epoch, lsn: lsn.toString() }
  }

  async streamWait(name: string, epoch: number, timeoutMs: number): Promise<{ done: boolean; stream: StreamView }> {
    const stream = this.#parts.streams.get(name)
    const done = await stream.applied(epoch, timeoutMs)
    return { done, stream: this.#parts.streams.view(stream) }
  }

  async streamPause(name: string): Promise<StreamView> {
    return this.#changes.run(async () => this.#parts.streams.view(await this.#parts.streams.setPaused(name, true)))
  }

  async streamResume(name: string): Promise<StreamView> {
    return this.#changes.run(async () => this.#parts.streams.view(await this.#parts.streams.setPaused(name, false)))
  }

  streamRemove(name: string): Promise<void> {
    return this.#changes.run(() => this.#parts.streams.remove(name))
  }

  async inboundList(): Promise<InboundView[]> {
    return this.#parts.inbound.list()
  }

  async inboundShow(stream: string): Promise<InboundView> {
    return this.#parts.inbound.show(stream)
  }

  async events(afterNumber: number): Promise<AgentEvent[]> {
    return this.#parts.events.after(afterNumber)
  }

  onEvent(listener: (event: AgentEvent) => void): () => void {
    return this.#parts.events.listen(listener)
  }

  #volumeView(name: string): VolumeView {
    const { volumes, streams } = this.#parts
    return volumes.view(volumes.get(name), streams.ofVolume(name)?.definition.name ?? null)
  }

  #destinationView({ name, pairing }: Destination): DestinationView {
    const streams = this.#parts.streams.toDestination(name)
    const down = streams.find(({ link }) => link !== null)?.link
    const state = down ? 'down' : streams.some(({ position }) => position.sentEpoch > 0) ? 'up' : 'unknown'
    const reason = {
      up: 'transfers work',
      down: down ? `${down.code}: ${down.hint}` : '',
      unknown: `nothing was sent yet; try: tidemark destination test ${name}`,
    }[state]
    return {
      name,
      kind: pairing.endpoint.kind,
      endpoint: describeEndpoint(pairing.endpoint),
      state,
      reason,
      streams: streams.map(({ definition }) => definition.name),
    }
  }
}
