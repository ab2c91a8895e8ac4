import path from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { InboundView } from '../api/agent-operations.js'
import type { ReportEvent } from '../block/event-log.js'
import { Pause } from '../block/pause.js'
import type { StateStore } from '../block/state-store.js'
import { StorageError } from '../block/storage-error.js'
import type { WorkerCalls } from '../block/worker-calls.js'
import { ImageFolder } from '../destage/image-folder.js'
import type { Images } from '../destage/images.js'
import { listInbound } from '../destage/inbound-state.js'
import { InboundStream } from '../destage/inbound-stream.js'
import { Inbox, type InboxCalls } from '../destage/inbox.js'
import { INBOX_UNAVAILABLE, InboxProcess } from '../destage/inbox-process.js'
import { incomingName, PoolImages } from '../destage/pool-images.js'
import { whyNoState } from '../destage/shown-images.js'
import { StreamImages } from '../destage/stream-images.js'
import type { ThinPool } from '../pool/thin-pool.js'
import { deriveStreamSecret } from '../replication-file/keys.js'
import type { ThinVolumes } from '../volume/thin-volumes.js'

/** A stream that broke is begun again after so long. */
const restartMs = 5_000
/** Streams one pairing may bring, at the most, those counted that were removed here: four times what one source has. */
const streamLimit = 4096
const lookMs = 1000
/** What is under way when the agent ends comes to its end within this time, or is left alone where it may hang. */
const stopMs = 1_000

/** Where arriving volumes are made thin: the config's `inbound.pool`. */
export interface InboundPool {
  /** undefined: none is configured, new generations are files. */
  readonly name: string | undefined
  /** undefined while it is not open; what arrives waits. */
  readonly find: () => ThinPool | undefined
  /** Any pool that is open. */
  readonly ofId: (id: string) => ThinPool | undefined
  readonly volumes: ThinVolumes
  /** Whether a volume outside this pool has the name. */
  readonly isTaken: (name: string) => boolean
}

export interface InboundStreamsOptions {
  readonly store: StateStore
  /** Arrival buffers, and images that are files; a folder a stream. */
  readonly directory: string
  readonly pool: InboundPool
  readonly worker: WorkerCalls
  readonly report: ReportEvent
}

interface Source {
  readonly pairing: string
  readonly secret: Buffer
  readonly inbox: InboxCalls
  readonly pause: Pause
  readonly streams: Map<string, { readonly stream: InboundStream; readonly images: Images }>
}

/** What arrives at this agent: for each pairing an inbox, in it the streams. */
export class InboundStreams {
  readonly #options: InboundStreamsOptions
  readonly #sources = new Map<string, Source>()
  readonly #stop = new AbortController()
  readonly #running = new Set<Promise<void>>()

  constructor(options: InboundStreamsOptions) {
    this.#options = options
  }

  /** Watch a pairing's folder from now on. @param isOwn it lies with what is the agent's own, and hangs only if all does */
  watch(pairing: string, secret: Buffer, inboxDirectory: string, isOwn: boolean): void {
    const pause = new Pause()
    const onChange = (streamId: string | null): void => this.arrived(pairing, streamId)
    const source: Source = {
      pairing,
      secret,
      pause,
      streams: new Map(),
      inbox: isOwn ? new Inbox(inboxDirectory, onChange) : new InboxProcess(inboxDirectory, onChange),
    }
    this.#sources.set(pairing, source)
    for (const position of listInbound(this.#options.store)) {
      if (position.pairing === pairing) this.#begin(source, position.streamId)
    }
    this.#track(this.#look(source))
  }

  /** A hint that something is there. */
  arrived(pairing: string, streamId: string | null): void {
    const source = this.#sources.get(pairing)
    const known = streamId === null ? undefined : source?.streams.get(streamId)
    if (known) known.stream.pause.wake()
    else source?.pause.wake()
  }

  list(): InboundView[] {
    const begun = this.#known().filter(({ stream: { position } }) => position.generation > 0 && !position.removed)
    const views = begun.map(({ stream, images }) => view(stream, images))
    return views.sort((a, b) => a.stream.localeCompare(b.stream))
  }

  /** The volume is the incomplete one of a stream. */
  isMaking(volumeName: string): boolean {
    return this.#known().some(({ stream }) =>
      stream.position.volumes.some(({ thin }) => thin && incomingName(thin.volume) === volumeName),
    )
  }

  /** By name; by id where two sources use one name. */
  show(name: string): InboundView {
    const found = this.list().filter(({ stream, id }) => stream === name || id === name)
    if (found.length === 1) return found[0]!
    throw new StorageError(found.length === 0 ? 'NO_SUCH_STREAM' : 'AMBIGUOUS_NAME', {
      op: 'inbound show',
      object: name,
      hint:
        found.length === 0
          ? 'Nothing of this name has arrived. See: tidemark inbound list'
          : `Two sources use this name. Give the id instead: ${found.map(({ id }) => id).join(' or ')}`,
    })
  }

  /**
   * Forget a stream, with its images and all that has arrived; what it is called is show()'s business.
   * @throws StorageError as of InboundStream.remove()
   */
  async remove(streamId: string): Promise<void> {
    const found = this.#known().find(({ stream }) => stream.position.streamId === streamId)
    if (!found) return
    await found.stream.remove()
    const text = 'forgotten, with its copy; it begins again when its source initializes it'
    this.#options.report({ severity: 'info', code: 'INBOUND_REMOVED', object: found.stream.position.stream, text })
  }

  /**
   * Run while no epoch of the stream that this volume arrives with is applied: for a snapshot of it. All volumes of
   * the stream are of one moment then. For any other volume there is nothing to wait for.
   * @throws StorageError BETWEEN_EPOCHS
   */
  atEpochBoundary<T>(volumeName: string, action: () => Promise<T>): Promise<T> {
    const owner = this.#owner(volumeName)
    return owner ? owner.atEpochBoundary(action) : action()
  }

  /** Why a volume that arrives shows no state of its source now; undefined: it does, or is another volume. */
  whyNoState(volumeName: string): string | undefined {
    const owner = this.#owner(volumeName)
    return owner && whyNoState(owner.position)
  }

  /** Applies nothing more, and closes the images. */
  async stop(): Promise<void> {
    this.#stop.abort()
    const ended = Promise.all(this.#running)
    await Promise.race([ended, setTimeout(stopMs, undefined, { ref: false })])
    for (const { inbox } of this.#sources.values()) inbox.close()
    await ended
    for (const { stream, images } of this.#known()) {
      await images.close().catch((error) => this.#say('warning', 'IMAGES_CLOSED_LATE', stream.position.stream, error))
    }
  }

  #owner(volumeName: string): InboundStream | undefined {
    const arrives = ({ stream: { position } }: { readonly stream: InboundStream }): boolean =>
      position.volumes.some(({ thin }) => thin?.volume === volumeName)
    return this.#known().find(arrives)?.stream
  }

  #known(): { stream: InboundStream; images: Images }[] {
    return [...this.#sources.values()].flatMap(({ streams }) => [...streams.values()])
  }

  async #look(source: Source): Promise<void> {
    let told = false
    let hangs = false
    while (!this.#stop.signal.aborted) {
      const found = await source.inbox.streams().catch((error) => {
        if (!(error instanceof StorageError) || error.code !== INBOX_UNAVAILABLE || this.#stop.signal.aborted) return []
        const text = `${error.message}. ${error.hint}`
        if (!hangs) this.#options.report({ severity: 'error', code: error.code, object: source.inbox.directory, text })
        hangs = true
        return undefined
      })
      if (found === undefined) {
        await source.pause.wait(lookMs, this.#stop.signal)
        continue
      }
      hangs = false
      const strange = found.filter((streamId) => !source.streams.has(streamId))
      for (const streamId of strange.slice(0, streamLimit - source.streams.size)) this.#begin(source, streamId)
      if (!told && source.streams.size >= streamLimit && strange.some((streamId) => !source.streams.has(streamId))) {
        told = true
        const text = `There are folders of more than ${streamLimit} streams; what arrives in the others is left alone.`
        this.#options.report({ severity: 'error', code: 'TOO_MANY_STREAMS', object: source.inbox.directory, text })
      }
      await source.pause.wait(lookMs, this.#stop.signal)
    }
  }

  #begin(source: Source, streamId: string): void {
    const { store, directory, worker, report } = this.#options
    const id = Buffer.from(streamId, 'hex')
    const own = path.join(directory, `${source.pairing.slice(0, 8)}-${streamId}`)
    const images = this.#imagesOf(streamId, path.join(own, 'images'))
    const stream = new InboundStream({
      pairingId: Buffer.from(source.pairing, 'hex'),
      streamId: id,
      secret: deriveStreamSecret(source.secret, id),
      store,
      directory: own,
      images,
      inbox: source.inbox,
      worker,
      report,
    })
    source.streams.set(streamId, { stream, images })
    this.#track(this.#keepRunning(stream))
  }

  #imagesOf(streamId: string, directory: string): Images {
    const { pool, store } = this.#options
    const claimed = (name: string): boolean =>
      listInbound(store).some(
        (position) => position.streamId !== streamId && position.volumes.some(({ thin }) => thin?.volume === name),
      )
    const thin = new PoolImages({
      poolName: pool.name,
      pool: pool.find,
      poolOf: pool.ofId,
      volume: (open, name) => pool.volumes.get(open, name),
      forget: (name) => pool.volumes.forget(name),
      isTaken: (name) => pool.isTaken(name) || claimed(name),
    })
    return new StreamImages({ files: new ImageFolder(directory), thin, preferThin: pool.name !== undefined })
  }

  /** A broken invariant stops this stream for a while, never another. */
  async #keepRunning(stream: InboundStream): Promise<void> {
    while (!this.#stop.signal.aborted) {
      try {
        await stream.run(this.#stop.signal)
      } catch (error) {
        this.#say('error', 'DESTAGE_FAILED', stream.position.stream, error)
        await new Pause().wait(restartMs, this.#stop.signal)
      }
    }
  }

  #say(severity: 'warning' | 'error', code: string, object: string, error: unknown): void {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
    this.#options.report({ severity, code, object, text })
  }

  #track(work: Promise<void>): void {
    const tracked = work.finally(() => this.#running.delete(tracked))
    this.#running.add(tracked)
  }
}

function view(stream: InboundStream, images: Images): InboundView {
  const { position } = stream
  return {
    stream: position.stream,
    id: position.streamId,
    pairing: position.pairing,
    ...stream.status(),
    generation: position.generation,
    appliedEpoch: position.appliedEpoch,
    appliedLsn: position.appliedLsn,
    appliedTime: position.appliedTimeMs > 0 ? new Date(position.appliedTimeMs).toISOString() : null,
    waitingFiles: stream.waitingFiles,
    volumes: position.volumes.map((volume) => ({
      name: volume.name,
      path: images.path(volume),
      sizeBytes: volume.sizeBytes,
      volume: volume.thin?.volume ?? null,
    })),
  }
}
