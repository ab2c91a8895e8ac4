import { randomBytes } from 'node:crypto'
import path from 'node:path'
import type { StreamView } from '../api/agent-operations.js'
import { eachOf } from '../block/each.js'
import type { ReportEvent } from '../block/event-log.js'
import { Exclusive } from '../block/exclusive.js'
import { LentWorker } from '../block/lent-worker.js'
import { checkName } from '../block/names.js'
import type { StateStore } from '../block/state-store.js'
import { StorageError } from '../block/storage-error.js'
import type { Intercept } from '../intercept/addon.js'
import type { PackWorkers } from '../replication/pack-workers.js'
import { recoveryWorker } from '../replication/replayed-journal.js'
import { SourceStream } from '../replication/source-stream.js'
import { defaultPolicy, type StreamDefinition, type StreamPolicy } from '../replication/stream-state.js'
import { deriveStreamSecret } from '../replication-file/keys.js'
import type { HostVolume } from '../volume/host-volume.js'
import { folderName, newBufferFolder } from './buffer-folder.js'
import type { AgentConfig } from './config.js'
import type { Destinations } from './destinations.js'
import { checkHeadroom } from './headroom.js'
import type { Placement } from './placement.js'
import { SharedDisks } from './shared-disks.js'
import { holdersOf, noteInPools, type PoolOf, volumeAway } from './stream-pools.js'

const defaultEpochMs = 1000
/** Streams that are opened, or stopped, at once: each waits for its disk most of the time. */
const atOnce = 16
/** Proved with a thousand; what each takes of memory and descriptors is in src/README.md. */
const streamLimit = 1024
/** How often forecasts look. */
const watchMs = 1000

export interface StreamsOptions {
  readonly store: StateStore
  readonly intercept: Intercept
  readonly config: AgentConfig
  readonly volumes: {
    readonly get: (name: string) => HostVolume
    readonly find: (name: string) => HostVolume | undefined
  }
  readonly poolOf: PoolOf
  readonly destinations: Destinations
  readonly placement: Placement
  readonly packers: PackWorkers
  readonly report: ReportEvent
  /** What a stream that had failed kept from their hosts; it records again, or is gone. */
  readonly attachAgain: (volumes: readonly string[]) => void
}

export interface NewStream {
  readonly name: string
  readonly volumes: readonly string[]
  readonly destination: string
  readonly epochMs?: number
  readonly policy?: Partial<StreamPolicy>
}

/** The streams this agent sends, by name. */
export class Streams {
  readonly #options: StreamsOptions
  readonly #streams = new Map<string, SourceStream>()
  /** By the names of their volumes. */
  readonly #byVolume = new Map<string, SourceStream>()
  /** Replays the journals of streams that are opened together: a process for each would be most of the time of a start. */
  readonly #recoverer = new LentWorker(recoveryWorker)
  /** Held while a definition is recorded or removed. Nothing waits for another disk than that of the state there. */
  readonly #records = new Exclusive()
  readonly #sharedDisks: SharedDisks
  readonly #watch = setInterval(() => {
    for (const stream of this.#streams.values()) stream.watch(performance.now())
  }, watchMs).unref()

  constructor(options: StreamsOptions) {
    this.#options = options
    this.#sharedDisks = new SharedDisks({ ...options, bufferDirectory: options.config.bufferDirectory })
  }

  /**
   * Recover and go on, each stream for itself: one that cannot says so in its state and holds its volumes back. Again
   * when volumes have appeared (a pool was imported): streams that lacked theirs begin then.
   */
  async open(): Promise<void> {
    const lease = this.#recoverer.lend()
    try {
      await this.#openAll()
    } finally {
      await lease.giveBack()
    }
  }

  async #openAll(): Promise<void> {
    const recorded = this.#options.store.list<StreamDefinition>('stream/').map(({ value }) => value)
    const shared: SourceStream[] = []
    await eachOf(recorded, atOnce, async (value) => {
      try {
        const stream = this.#streams.get(value.name) ?? this.#admit(value)
        if (!this.#sharedDisks.of(value.name) && (await this.#sharedDisks.look(stream))) shared.push(stream)
        await stream.start()
        await noteInPools(stream, this.#options)
      } catch (error) {
        // A stream that was admitted says so itself.
        if (!this.#streams.has(value.name)) this.#say('error', 'STREAM_UNUSABLE', value.name, error)
      }
    })
    this.#sharedDisks.say(shared)
  }

  /**
   * Before a host may write this volume: its stream, if any, records it from here on.
   * @throws StorageError what keeps the stream from being recovered
   */
  async ready(volume: string): Promise<void> {
    const known = this.ofVolume(volume)
    if (known) return known.start()
    for (const { value } of this.#options.store.list<StreamDefinition>('stream/')) {
      if (!value.volumes.some(({ name }) => name === volume)) continue
      await this.#admit(value).start()
    }
  }

  get(name: string): SourceStream {
    const stream = this.#streams.get(name)
    if (stream) return stream
    throw new StorageError('NO_SUCH_STREAM', { op: 'stream', object: name, hint: 'See: tidemark stream status' })
  }

  all(): SourceStream[] {
    return [...this.#streams.values()].sort((a, b) => a.definition.name.localeCompare(b.definition.name))
  }

  /** The stream that records this volume, if any. */
  ofVolume(name: string): SourceStream | undefined {
    return this.#byVolume.get(name)
  }

  /**
   * What is written to this volume until the function is called appears at its destination at once. Of a volume that is
   * in no stream nothing has to be held.
   */
  async holdEpoch(volume: string): Promise<() => Promise<void>> {
    return (await this.ofVolume(volume)?.holdEpoch()) ?? (async () => {})
  }

  toDestination(name: string): SourceStream[] {
    return this.all().filter(({ definition }) => definition.destination === name)
  }

  async create(given: NewStream): Promise<SourceStream> {
    checkName('stream', given.name)
    await this.#options.placement.checkFolders('stream create')
    // Nobody is waited for from here on until it is admitted: what it is made of is not removed meanwhile.
    if (this.#streams.has(given.name)) throw this.#refuse('ALREADY_EXISTS', given.name, 'Choose another name.')
    if (this.#streams.size >= streamLimit) {
      const hint = `An agent has ${streamLimit} streams at the most. Put more volumes into one, or remove others.`
      throw this.#refuse('TOO_MANY_STREAMS', given.name, hint)
    }
    if (new Set(given.volumes).size !== given.volumes.length || given.volumes.length === 0) {
      throw this.#refuse('BAD_REQUEST', given.name, 'Name each volume once, and at least one.')
    }
    const volumes = given.volumes.map((name, index) => {
      const volume = this.#options.volumes.get(name)
      const { sizeBytes, readOnly } = volume
      volume.checkUsable()
      if (readOnly) throw this.#refuse('VOLUME_READ_ONLY', name, 'Nothing is ever written to it. Make a clone of it.')
      const other = this.ofVolume(name)
      if (other) throw this.#refuse('VOLUME_IN_USE', name, `It belongs to the stream ${other.definition.name} already.`)
      const pool = this.#options.poolOf(name)?.id
      return { index, name, sizeBytes, ...(pool !== undefined && { pool }) }
    })
    this.#options.destinations.get(given.destination)
    const definition: StreamDefinition = {
      name: given.name,
      id: randomBytes(16).toString('hex'),
      destination: given.destination,
      epochMs: given.epochMs ?? defaultEpochMs,
      volumes,
      paused: false,
      policy: { ...defaultPolicy, ...given.policy },
    }
    const stream = this.#admit(definition)
    try {
      // Whatever an interrupted removal left under this name is not its beginning.
      await stream.remove(false)
      // As it is by now: it may have been paused meanwhile.
      await this.#records.run(() => this.#put(stream.definition))
    } catch (error) {
      this.#dismiss(stream)
      throw error
    }
    await this.#sharedDisks.lookAndSay(stream)
    return stream
  }

  /** What is not given stays. */
  set(name: string, change: Partial<StreamPolicy>): Promise<SourceStream> {
    return this.#records.run(async () => {
      const stream = this.get(name)
      const policy = { ...stream.policy, ...change }
      await this.#record({ ...stream.definition, policy })
      stream.setPolicy(policy)
      return stream
    })
  }

  /**
   * Move the replication files of a stream below another directory; resolves when the move is recorded and goes on.
   * @param directory null: call off the move that is under way
   * @throws StorageError what newBufferFolder and SourceBuffer refuse
   */
  async moveBuffer(name: string, directory: string | null): Promise<StreamView> {
    const stream = this.get(name)
    const { directory: current, usedBytes } = stream.buffer
    const { placement } = this.#options
    const folder = folderName(stream.definition)
    if (directory === null) await stream.abortBufferMove()
    else await stream.moveBuffer(await newBufferFolder({ directory, name: folder, current, usedBytes, placement }))
    await this.#sharedDisks.lookAndSay(stream)
    return this.view(stream)
  }

  /** Where source buffers lie, or lie in part, that the settings do not say. */
  movedBuffers(): string[] {
    const { bufferDirectory } = this.#options.config
    return this.all()
      .flatMap(({ buffer: { directory, move } }) => (move ? [directory, move.from] : [directory]))
      .filter((directory) => !directory.startsWith(`${bufferDirectory}/`))
  }

  /** @throws StorageError as of checkHeadroom() and SourceStream */
  async initialize(name: string, discardJournal: boolean): Promise<StreamView> {
    const stream = this.get(name)
    await checkHeadroom('stream initialize', name)
    await stream.initialize(discardJournal)
    await noteInPools(stream, this.#options)
    return this.view(stream)
  }

  /** At once, whatever the stream waits for. */
  setPaused(name: string, paused: boolean): Promise<SourceStream> {
    return this.#records.run(async () => {
      const stream = this.get(name)
      await this.#record({ ...stream.definition, paused })
      stream.setPaused(paused)
      return stream
    })
  }

  async remove(name: string, discardJournal: boolean): Promise<void> {
    const stream = this.get(name)
    const { state } = stream.status()
    await stream.remove(discardJournal)
    await noteInPools(stream, this.#options)
    // The definition goes last: after a crash the removal can be asked for again.
    await this.#records.run(async () => {
      await this.#options.store.remove([`stream/${name}`])
      this.#dismiss(stream)
    })
    if (state === 'failed') this.#attachAgain(stream)
  }

  #attachAgain({ definition: { volumes } }: SourceStream): void {
    this.#options.attachAgain(volumes.map(({ name }) => name))
  }

  /** Each for itself: what one cannot do in order, its next start does as after a crash. */
  async stop(): Promise<void> {
    clearInterval(this.#watch)
    await eachOf(this.all(), atOnce, (stream) =>
      stream.stop().catch((error) => this.#say('warning', 'STREAM_STOPPED_LATE', stream.definition.name, error)),
    )
  }

  #say(severity: 'warning' | 'error', code: string, object: string, error: unknown): void {
    const text = error instanceof StorageError ? `${error.message}. ${error.hint}` : String(error)
    this.#options.report({ severity, code, object, text })
  }

  async flush(name: string): Promise<{ epoch: number; lsn: string }> {
    const { epoch, lsn } = await this.get(name).flush()
    return { epoch, lsn: lsn.toString() }
  }

  /** What the stream is once this was done. */
  async after(name: string, action: (stream: SourceStream) => Promise<void>): Promise<StreamView> {
    const stream = this.get(name)
    await action(stream)
    return this.view(stream)
  }

  view(stream: SourceStream): StreamView {
    const { definition, position } = stream
    const { name, id, destination, volumes, epochMs } = definition
    const { state, reason } = stream.status()
    return {
      name,
      id,
      destination,
      volumes: volumes.map((volume) => volume.name),
      epochMs,
      policy: stream.policy.kind,
      waitMs: stream.policy.waitMs,
      state,
      reason,
      waitingBytes: stream.waitingBytes,
      oldestUnsentSeconds: Math.round(stream.oldestUnsentSeconds * 1000) / 1000,
      bytesPerSecond: stream.bytesPerSecond,
      lsn: { journal: stream.journalLsn.toString(), sent: stream.sentLsn, applied: position.appliedLsn },
      epoch: { cut: position.cutEpoch, sent: position.sentEpoch, applied: position.appliedEpoch },
      generation: position.generation,
      initialize: stream.copyProgress(),
      caughtUpInSeconds: stream.caughtUpInSeconds,
      buffer: { ...stream.buffer, sharedDisk: this.#sharedDisks.of(name) },
      catchUp: stream.catchUpProgress(),
      verify: stream.verifyStatus(),
      counters: position.counters,
    }
  }

  #admit(definition: StreamDefinition): SourceStream {
    const { store, intercept, config, volumes, destinations, packers, report } = this.#options
    const { pairing, transport } = destinations.get(definition.destination)
    const directory = path.join(config.bufferDirectory, folderName(definition))
    const stream: SourceStream = new SourceStream({
      definition,
      findVolume: (name) => volumes.find(name) ?? volumeAway(definition.name, name),
      holders: () => holdersOf(definition, this.#options.poolOf),
      pairingId: pairing.id,
      secret: deriveStreamSecret(pairing.secret, Buffer.from(definition.id, 'hex')),
      store,
      journal: {
        directory: path.join(directory, 'journal'),
        intercept,
        segmentBytes: config.segmentBytes,
        limitBytes: config.journalLimitBytes,
        checkpointMs: config.checkpointMs,
        recoverer: this.#recoverer,
      },
      regions: {
        path: path.join(directory, 'regions'),
        catchUpPath: path.join(directory, 'catch-up'),
        regionBytes: config.regionBytes,
        limitBytes: config.regionLimitBytes,
      },
      bufferDirectory: path.join(directory, 'files'),
      bufferLimitBytes: config.bufferLimitBytes,
      transport,
      packer: packers.of(definition.id),
      report,
      onRecovered: () => this.#attachAgain(stream),
    })
    this.#streams.set(definition.name, stream)
    for (const { name } of definition.volumes) this.#byVolume.set(name, stream)
    return stream
  }

  #dismiss({ definition: { name, volumes } }: SourceStream): void {
    this.#streams.delete(name)
    for (const volume of volumes) this.#byVolume.delete(volume.name)
  }

  /** One that is being made is recorded when it is. */
  async #record(definition: StreamDefinition): Promise<void> {
    if (this.#options.store.get(`stream/${definition.name}`)) await this.#put(definition)
  }

  async #put(definition: StreamDefinition): Promise<void> {
    await this.#options.store.put({ [`stream/${definition.name}`]: definition })
  }

  #refuse(code: string, object: string, hint: string): StorageError {
    return new StorageError(code, { op: 'stream create', object, hint })
  }
}
