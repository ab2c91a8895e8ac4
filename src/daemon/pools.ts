import { realpath, rm } from 'node:fs/promises'
import type { CheckProgressView, CreatePool, PoolCheckView, PoolDevice, PoolView } from '../api/agent-operations.js'
import type { ReportEvent } from '../block/event-log.js'
import { checkName, isName } from '../block/names.js'
import type { StateStore } from '../block/state-store.js'
import { StorageError } from '../block/storage-error.js'
import { KiB, MiB } from '../block/units.js'
import type { CreatePoolOptions, ThinPool } from '../pool/thin-pool.js'
import { KnownPools } from './known-pools.js'
import { type PreparedDevice, prepareDevice } from './pool-devices.js'
import type { PoolEngine } from './pool-engine.js'

const defaultUnitBytes = 8 * MiB
const defaultBlockBytes = 64 * KiB

const beingChecked = 'It is being checked. Try again when that is done.'
const otherNames = 'If its devices have other names now: tidemark pool import PATH...'

/** What an agent remembers of a pool; everything else is in the pool. */
interface PoolRecord {
  readonly name: string
  readonly id: string
  readonly paths: readonly string[]
}

interface Entry {
  readonly record: PoolRecord
  readonly pool: ThinPool | undefined
  /** Why it is not open. */
  readonly failure: string
  /** Null: it is not being checked. */
  readonly checking: CheckProgressView | null
}

export interface PoolsOptions {
  readonly store: StateStore
  readonly engine: PoolEngine
  readonly report: ReportEvent
  /** Folders of the agent. */
  readonly forbidden: readonly string[]
  readonly marks: readonly number[]
  /** The volume that has a file or device at this path (without links), or undefined. */
  readonly volumeAt: (path: string) => string | undefined
  /** Who keeps a volume of this pool from having its name, if anybody does, as a half-sentence. */
  readonly nameTaken: (volume: string, poolId: string) => string | undefined
  /** Who uses a volume of the pool, each as a sentence. */
  readonly users: (pool: ThinPool) => readonly string[]
  /** It was closed by command: who knows its volumes forgets them. */
  readonly onClose: (pool: ThinPool, volumes: readonly string[]) => Promise<void>
}

/** The thin pools of this agent, by name. One that cannot be opened says why, and keeps no other from its volumes. */
export class Pools {
  readonly #options: PoolsOptions
  readonly #known: KnownPools
  readonly #entries = new Map<string, Entry>()

  constructor(options: PoolsOptions) {
    this.#options = options
    this.#known = new KnownPools(options.store, options.report)
  }

  async open(): Promise<void> {
    for (const { value } of this.#options.store.list<PoolRecord>('pool/')) await this.#openRecord(value)
  }

  /** @throws StorageError NO_SUCH_POOL, POOL_FAILED */
  get(name: string): ThinPool {
    const { pool, failure } = this.#entry(name)
    if (pool) return pool
    throw new StorageError('POOL_FAILED', { op: 'pool', object: name, retry: 'later', hint: failure })
  }

  /** undefined: it is not open, or not there. */
  find(name: string): ThinPool | undefined {
    return this.#entries.get(name)?.pool
  }

  /** Those that are open. */
  all(): ThinPool[] {
    return [...this.#entries.values()].flatMap(({ pool }) => pool ?? [])
  }

  ofVolume(volume: string): ThinPool | undefined {
    return this.all().find((pool) => pool.volumes().some(({ name }) => name === volume))
  }

  /** The pool that has this file or device (without links), in words. */
  at(path: string): string | undefined {
    return this.#poolAt(path)
  }

  list(): PoolView[] {
    return [...this.#entries.keys()].sort((a, b) => a.localeCompare(b)).map((name) => this.view(name))
  }

  view(name: string): PoolView {
    const { record, pool, failure, checking } = this.#entry(name)
    if (pool) return openView(pool)
    const none = { unitBytes: 0, blockBytes: 0, sizeBytes: 0, allocatedBytes: 0, mappedBytes: 0, virtualBytes: 0 }
    return {
      name,
      id: record.id,
      devices: record.paths.map((path) => ({ path, sizeBytes: 0 })),
      ...none,
      marks: this.#options.marks,
      state: 'failed',
      reason: failure,
      background: null,
      check: checking,
      volumes: [],
    }
  }

  async create(request: CreatePool): Promise<PoolView> {
    const op = 'pool create'
    const { name, unitBytes = defaultUnitBytes, blockBytes = defaultBlockBytes } = request
    checkName('pool', name)
    if (this.#entries.has(name)) throw nameInUse(op, name)
    const devices = await this.#prepare(op, request.devices, request.force ?? false)
    const pool = await this.#make(devices, { name, unitBytes, blockBytes })
    await this.#known.hold(pool, false)
    await this.#record(pool)
    this.#tell('POOL_CREATED', name, `on ${devices.map(({ path }) => path).join(', ')}`)
    return this.view(name)
  }

  async extend(name: string, given: PoolDevice & { readonly force?: boolean }): Promise<PoolView> {
    const pool = this.get(name)
    const { force = false, ...device } = given
    const [prepared] = await this.#prepare('pool extend', [device], force)
    const { path, kind, sizeBytes, replaces } = prepared!
    if (replaces) await rm(path)
    try {
      await pool.extend(path, sizeBytes)
    } catch (error) {
      const added = pool.facts().devices.some((known) => known.path === path)
      if (kind === 'file' && !added) await rm(path, { force: true })
      throw error
    } finally {
      await this.#record(pool)
    }
    return this.view(name)
  }

  /** Closed and forgotten here. Resolves to where it lies. */
  async export(name: string): Promise<{ name: string; paths: readonly string[] }> {
    const { record, pool } = this.#idle('pool export', name)
    if (pool) await this.#close('pool export', pool)
    // One that is not open may have volumes whose streams wait for it.
    else await this.#known.keepHolder(record.id)
    await this.#forget(name)
    if (pool) await this.#known.forget(record.id)
    this.#tell('POOL_EXPORTED', name, `it lies on ${record.paths.join(', ')}`)
    return { name, paths: record.paths }
  }

  /** Resolves to a view whose reason is what the pool may lack, if anything. */
  async import(given: readonly string[]): Promise<PoolView> {
    const op = 'pool import'
    const paths = await Promise.all(given.map((path) => resolveDevice(op, path)))
    for (const path of paths) {
      const holder = this.#poolAt(path, 'open') ?? this.#options.volumeAt(path)
      if (holder !== undefined) {
        throw new StorageError('ALREADY_IN_USE', { op, object: path, hint: `It belongs to ${holder} of this agent.` })
      }
    }
    const id = await this.#options.engine.identify(paths[0]!).catch(() => undefined)
    const pool = await this.#openPool(paths, id)
    try {
      const known = this.#entries.get(pool.name)
      if (known && (known.pool || known.checking || known.record.id !== pool.id)) throw nameInUse(op, pool.name)
      this.#checkVolumeNames(op, pool)
      const lacking = await this.#known.hold(pool, known !== undefined)
      await this.#record(pool)
      this.#tell('POOL_IMPORTED', pool.name, `from ${paths.join(', ')}`)
      const view = this.view(pool.name)
      return { ...view, reason: lacking || view.reason }
    } catch (error) {
      await pool.close()
      throw error
    }
  }

  /** @param yes although there are volumes in it, or nobody knows */
  async remove(name: string, yes: boolean): Promise<void> {
    const op = 'pool remove'
    const { record, pool } = this.#idle(op, name)
    const volumes = pool?.volumes().map((volume) => volume.name) ?? []
    if (!yes && (!pool || volumes.length > 0)) {
      const what = pool ? `${volumes.length} volumes (${volumes.slice(0, 5).join(', ')})` : 'volumes nobody can see now'
      throw new StorageError('CONFIRMATION_NEEDED', {
        op,
        object: name,
        hint: `It holds ${what}, whose data would be lost. To destroy them: tidemark pool remove ${name} --yes`,
      })
    }
    if (pool) await this.#close(op, pool)
    const { engine } = this.#options
    for (const path of record.paths) {
      // What is not there, or holds something else by now, is not touched.
      const id = await engine.identify(path).catch(() => undefined)
      if (id === record.id) await engine.erase(path)
    }
    await this.#forget(name)
    await this.#known.forget(record.id)
    this.#tell('POOL_REMOVED', name, `with ${volumes.length} volumes`)
  }

  /**
   * Close the pool, check it, and open it again. What a check takes is not held against other commands.
   * @param exclusive runs what changes the agent's objects, one at a time
   */
  async check(
    name: string,
    repair: boolean,
    exclusive: <T>(action: () => Promise<T>) => Promise<T>,
  ): Promise<PoolCheckView> {
    const record = await exclusive(async () => {
      const { record, pool } = this.#idle('pool check', name)
      if (pool) await this.#close('pool check', pool)
      const checking = { donePages: 0, totalPages: 0 }
      this.#entries.set(name, { record, pool: undefined, failure: beingChecked, checking })
      return record
    })
    try {
      const afterFailure = this.#known.hasFailed(record.id)
      return await this.#options.engine.check(record.paths, { repair, afterFailure }, (checking) => {
        const entry = this.#entries.get(name)
        if (entry?.checking) this.#entries.set(name, { ...entry, checking })
      })
    } finally {
      await exclusive(() => this.#openRecord(record))
    }
  }

  /** Each for itself: one that cannot be closed in order is recovered at its next start. */
  async close(): Promise<void> {
    for (const pool of this.all()) {
      await pool.close().catch((error) => {
        this.#say('warning', 'POOL_CLOSED_LATE', pool.name, error, 'It is recovered when it is opened next.')
      })
    }
    await this.#options.engine.close()
  }

  async #openRecord(record: PoolRecord): Promise<void> {
    const op = 'pool open'
    let pool: ThinPool | undefined
    try {
      pool = await this.#openPool(record.paths, record.id)
      if (pool.id !== record.id) {
        const hint = `Another pool lies on ${record.paths.join(', ')}. To have that: tidemark pool export ${record.name}, then import it.`
        throw new StorageError('OTHER_POOL', { op, object: record.name, hint })
      }
      this.#checkVolumeNames(op, pool)
      await this.#known.hold(pool, true)
      this.#entries.set(record.name, { record, pool, failure: '', checking: null })
    } catch (error) {
      await pool?.close().catch(() => undefined)
      const failure = error instanceof StorageError ? `${error.message}. ${error.hint} ${otherNames}` : String(error)
      this.#entries.set(record.name, { record, pool: undefined, failure, checking: null })
      this.#say('error', 'POOL_UNUSABLE', record.name, error)
    }
  }

  /** What was remembered of its failure is forgotten when it is open: all that counts is in a checkpoint then. */
  async #openPool(paths: readonly string[], id?: string): Promise<ThinPool> {
    const afterFailure = id !== undefined && this.#known.hasFailed(id)
    const pool = await this.#options.engine.open(paths, {
      afterFailure,
      onFailed: (failed) => this.#known.noteFailed(failed),
    })
    if (afterFailure) await this.#known.opened(pool.id)
    return pool
  }

  #entry(name: string): Entry {
    const entry = this.#entries.get(name)
    if (entry) return entry
    throw new StorageError('NO_SUCH_POOL', { op: 'pool', object: name, hint: 'See: tidemark pool list' })
  }

  /** @throws StorageError POOL_BUSY while it is being checked */
  #idle(op: string, name: string): Entry {
    const entry = this.#entry(name)
    if (!entry.checking) return entry
    throw new StorageError('POOL_BUSY', { op, object: name, retry: 'later', hint: beingChecked })
  }

  /** Files it makes are gone again when it fails. */
  async #make(devices: readonly PreparedDevice[], rest: Omit<CreatePoolOptions, 'devices'>): Promise<ThinPool> {
    const { engine } = this.#options
    try {
      for (const { path, replaces } of devices) if (replaces) await rm(path)
      await engine.create({ ...rest, devices: devices.map(({ replaces, ...device }) => device) })
      return await this.#openPool(devices.map(({ path }) => path))
    } catch (error) {
      for (const { path, kind } of devices) if (kind === 'file') await rm(path, { force: true })
      throw error
    }
  }

  /** It is open, and from here on this agent's. */
  async #record(pool: ThinPool): Promise<void> {
    const { name, id } = pool
    const record: PoolRecord = { name, id, paths: pool.facts().devices.map(({ path }) => path) }
    await this.#options.store.put({ [`pool/${name}`]: record })
    this.#entries.set(name, { record, pool, failure: '', checking: null })
  }

  async #forget(name: string): Promise<void> {
    await this.#options.store.remove([`pool/${name}`])
    this.#entries.delete(name)
  }

  async #close(op: string, pool: ThinPool): Promise<void> {
    const users = this.#options.users(pool)
    if (users.length > 0) {
      const more = users.length > 3 ? `, and ${users.length - 3} more` : ''
      throw new StorageError('POOL_IN_USE', { op, object: pool.name, hint: `${users.slice(0, 3).join(' ')}${more}` })
    }
    const volumes = pool.volumes().map(({ name }) => name)
    await pool.close()
    await this.#options.onClose(pool, volumes)
  }

  async #prepare(op: string, given: readonly PoolDevice[], force: boolean): Promise<PreparedDevice[]> {
    const { forbidden, engine, volumeAt } = this.#options
    const holder = (path: string): string | undefined => this.#poolAt(path) ?? volumeAt(path)
    const prepared: PreparedDevice[] = []
    for (const device of given) {
      const identify = (path: string) => engine.identify(path)
      const next = await prepareDevice(device, { op, forbidden, holder, identify, force })
      if (prepared.some(({ path }) => path === next.path)) {
        throw new StorageError('BAD_REQUEST', { op, object: device.path, hint: 'Name each file and device once.' })
      }
      prepared.push(next)
    }
    return prepared
  }

  /** @param which those that are not open may come back under the same paths, or be imported anew */
  #poolAt(path: string, which: 'open' | 'all' = 'all'): string | undefined {
    for (const { record, pool } of this.#entries.values()) {
      if ((pool || which === 'all') && record.paths.includes(path)) return `the pool ${record.name}`
    }
    return undefined
  }

  #checkVolumeNames(op: string, pool: ThinPool): void {
    const others = this.all().filter((other) => other !== pool)
    for (const { name } of pool.volumes()) {
      const other = others.find((other) => other.volumes().some((known) => known.name === name))
      const taken = other ? `so has the pool ${other.name}` : this.#options.nameTaken(name, pool.id)
      if (taken === undefined) continue
      throw new StorageError('NAME_IN_USE', {
        op,
        object: pool.name,
        hint: `It has a volume ${name}, and ${taken}. Remove or export that one first, or let another agent have the pool.`,
      })
    }
  }

  #tell(code: string, object: string, text: string): void {
    this.#options.report({ severity: 'info', code, object, text })
  }

  #say(severity: 'warning' | 'error', code: string, object: string, error: unknown, more = ''): void {
    const text = error instanceof StorageError ? `${error.message}. ${error.hint}` : String(error)
    this.#options.report({ severity, code, object, text: `${text} ${more}`.trimEnd() })
  }
}

function openView(pool: ThinPool): PoolView {
  const facts = pool.facts()
  const { reason, sizeBytes, allocatedBytes } = facts
  const free = Math.floor((100 * (sizeBytes - allocatedBytes)) / sizeBytes)
  const volumes = pool.volumes().map(({ name }) => name)
  const told = { reason: reason || `${free} % of its space is free`, check: null, volumes: volumes.filter(isName) }
  return { ...facts, ...told }
}

function nameInUse(op: string, name: string): StorageError {
  const hint = `This agent has a pool ${name} already. Choose another name, or export that one first: tidemark pool export ${name}`
  return new StorageError('ALREADY_EXISTS', { op, object: name, hint })
}

async function resolveDevice(op: string, path: string): Promise<string> {
  return realpath(path).catch((cause) => {
    throw new StorageError('NOT_FOUND', { op, object: path, cause, hint: 'Check the path; nothing is there.' })
  })
}
