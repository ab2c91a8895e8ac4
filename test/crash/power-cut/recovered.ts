import { open } from 'node:fs/promises'
import { join } from 'node:path'
import type { LentWorker } from '../../../src/block/lent-worker.js'
import { type Lsn, lsn, MiB } from '../../../src/block/units.js'
import { StateLog } from '../../../src/daemon/state-log.js'
import { intercept } from '../../../src/intercept/intercept.js'
import type { RegionMap } from '../../../src/journal/region-map.js'
import { StreamJournal } from '../../../src/journal/stream-journal.js'
import { Pool } from '../../../src/pool/pool.js'
import { CatchUp } from '../../../src/replication/catch-up.js'
import { RecordedVolumes } from '../../../src/replication/recorded-volumes.js'
import { RegionKeeper } from '../../../src/replication/region-keeper.js'
import { StreamHealth } from '../../../src/replication/stream-health.js'
import { recoverStream } from '../../../src/replication/stream-recovery.js'
import {
  nextJournalLsn,
  type StreamDefinition,
  type StreamPosition,
  StreamState,
} from '../../../src/replication/stream-state.js'
import type { HostVolume } from '../../../src/volume/host-volume.js'
import { ThinVolumes } from '../../../src/volume/thin-volumes.js'
import { Volume, type VolumeDefinition } from '../../../src/volume/volume.js'
import type { Random } from '../../pool/model/random.js'
import type { Recording, VolumeKind } from './recording.js'
import { RecoveredBuffer } from './recovered-buffer.js'

/** What the start of an agent made of its stream. */
export interface RecoveredStream {
  /** Where the stream stood: everything before is in durable epochs. */
  readonly before: StreamPosition
  readonly after: StreamPosition
  /** null: the stream was mapping, or does not run. */
  readonly journal: RecoveredJournal | null
  /** Regions that are sent again as they are now; undefined: none. */
  readonly caughtUp: RegionMap | undefined
  /** By volume index. */
  readonly volumeBytes: readonly number[]
  /** What lies in the source buffer, as the state has it; and all there is. */
  readonly epochs: readonly { readonly epoch: number; readonly parts: readonly BufferedPart[] }[]
  readonly files: readonly string[]
  readonly buffer: RecoveredBuffer
}

export interface RecoveredJournal {
  readonly journal: StreamJournal
  readonly directory: string
  readonly endLsn: Lsn
}

export interface BufferedPart {
  readonly file: string
  readonly lengthBytes: number
}

/** What an agent that starts on this disk has before hosts may write: pool, volumes, journal, region record. */
export class Recovered {
  readonly events: string[] = []
  readonly #recording: Recording
  readonly #thin: ThinVolumes
  readonly #pool: Pool
  readonly #linear: Volume
  readonly #closing: (() => unknown)[]
  /** null: there is none, or it has to be initialized. */
  stream: RecoveredStream | null = null

  private constructor(recording: Recording, pool: Pool, store: StateLog, run: string, closing: (() => unknown)[]) {
    const frontEnd = { intercept, runDirectory: run, threads: 1, onLost: () => undefined }
    this.#recording = recording
    this.#pool = pool
    this.#thin = new ThinVolumes(frontEnd)
    const definition = store.get<VolumeDefinition>(`volume/${recording.names.linear}`)
    if (!definition) throw new Error('the agent has forgotten its volume')
    this.#linear = new Volume(definition, { ...frontEnd, direct: false })
    this.#closing = closing
  }

  /** @param run a folder that no cut touches, for mount points */
  static async open(recording: Recording, run: string, recoverer: LentWorker, random: Random): Promise<Recovered> {
    const closing: (() => unknown)[] = []
    try {
      const store = await StateLog.open(recording.state)
      closing.push(() => store.close())
      const events: string[] = []
      const report = ({ code, text }: { code: string; text: string }): void => void events.push(`${code}: ${text}`)
      const pool = await Pool.open([recording.poolFile], { report })
      closing.push(() => pool.close())
      const recovered = new Recovered(recording, pool, store, run, closing)
      recovered.events.push(...events)
      await recovered.#recoverStream(store, recoverer, random)
      return recovered
    } catch (error) {
      await closeAll(closing)
      throw error
    }
  }

  /** In the order of an orderly stop. */
  close(): Promise<void> {
    return closeAll(this.#closing)
  }

  async #recoverStream(store: StateLog, recoverer: LentWorker, random: Random): Promise<void> {
    if (!this.#recording.stream) return
    const { name, far } = this.#recording.stream
    const definition = store.get<StreamDefinition>(`stream/${name}`)
    if (!definition) throw new Error('the agent has forgotten its stream')
    const folder = join(this.#recording.state, 'buffer', `${name}-${definition.id.slice(0, 8)}`)
    const say = ({ code, text }: { code: string; text: string }): void => void this.events.push(`${code}: ${text}`)
    const state = new StreamState(store, name)
    const before = state.position
    const buffer = new RecoveredBuffer(join(folder, 'files'), state)
    this.#closing.push(() => buffer.close())
    if (before.phase === 'running' || before.phase === 'mapping') await buffer.open(before.generation, far, random)
    const regions = new RegionKeeper({
      path: join(folder, 'regions'),
      catchUpPath: join(folder, 'catch-up'),
      regionBytes: 64 * 1024,
      limitBytes: 1024 * MiB,
      streamId: Buffer.from(definition.id, 'hex'),
      volumeBytes: definition.volumes.map(({ sizeBytes }) => sizeBytes),
      intercept,
      onLimit: () => undefined,
      onFailed: (message) => void this.events.push(`regions failed: ${message}`),
      onDamage: (path) => void this.events.push(`${path} is damaged`),
    })
    const thin = this.#thinVolume()
    const volumes = new RecordedVolumes(definition.volumes, (name) => (name === thin.name ? thin : this.#linear))
    await volumes.hold()
    this.#closing.push(() => volumes.letGo())
    const journalFolder = join(folder, 'journal')
    const journalOptions = {
      stream: name,
      directory: journalFolder,
      state: store,
      intercept,
      segmentBytes: 4 * MiB,
      limitBytes: 32 * MiB,
      recoverer,
      onEvent: (event: unknown) => void this.events.push(`the journal says ${JSON.stringify(event)}`),
    }
    const catchUp = new CatchUp(regions)
    const health = new StreamHealth(name, say, { note: () => undefined, cancel: () => undefined, inSeconds: null })
    const parts = { journal: journalOptions, volumes, state, regions, catchUp, health }
    const recorded = before.regionsLost ? undefined : await regions.load()
    let recovered: RecoveredJournal | null = null
    if (before.phase === 'running') {
      const recovery = await recoverStream(parts, recorded)
      // The record could not be flushed before: its stream said so (REGIONS_UNWRITABLE), and has to be initialized.
      const mayDiverge = before.regionsLost && this.#recording.workload.course === 'failed-flush'
      if (!('journal' in recovery) && mayDiverge) return
      if (!('journal' in recovery)) throw new Error(`there is no journal any more: ${recovery.reason}`)
      const { journal } = recovery
      recovered = { journal, directory: journalFolder, endLsn: lsn(journal.counters().publishedLsn) }
      this.#closing.push(() => {
        regions.close()
        return journal.close(false)
      })
    } else if (before.phase === 'mapping') {
      if (!recorded) throw new Error('the stream was mapping, and the record of its regions is lost')
      // What a stream does that is mapping, once there is room for a journal again. The one before must not be replayed.
      const start = nextJournalLsn(before, journalOptions.segmentBytes)
      const journal = await StreamJournal.create(journalOptions, start)
      this.#closing.push(() => journal.close(false))
      const begin = { regions: recorded, reason: before.mappingReason, afterLsn: start }
      await catchUp.begin(state, begin, { phase: 'running', cutLsn: start.toString() })
    }
    const after = state.position
    this.stream = {
      before,
      after,
      journal: recovered,
      caughtUp: after.copy && after.catchUp ? await regions.loadCatchUp() : undefined,
      volumeBytes: definition.volumes.map(({ sizeBytes }) => sizeBytes),
      epochs: [...state.epochs.values()].map(({ epoch, parts }) => ({
        epoch,
        parts: parts.map(({ name, lengthBytes }) => ({ file: buffer.file(name), lengthBytes })),
      })),
      files: buffer.files,
      buffer,
    }
  }

  get snapshots(): string[] {
    return this.#pool.volume(this.#recording.names.thin).snapshots.map(({ name }) => name)
  }

  /** Look at a volume where its bytes can be read. They are valid until the next cut. */
  async look<T>(kind: VolumeKind, judge: (path: string, bytes: Buffer) => Promise<T>): Promise<T> {
    if (kind === 'linear')
      return judge(this.#linear.path, await readAll(this.#linear.path, kind, this.#linear.sizeBytes))
    const volume = this.#thinVolume()
    await volume.hold()
    try {
      return await judge(volume.path, await readAll(volume.path, kind, volume.sizeBytes))
    } finally {
      await volume.release()
    }
  }

  #thinVolume(): HostVolume {
    return this.#thin.get(this.#pool, this.#recording.names.thin, null)
  }
}

/** Kept from cut to cut: new memory of this size, each time, is what makes a cut wait for the garbage collector. */
const memory = new Map<VolumeKind, Buffer>()
/** What a front end serves is read by whole sectors: the kernel splits larger reads oddly. */
const pieceBytes = MiB / 2

/** @returns valid until this kind is read again */
export async function readAll(path: string, kind: VolumeKind, size: number): Promise<Buffer> {
  const file = await open(path, 'r')
  try {
    const known = memory.get(kind)
    const bytes = known?.length === size ? known : Buffer.alloc(size)
    memory.set(kind, bytes)
    for (let at = 0; at < size; at += pieceBytes) {
      const wanted = Math.min(pieceBytes, size - at)
      const { bytesRead } = await file.read(bytes, at, wanted, at)
      if (bytesRead !== wanted) throw new Error(`${path} ends at ${at + bytesRead}`)
    }
    return bytes
  } finally {
    await file.close()
  }
}

async function closeAll(closing: (() => unknown)[]): Promise<void> {
  let failure: unknown
  for (const close of closing.splice(0).reverse()) {
    try {
      await close()
    } catch (error) {
      failure ??= error
    }
  }
  if (failure !== undefined) throw failure
}
