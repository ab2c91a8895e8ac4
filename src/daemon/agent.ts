import type {
  AgentOperations,
  AgentView,
  CreatePairing,
  CreatePool,
  DestinationTestView,
  DestinationView,
  DiffView,
  InboundView,
  PoolCheckView,
  PoolDevice,
  PoolView,
  SnapshotView,
  StreamPolicyChange,
  StreamView,
  VolumeView,
} from '../api/agent-operations.js'
import type { AgentEvent } from '../block/event-log.js'
import { StorageError } from '../block/storage-error.js'
import type { Intercept } from '../intercept/addon.js'
import type { ImageCopies } from '../volume/image-copies.js'
import { attachWanted } from './attachments.js'
import { type Destination, type Destinations, destinationView } from './destinations.js'
import type { EventJournal } from './event-journal.js'
import type { InboundStreams } from './inbound-streams.js'
import { OperatorChanges, StreamChanges } from './operator-changes.js'
import type { Pairings } from './pairings.js'
import type { PathVolumes } from './path-volumes.js'
import type { Pools } from './pools.js'
import type { NewStream, Streams } from './streams.js'
import type { ThinOperations } from './thin-operations.js'
import type { Volumes } from './volumes.js'

/** A connection is tried for so long at the most. */
const testMs = 30_000

export interface AgentParts {
  readonly version: string
  readonly intercept: Intercept
  readonly pools: Pools
  readonly paths: PathVolumes
  readonly volumes: Volumes
  readonly thin: ThinOperations
  readonly images: ImageCopies
  readonly destinations: Destinations
  readonly streams: Streams
  readonly inbound: InboundStreams
  readonly pairings: Pairings
  readonly events: EventJournal
}

/** What the agent does for its operators: the parts, under one face. */
export class Agent implements AgentOperations {
  readonly #parts: AgentParts
  readonly #changes = new OperatorChanges()
  readonly #streamChanges = new StreamChanges()

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

  async poolCreate(request: CreatePool): Promise<PoolView> {
    return this.#changes.run(() => this.#parts.pools.create(request))
  }

  async poolList(): Promise<PoolView[]> {
    return this.#parts.pools.list()
  }

  async poolShow(name: string): Promise<PoolView> {
    return this.#parts.pools.view(name)
  }

  async poolExtend(name: string, device: PoolDevice & { readonly force?: boolean }): Promise<PoolView> {
    return this.#changes.run(() => this.#parts.pools.extend(name, device))
  }

  async poolExport(name: string): Promise<{ name: string; paths: readonly string[] }> {
    return this.#changes.run(() => this.#parts.pools.export(name))
  }

  async poolImport(paths: readonly string[]): Promise<PoolView> {
    return this.#changes.run(async () => {
      const { name, reason } = await this.#parts.pools.import(paths)
      await this.#poolOpened(name)
      return { ...this.#parts.pools.view(name), reason }
    })
  }

  async poolRemove(name: string, yes: boolean): Promise<void> {
    return this.#changes.run(() => this.#parts.pools.remove(name, yes))
  }

  async poolCheck(name: string, repair: boolean): Promise<PoolCheckView> {
    const { pools } = this.#parts
    try {
      return await pools.check(name, repair, (action) => this.#changes.run(action))
    } finally {
      if (pools.find(name)) await this.#changes.run(() => this.#poolOpened(name))
    }
  }

  async volumeAdopt({ name, path }: { name: string; path: string }): Promise<VolumeView> {
    return this.#changes.run(async () => {
      this.#parts.volumes.checkNew('volume adopt', name)
      return this.#volumeView((await this.#parts.paths.adopt(name, path)).name)
    })
  }

  async volumeCreate(given: { name: string; path: string; sizeBytes: number; force?: boolean }): Promise<VolumeView> {
    const { name, path, sizeBytes, force } = given
    return this.#changes.run(async () => {
      this.#parts.volumes.checkNew('volume create', name)
      const volume = await this.#parts.paths.create(name, path, sizeBytes, force ?? false)
      return this.#volumeView(volume.name)
    })
  }

  async volumeCreateThin(given: { name: string; pool: string; sizeBytes: number }): Promise<VolumeView> {
    const { name, pool, sizeBytes } = given
    return this.#changes.run(async () => {
      await this.#parts.thin.createVolume(name, pool, sizeBytes)
      return this.#volumeView(name)
    })
  }

  async volumeAttach(name: string, readOnly: boolean): Promise<VolumeView> {
    const { streams, volumes } = this.#parts
    const volume = volumes.get(name)
    // A stream that could not be recovered records nothing: it is tried again before a host may write.
    await streams.ready(name)
    await volumes.attach(volume, readOnly)
    return this.#volumeView(name)
  }

  async volumeDetach(name: string): Promise<VolumeView> {
    const { volumes } = this.#parts
    await volumes.detach(volumes.get(name))
    return this.#volumeView(name)
  }

  async volumeList(): Promise<VolumeView[]> {
    return this.#parts.volumes.all().map(({ name }) => this.#volumeView(name))
  }

  async volumeShow(name: string): Promise<VolumeView> {
    return this.#volumeView(name)
  }

  volumeRemove(name: string, yes: boolean): Promise<void> {
    const { volumes, streams, thin, paths } = this.#parts
    return this.#changes.run(async () => {
      const volume = volumes.get(name)
      if (volume.kind === 'thin') return thin.removeVolume(name, yes)
      const stream = streams.ofVolume(name)
      if (stream) {
        throw new StorageError('VOLUME_IN_USE', {
          op: 'volume remove',
          object: name,
          hint: `The stream ${stream.definition.name} records it. Remove that first.`,
        })
      }
      volumes.mustBeDetached('volume remove', volume)
      await paths.remove(name)
      await volumes.forget(name, null)
    })
  }

  async volumeResize(name: string, sizeBytes: number, force: boolean): Promise<VolumeView> {
    return this.#changes.run(async () => {
      await this.#parts.thin.resize(name, sizeBytes, force)
      return this.#volumeView(name)
    })
  }

  volumeDiff(volume: string, from: string, to: string | null, afterOffset: number): Promise<DiffView> {
    return this.#parts.thin.diff(volume, from, to, afterOffset)
  }

  async snapshotCreate(volume: string, name: string): Promise<SnapshotView> {
    const { thin, volumes } = this.#parts
    return volumes.snapshotView(await thin.createSnapshot(volume, name))
  }

  async snapshotList(volume: string): Promise<SnapshotView[]> {
    const { volumes } = this.#parts
    return volumes.snapshots(volume).map((snapshot) => volumes.snapshotView(snapshot))
  }

  snapshotRemove(volume: string, name: string): Promise<void> {
    return this.#changes.run(() => this.#parts.thin.removeSnapshot(volume, name))
  }

  async snapshotDiscard(volume: string, name: string, yes: boolean): Promise<SnapshotView> {
    const { thin, volumes } = this.#parts
    return this.#changes.run(async () => volumes.snapshotView(await thin.discardWrites(volume, name, yes)))
  }

  async snapshotRollback(volume: string, name: string, yes: boolean): Promise<VolumeView> {
    return this.#changes.run(async () => {
      await this.#parts.thin.rollback(volume, name, yes)
      return this.#volumeView(volume)
    })
  }

  async snapshotAttach(volume: string, name: string, readOnly: boolean): Promise<SnapshotView> {
    const { volumes } = this.#parts
    const snapshot = volumes.snapshot('volume attach', volume, name)
    await volumes.attach(snapshot, readOnly)
    return volumes.snapshotView(snapshot)
  }

  async snapshotDetach(volume: string, name: string): Promise<SnapshotView> {
    const { volumes } = this.#parts
    const snapshot = volumes.snapshot('volume detach', volume, name)
    await volumes.detach(snapshot)
    return volumes.snapshotView(snapshot)
  }

  async cloneCreate(given: { volume: string; snapshot?: string; name: string; full?: boolean }): Promise<VolumeView> {
    const { volume, snapshot, name, full } = given
    return this.#changes.run(async () => {
      await this.#parts.thin.clone(volume, snapshot, name, full ?? false)
      return this.#volumeView(name)
    })
  }

  async cloneRefresh(name: string, from: string | null): Promise<VolumeView> {
    return this.#changes.run(async () => {
      await this.#parts.thin.refresh(name, from)
      return this.#volumeView(name)
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

  streamCreate(given: NewStream): Promise<StreamView> {
    const { streams } = this.#parts
    const create = async (): Promise<StreamView> => streams.view(await streams.create(given))
    return this.#changes.runBounded(() => this.#streamChanges.run(given.name, create))
  }

  streamInitialize(name: string, discardJournal: boolean): Promise<StreamView> {
    return this.#streamChanges.run(name, () => this.#parts.streams.initialize(name, discardJournal))
  }

  streamVerify(name: string, repair: boolean | null): Promise<StreamView> {
    return this.#parts.streams.after(name, (stream) => stream.verify(repair))
  }

  async streamStatus(name: string): Promise<StreamView> {
    return this.#parts.streams.view(this.#parts.streams.get(name))
  }

  async streamList(): Promise<StreamView[]> {
    return this.#parts.streams.all().map((stream) => this.#parts.streams.view(stream))
  }

  streamFlush(name: string): Promise<{ epoch: number; lsn: string }> {
    return this.#parts.streams.flush(name)
  }

  async streamWait(name: string, epoch: number, timeoutMs: number): Promise<{ done: boolean; stream: StreamView }> {
    const stream = this.#parts.streams.get(name)
    const done = await stream.applied(epoch, timeoutMs)
    return { done, stream: this.#parts.streams.view(stream) }
  }

  async streamSet(name: string, policy: StreamPolicyChange): Promise<StreamView> {
    return this.#parts.streams.view(await this.#parts.streams.set(name, policy))
  }

  bufferMove(stream: string, directory: string | null): Promise<StreamView> {
    const { streams } = this.#parts
    const move = () => this.#streamChanges.run(stream, () => streams.moveBuffer(stream, directory))
    // Back to where it came from: no volume lies there.
    return directory === null ? move() : this.#changes.runBounded(move)
  }

  async streamPause(name: string): Promise<StreamView> {
    return this.#parts.streams.view(await this.#parts.streams.setPaused(name, true))
  }

  async streamResume(name: string): Promise<StreamView> {
    const { streams } = this.#parts
    const stream = await streams.setPaused(name, false)
    await this.#streamChanges.run(name, () => stream.resume())
    return streams.view(stream)
  }

  streamRemove(name: string, discardJournal: boolean): Promise<void> {
    return this.#streamChanges.run(name, () => this.#parts.streams.remove(name, discardJournal))
  }

  async inboundList(): Promise<InboundView[]> {
    return this.#parts.inbound.list()
  }

  async inboundShow(stream: string): Promise<InboundView> {
    return this.#parts.inbound.show(stream)
  }

  inboundRemove(name: string, yes: boolean): Promise<void> {
    const op = 'inbound remove'
    const { inbound, volumes, thin } = this.#parts
    return this.#changes.runBounded(async () => {
      const { stream, id, volumes: arriving } = inbound.show(name)
      const copies = thin.arriving(arriving.flatMap(({ volume }) => volume ?? []))
      for (const copy of copies) thin.checkRemovable(op, copy)
      if (!yes) {
        const what = arriving.map((copy) => copy.volume ?? copy.path).join(', ')
        const keep = copies.map((copy) => ` To keep it first: tidemark clone create ${copy.name} NAME --full --wait.`)
        throw new StorageError('CONFIRMATION_NEEDED', {
          op,
          object: stream,
          hint: `The copy of this stream would be lost: ${what}.${keep[0] ?? ''} To remove it: tidemark inbound remove ${name} --yes`,
        })
      }
      for (const copy of copies) await thin.leave(copy)
      await inbound.remove(id)
      for (const copy of copies) await volumes.forget(copy.name, null)
    })
  }

  async events(afterNumber: number): Promise<AgentEvent[]> {
    return this.#parts.events.after(afterNumber)
  }

  onEvent(listener: (event: AgentEvent) => void): () => void {
    return this.#parts.events.listen(listener)
  }

  /** It was not open before: what waited for its volumes goes on. */
  async #poolOpened(name: string): Promise<void> {
    const { pools, streams, volumes, images, events } = this.#parts
    const pool = pools.get(name)
    const mine = new Set(pool.volumes().map((volume) => volume.name))
    await streams.open()
    await attachWanted(volumes, streams, events.report, (volume) => mine.has(volume))
    await images.resume(pool)
  }

  #volumeView(name: string): VolumeView {
    const { volumes, streams, thin } = this.#parts
    const stream = streams.ofVolume(name)?.definition.name ?? null
    return volumes.view(volumes.get(name), stream, thin.imageView(name))
  }

  #destinationView(destination: Destination): DestinationView {
    return destinationView(destination, this.#parts.streams.toDestination(destination.name))
  }
}
