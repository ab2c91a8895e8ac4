/** The shape of every body, parameter and response. */
import type {
  AgentEvent,
  AgentView,
  DestinationTestView,
  DestinationView,
  DiffView,
  ImageView,
  InboundView,
  PoolCheckView,
  PoolView,
  SnapshotView,
  SourceBufferView,
  StreamView,
  VolumeView,
} from './agent-operations.js'
import {
  boolean,
  either,
  integer,
  list,
  number,
  object,
  oneOf,
  optional,
  orNull,
  positiveInteger,
  type Shape,
  type Static,
  string,
} from './shape.js'

/** Checked for its letters by checkName, which explains better than a pattern does. */
const name = string({ min: 1, max: 4096 })
const absolutePath = string({ max: 4095, pattern: /^\/[^\0]*$/u })
const noControls = /^\P{Cc}+$/u
const printable = (max: number) => string({ max, pattern: noControls })
const digits = string({ pattern: /^[0-9]{1,15}$/ })
/** A quantity as a number, or as people write it (`1GiB`, `1s`). */
const quantity = either(positiveInteger, printable(40))

const yesOrNo = optional(oneOf(['true', 'false']))

export const nameParams = object({ name })
export const snapshotParams = object({ name, snapshot: name })
export const attachQuery = object({ readOnly: yesOrNo })
export const yesQuery = object({ yes: yesOrNo })
export const checkQuery = object({ repair: yesOrNo })
export const diffQuery = object({ from: name, to: optional(name), after: optional(digits) })
export const noQuery = object({})
export const waitQuery = object({ epoch: digits, timeoutMs: optional(digits) })
export const eventsQuery = object({ after: optional(digits), follow: yesOrNo })

export const adoptBody = object({ path: absolutePath })
const force = optional(boolean)
export const createVolumeBody = object({
  name,
  path: optional(absolutePath),
  pool: optional(name),
  size: quantity,
  force,
})
export const resizeBody = object({ size: quantity, force })
const poolDevice = { path: absolutePath, kind: oneOf(['file', 'raw']), size: optional(quantity) }
export const createPoolBody = object({
  name,
  devices: list(object(poolDevice), { min: 1, max: 64 }),
  unit: optional(quantity),
  block: optional(quantity),
  force,
})
export const extendPoolBody = object({ ...poolDevice, force })
export const importPoolBody = object({ paths: list(absolutePath, { min: 1, max: 64 }) })
export const createSnapshotBody = object({ name })
export const createCloneBody = object({ name, volume: name, snapshot: optional(name), full: optional(boolean) })
export const refreshBody = object({ from: optional(name) })
export const addDestinationBody = object({ name, pairing: string({ min: 1, max: 8192 }) })
const policyKind = oneOf(['degrade', 'strict'])
export const createStreamBody = object({
  name,
  volumes: list(name, { min: 1, max: 256, unique: true }),
  destination: name,
  epoch: optional(quantity),
  policy: optional(policyKind),
  wait: optional(quantity),
})
export const setStreamBody = object({ policy: optional(policyKind), wait: optional(quantity) }, { min: 1 })
export const moveBufferBody = object({ directory: absolutePath })

export const createPairingBody = object({
  kind: oneOf(['https', 'ftp', 'folder']),
  listen: optional(printable(300)),
  url: optional(printable(2048)),
  inbox: optional(absolutePath),
  directory: optional(absolutePath),
})

/** Checked by the compiler: the schema and the view have the same fields, of the same types. */
const view =
  <V>() =>
  <S extends Shape<object>>(
    schema: S & (Static<S> extends V ? (keyof V extends keyof Static<S> ? unknown : never) : never),
  ): S =>
    schema

const text = string()
const textOrNull = orNull(text)
const texts = list(text)
const integerOrNull = orNull(integer)

export const agentView = view<AgentView>()(
  object({ version: text, pid: integer, state: text, listen: textOrNull, javascriptCalls: integer }),
)

const attachState = oneOf(['attached', 'detached', 'failed'])

const imageView = view<ImageView>()(
  object({
    volume: text,
    complete: boolean,
    progress: orNull(object({ doneBytes: integer, totalBytes: integer })),
    reason: text,
  }),
)

export const volumeView = view<VolumeView>()(
  object({
    name: text,
    path: textOrNull,
    kind: oneOf(['file', 'raw', 'thin']),
    pool: textOrNull,
    sizeBytes: integer,
    device: textOrNull,
    link: textOrNull,
    state: attachState,
    reason: text,
    readOnly: boolean,
    stream: textOrNull,
    allocatedBytes: orNull(integer),
    snapshots: integer,
    origin: textOrNull,
    role: oneOf(['volume', 'inbound']),
    image: orNull(imageView),
    logicalBlockBytes: integer,
    counters: object({
      reads: integer,
      writes: integer,
      flushes: integer,
      trims: integer,
      readBytes: integer,
      writtenBytes: integer,
      errors: integer,
    }),
  }),
)

export const snapshotView = view<SnapshotView>()(
  object({
    volume: text,
    name: text,
    pool: text,
    createdAt: text,
    sizeBytes: integer,
    allocatedBytes: integer,
    writtenBytes: orNull(integer),
    device: textOrNull,
    link: textOrNull,
    readOnly: boolean,
    state: attachState,
    reason: text,
  }),
)

export const poolView = view<PoolView>()(
  object({
    name: text,
    id: text,
    devices: list(object({ path: text, sizeBytes: integer })),
    unitBytes: integer,
    blockBytes: integer,
    sizeBytes: integer,
    allocatedBytes: integer,
    mappedBytes: integer,
    virtualBytes: integer,
    marks: list(number),
    state: oneOf(['online', 'nearly-full', 'full', 'damaged', 'failed']),
    reason: text,
    background: textOrNull,
    check: orNull(object({ donePages: integer, totalPages: integer })),
    volumes: texts,
  }),
)

export const poolCheckView = view<PoolCheckView>()(
  object({
    pool: text,
    id: text,
    devices: texts,
    clean: boolean,
    usable: boolean,
    findings: list(
      object({
        severity: oneOf(['warning', 'error']),
        object: text,
        text,
        volumes: texts,
        repaired: boolean,
      }),
    ),
    volumes: integer,
    snapshots: integer,
    sizeBytes: integer,
    allocatedBytes: integer,
    mappedBytes: integer,
  }),
)

export const diffView = view<DiffView>()(
  object({
    volume: text,
    from: text,
    to: textOrNull,
    changedBytes: integer,
    extents: list(object({ offset: integer, lengthBytes: integer })),
    next: orNull(integer),
  }),
)

export const destinationView = view<DestinationView>()(
  object({
    name: text,
    kind: oneOf(['folder', 'https', 'ftp']),
    endpoint: text,
    state: oneOf(['up', 'down', 'unknown']),
    reason: text,
    streams: texts,
  }),
)

export const destinationTestView = view<DestinationTestView>()(
  object({ name: text, endpoint: text, roundTripMs: number }),
)

const sourceBufferView = view<SourceBufferView>()(
  object({
    directory: text,
    usedBytes: integer,
    limitBytes: integer,
    fullInSeconds: integerOrNull,
    sharedDisk: textOrNull,
    move: orNull(
      object({
        from: text,
        doneBytes: integer,
        totalBytes: integer,
        returning: boolean,
        trouble: textOrNull,
      }),
    ),
  }),
)

export const streamView = view<StreamView>()(
  object({
    name: text,
    id: text,
    destination: text,
    volumes: texts,
    epochMs: number,
    policy: policyKind,
    waitMs: number,
    state: oneOf([
      'new',
      'initializing',
      'replicating',
      'catching-up',
      'mapping',
      'blocked',
      'paused',
      'waiting',
      'diverged',
      'failed',
    ]),
    reason: text,
    waitingBytes: integer,
    oldestUnsentSeconds: number,
    bytesPerSecond: number,
    lsn: object({ journal: text, sent: text, applied: text }),
    epoch: object({ cut: integer, sent: integer, applied: integer }),
    generation: integer,
    initialize: orNull(object({ doneBytes: integer, totalBytes: integer })),
    caughtUpInSeconds: integerOrNull,
    buffer: sourceBufferView,
    catchUp: orNull(object({ reason: text, doneBytes: integer, totalBytes: integer })),
    counters: object({
      rawBytes: integer,
      foldedBytes: integer,
      identicalBytes: integer,
      compressedBytes: integer,
      sentBytes: integer,
    }),
  }),
)

export const inboundView = view<InboundView>()(
  object({
    stream: text,
    id: text,
    pairing: text,
    state: oneOf(['initializing', 'consistent', 'applying', 'stalled', 'failed']),
    reason: text,
    generation: integer,
    appliedEpoch: integer,
    appliedLsn: text,
    appliedTime: textOrNull,
    waitingFiles: integer,
    volumes: list(object({ name: text, path: text, sizeBytes: integer, volume: textOrNull })),
  }),
)

export const eventView = view<AgentEvent>()(
  object({
    number: integer,
    time: text,
    severity: oneOf(['info', 'warning', 'error']),
    code: text,
    object: text,
    text,
  }),
)

export const exportView = object({ name: text, paths: texts })
export const pairingView = object({ pairing: text })
export const flushView = object({ epoch: integer, lsn: text })
export const waitView = object({ done: boolean, stream: streamView })
export const nothing = object({})
export { list as listOf } from './shape.js'
