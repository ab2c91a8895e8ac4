import type {
  AgentEvent,
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
  StreamView,
  VerifyView,
  VolumeView,
} from '../../src/api/agent-operations.js'
import type { ApiLog } from '../../src/api/server.js'

/** An agent without storage: it answers with made-up views, remembers what it was asked and fails when told to. */
export class FakeOperations implements AgentOperations {
  /** Every call: the name of the operation and its argument. */
  readonly calls: unknown[][] = []
  /** Thrown by the next call. */
  failNext: unknown
  volumes: VolumeView[] = [volumeView('db')]
  destinations: DestinationView[] = [
    { name: 'backup', kind: 'https', endpoint: 'b:7443', state: 'up', reason: 'answers', streams: ['gold'] },
  ]
  inbound: InboundView[] = [inboundView('gold')]
  /** The view of a volume that is made a complete image of `db`, one each time it is asked; the last one stays. */
  images: (VolumeView['image'] & object)[] = [
    { volume: 'db', complete: true, progress: null, reason: 'as db was at noon' },
  ]
  check: Partial<PoolCheckView> = {}
  /** A check ends when this does. */
  checking: Promise<void> = Promise.resolve()
  checkProgress: PoolView['check'] = null
  diffPages: Pick<DiffView, 'extents' | 'next'>[] = [{ extents: [{ offset: 65536, lengthBytes: 131072 }], next: null }]
  /** The status of `gold`, one each time it is asked; the last one stays. */
  states: Partial<StreamView>[] = [{}]
  /** What streamWait answers, in turn; the last one stays. */
  waits: boolean[] = [true]
  pastEvents: AgentEvent[] = []
  readonly #listeners = new Set<(event: AgentEvent) => void>()

  get listenerCount(): number {
    return this.#listeners.size
  }

  emit(event: AgentEvent): void {
    this.pastEvents.push(event)
    for (const listener of this.#listeners) listener(event)
  }

  #called(...call: unknown[]): void {
    this.calls.push(call)
    const failure = this.failNext
    this.failNext = undefined
    if (failure !== undefined) throw failure
  }

  #stream(name: string): StreamView {
    const state = this.states.length > 1 ? this.states.shift()! : this.states[0]!
    return streamView(name, state)
  }

  async agent(): Promise<AgentView> {
    this.#called('agent')
    return { version: '0.1.0', pid: 42, state: 'running', listen: '0.0.0.0:7443', javascriptCalls: 7 }
  }

  async volumeAdopt(request: { name: string; path: string }): Promise<VolumeView> {
    this.#called('volumeAdopt', request)
    return { ...volumeView(request.name), path: request.path }
  }

  async volumeCreate(request: { name: string; path: string; sizeBytes: number; force?: boolean }): Promise<VolumeView> {
    this.#called('volumeCreate', request)
    return { ...volumeView(request.name), path: request.path, sizeBytes: request.sizeBytes }
  }

  async volumeAttach(name: string, readOnly: boolean): Promise<VolumeView> {
    this.#called('volumeAttach', name, readOnly)
    const attached = { state: 'attached', device: '/dev/loop7', link: `/dev/tidemark/${name}` } as const
    // STREAM.VOLUME arrives.
    if (!name.includes('.')) return { ...volumeView(name), ...attached, readOnly }
    const reason = 'serves its host; it is torn'
    return { ...volumeView(name), ...attached, readOnly: true, role: 'inbound', reason }
  }

  async volumeDetach(name: string): Promise<VolumeView> {
    this.#called('volumeDetach', name)
    return volumeView(name)
  }

  async volumeList(): Promise<VolumeView[]> {
    this.#called('volumeList')
    return this.volumes
  }

  async volumeShow(name: string): Promise<VolumeView> {
    this.#called('volumeShow', name)
    if (name === 'copy') return this.#imageView(name)
    return this.volumes.find((volume) => volume.name === name) ?? volumeView(name)
  }

  async volumeRemove(name: string, yes: boolean): Promise<void> {
    this.#called('volumeRemove', name, yes)
  }

  async poolCreate(request: CreatePool): Promise<PoolView> {
    this.#called('poolCreate', request)
    return poolView(request.name)
  }

  async poolList(): Promise<PoolView[]> {
    this.#called('poolList')
    return [poolView('fast')]
  }

  async poolShow(name: string): Promise<PoolView> {
    this.#called('poolShow', name)
    return { ...poolView(name), check: this.checkProgress }
  }

  async poolExtend(name: string, device: PoolDevice & { readonly force?: boolean }): Promise<PoolView> {
    this.#called('poolExtend', name, device)
    return poolView(name)
  }

  async poolExport(name: string): Promise<{ name: string; paths: readonly string[] }> {
    this.#called('poolExport', name)
    return { name, paths: ['/srv/a', '/dev/sdb'] }
  }

  async poolImport(paths: readonly string[]): Promise<PoolView> {
    this.#called('poolImport', paths)
    return poolView('fast')
  }

  async poolRemove(name: string, yes: boolean): Promise<void> {
    this.#called('poolRemove', name, yes)
  }

  async poolCheck(name: string, repair: boolean): Promise<PoolCheckView> {
    this.#called('poolCheck', name, repair)
    await this.checking
    return { ...checkView(name), ...this.check }
  }

  async volumeCreateThin(request: { name: string; pool: string; sizeBytes: number }): Promise<VolumeView> {
    this.#called('volumeCreateThin', request)
    return { ...thinView(request.name), pool: request.pool, sizeBytes: request.sizeBytes }
  }

  async volumeResize(name: string, sizeBytes: number, force: boolean): Promise<VolumeView> {
    this.#called('volumeResize', name, sizeBytes, force)
    return { ...thinView(name), sizeBytes }
  }

  async volumeDiff(volume: string, from: string, to: string | null, afterOffset: number): Promise<DiffView> {
    this.#called('volumeDiff', volume, from, to, afterOffset)
    const page = this.diffPages.length > 1 ? this.diffPages.shift()! : this.diffPages[0]!
    return { volume, from, to, changedBytes: 131072, ...page }
  }

  async snapshotCreate(volume: string, name: string): Promise<SnapshotView> {
    this.#called('snapshotCreate', volume, name)
    return snapshotView(volume, name)
  }

  async snapshotList(volume: string): Promise<SnapshotView[]> {
    this.#called('snapshotList', volume)
    return [snapshotView(volume, 'monday')]
  }

  async snapshotRemove(volume: string, name: string): Promise<void> {
    this.#called('snapshotRemove', volume, name)
  }

  async snapshotDiscard(volume: string, name: string, yes: boolean): Promise<SnapshotView> {
    this.#called('snapshotDiscard', volume, name, yes)
    return snapshotView(volume, name)
  }

  async snapshotRollback(volume: string, name: string, yes: boolean): Promise<VolumeView> {
    this.#called('snapshotRollback', volume, name, yes)
    return thinView(volume)
  }

  async snapshotAttach(volume: string, name: string, readOnly: boolean): Promise<SnapshotView> {
    this.#called('snapshotAttach', volume, name, readOnly)
    const link = `/dev/tidemark/${volume}@${name}`
    return { ...snapshotView(volume, name), state: 'attached', readOnly, device: '/dev/loop8', link }
  }

  async snapshotDetach(volume: string, name: string): Promise<SnapshotView> {
    this.#called('snapshotDetach', volume, name)
    return snapshotView(volume, name)
  }

  async cloneCreate(request: { volume: string; snapshot?: string; name: string; full?: boolean }): Promise<VolumeView> {
    this.#called('cloneCreate', request)
    if (request.full) return this.#imageView(request.name)
    return { ...thinView(request.name), origin: `${request.volume}@${request.snapshot ?? `for-${request.name}`}` }
  }

  async cloneRefresh(name: string, from: string | null): Promise<VolumeView> {
    this.#called('cloneRefresh', name, from)
    return this.#imageView(name)
  }

  #imageView(name: string): VolumeView {
    const image = this.images.length > 1 ? this.images.shift()! : this.images[0]!
    return { ...thinView(name), image }
  }

  async pairingCreate(request: CreatePairing): Promise<{ pairing: string }> {
    this.#called('pairingCreate', request)
    return { pairing: 'tidemark1:c2VjcmV0' }
  }

  async destinationAdd(request: { name: string; pairing: string }): Promise<DestinationView> {
    this.#called('destinationAdd', request)
    return { ...this.destinations[0]!, name: request.name }
  }

  async destinationList(): Promise<DestinationView[]> {
    this.#called('destinationList')
    return this.destinations
  }

  async destinationTest(name: string): Promise<DestinationTestView> {
    this.#called('destinationTest', name)
    return { name, endpoint: 'https://b:7443', roundTripMs: 1.25 }
  }

  async destinationRemove(name: string): Promise<void> {
    this.#called('destinationRemove', name)
  }

  async streamCreate(request: {
    name: string
    volumes: readonly string[]
    destination: string
    epochMs?: number
  }): Promise<StreamView> {
    this.#called('streamCreate', request)
    return streamView(request.name, { volumes: request.volumes, destination: request.destination, state: 'new' })
  }

  async streamInitialize(name: string, discardJournal: boolean): Promise<StreamView> {
    this.#called('streamInitialize', name, discardJournal)
    return streamView(name, { state: 'initializing', reason: 'copying', initialize: { doneBytes: 0, totalBytes: 100 } })
  }

  async streamStatus(name: string): Promise<StreamView> {
    this.#called('streamStatus', name)
    return this.#stream(name)
  }

  async streamList(): Promise<StreamView[]> {
    this.#called('streamList')
    return [this.#stream('gold')]
  }

  async streamFlush(name: string): Promise<{ epoch: number; lsn: string }> {
    this.#called('streamFlush', name)
    return { epoch: 12, lsn: '18446744073709551615' }
  }

  async streamWait(name: string, epoch: number, timeoutMs: number): Promise<{ done: boolean; stream: StreamView }> {
    this.#called('streamWait', name, epoch, timeoutMs)
    const done = this.waits.length > 1 ? this.waits.shift()! : this.waits[0]!
    if (!done) await new Promise((resolve) => setTimeout(resolve, Math.min(timeoutMs, 100)))
    return { done, stream: this.#stream(name) }
  }

  async streamSet(name: string, policy: { kind?: 'degrade' | 'strict'; waitMs?: number }): Promise<StreamView> {
    this.#called('streamSet', name, policy)
    return streamView(name, { policy: policy.kind ?? 'strict', waitMs: policy.waitMs ?? 30_000 })
  }

  async bufferMove(stream: string, directory: string | null): Promise<StreamView> {
    this.#called('bufferMove', stream, directory)
    const view = streamView(stream)
    return { ...view, buffer: { ...view.buffer, directory: directory ?? view.buffer.directory } }
  }

  async streamVerify(name: string, repair: boolean | null): Promise<StreamView> {
    this.#called('streamVerify', name, repair)
    return streamView(name, { verify: verifyView(repair === null ? 'aborted' : 'comparing') })
  }

  async streamPause(name: string): Promise<StreamView> {
    this.#called('streamPause', name)
    return streamView(name, { state: 'paused', reason: 'by an operator' })
  }

  async streamResume(name: string): Promise<StreamView> {
    this.#called('streamResume', name)
    return streamView(name)
  }

  async streamRemove(name: string, discardJournal: boolean): Promise<void> {
    this.#called('streamRemove', name, discardJournal)
  }

  async inboundList(): Promise<InboundView[]> {
    this.#called('inboundList')
    return this.inbound
  }

  async inboundShow(stream: string): Promise<InboundView> {
    this.#called('inboundShow', stream)
    return inboundView(stream)
  }

  async inboundRemove(stream: string, yes: boolean): Promise<void> {
    this.#called('inboundRemove', stream, yes)
  }

  async events(afterNumber: number): Promise<AgentEvent[]> {
    this.#called('events', afterNumber)
    return this.pastEvents.filter((event) => event.number > afterNumber).slice(0, 1000)
  }

  onEvent(listener: (event: AgentEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
}

export function volumeView(name: string): VolumeView {
  return {
    name,
    path: `/srv/${name}.img`,
    kind: 'file',
    pool: null,
    sizeBytes: 1024 ** 3,
    device: null,
    link: null,
    state: 'detached',
    reason: 'not attached',
    readOnly: false,
    stream: null,
    allocatedBytes: null,
    snapshots: 0,
    origin: null,
    role: 'volume',
    image: null,
    logicalBlockBytes: 512,
    counters: { reads: 1, writes: 2, flushes: 3, trims: 4, readBytes: 5, writtenBytes: 6 * 1024, errors: 0 },
  }
}

export function thinView(name: string): VolumeView {
  return { ...volumeView(name), path: null, kind: 'thin', pool: 'fast', allocatedBytes: 8 * 1024 ** 2, snapshots: 2 }
}

export function snapshotView(volume: string, name: string): SnapshotView {
  return {
    volume,
    name,
    pool: 'fast',
    createdAt: '2026-01-02T03:04:05.000Z',
    sizeBytes: 1024 ** 3,
    allocatedBytes: 8 * 1024 ** 2,
    writtenBytes: null,
    device: null,
    link: null,
    readOnly: false,
    state: 'detached',
    reason: 'not attached',
  }
}

export function poolView(name: string): PoolView {
  return {
    name,
    id: '00112233445566778899aabbccddeeff',
    devices: [{ path: '/srv/a', sizeBytes: 4 * 1024 ** 3 }],
    unitBytes: 8 * 1024 ** 2,
    blockBytes: 64 * 1024,
    sizeBytes: 4 * 1024 ** 3,
    allocatedBytes: 1024 ** 3,
    mappedBytes: 512 * 1024 ** 2,
    virtualBytes: 16 * 1024 ** 3,
    marks: [70, 85, 95],
    state: 'online',
    reason: '75 % of its space is free',
    background: null,
    check: null,
    volumes: ['db', 'test'],
  }
}

export function checkView(pool: string): PoolCheckView {
  return {
    pool,
    id: '00112233445566778899aabbccddeeff',
    devices: ['/srv/a'],
    clean: true,
    usable: true,
    findings: [],
    volumes: 2,
    snapshots: 3,
    sizeBytes: 4 * 1024 ** 3,
    allocatedBytes: 2 * 1024 ** 3,
    mappedBytes: 1024 ** 3,
  }
}

export function verifyView(state: VerifyView['state']): VerifyView {
  return {
    ...{ state, reason: '', repair: true, doneBytes: 1024 ** 2, totalBytes: 4 * 1024 ** 2, busyBytes: 0 },
    ...{ mismatchedBytes: 65_536, mismatches: [{ volume: 'db', offset: 131_072, lengthBytes: 65_536 }] },
  }
}

export function streamView(name: string, over: Partial<StreamView> = {}): StreamView {
  return {
    name,
    id: '00112233445566778899aabbccddeeff',
    destination: 'backup',
    volumes: ['db'],
    epochMs: 1000,
    state: 'replicating',
    reason: 'all is sent',
    waitingBytes: 4096,
    oldestUnsentSeconds: 75,
    bytesPerSecond: 1024 ** 2,
    lsn: { journal: '9007199254740993', sent: '2', applied: '1' },
    epoch: { cut: 3, sent: 2, applied: 1 },
    generation: 1,
    initialize: null,
    catchUp: null,
    verify: null,
    caughtUpInSeconds: 90,
    policy: 'degrade',
    waitMs: 30_000,
    buffer: {
      directory: '/srv/buffer/gold',
      usedBytes: 1024 ** 3,
      limitBytes: 8 * 1024 ** 3,
      fullInSeconds: null,
      sharedDisk: null,
      move: null,
    },
    counters: { rawBytes: 5, foldedBytes: 4, identicalBytes: 3, compressedBytes: 2, sentBytes: 1 },
    ...over,
  }
}

export function inboundView(stream: string): InboundView {
  return {
    stream,
    id: '00112233445566778899aabbccddeeff',
    pairing: 'a1b2',
    state: 'consistent',
    reason: 'up to date',
    generation: 1,
    appliedEpoch: 3,
    appliedLsn: '77',
    appliedTime: '2026-01-02T03:04:05.000Z',
    waitingFiles: 0,
    volumes: [{ name: 'db', path: '/var/lib/tidemark/inbound/gold/db.img', sizeBytes: 1024 ** 3, volume: null }],
  }
}

export function event(number: number, text = 'the link is up'): AgentEvent {
  return { number, time: '2026-01-02T03:04:05.000Z', severity: 'info', code: 'LINK_UP', object: 'backup', text }
}

/** A log that keeps its lines. */
export class FakeLog implements ApiLog {
  readonly lines: { level: string; details: object; message: string }[] = []
  info = (details: object, message: string) => this.#add('info', details, message)
  warn = (details: object, message: string) => this.#add('warn', details, message)
  error = (details: object, message: string) => this.#add('error', details, message)
  #add(level: string, details: object, message: string): void {
    this.lines.push({ level, details, message })
  }
  levels(): string[] {
    return this.lines.map(({ level }) => level)
  }
}
