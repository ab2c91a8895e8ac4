/** The shape of every body, parameter and response. Strict: nothing is coerced and unknown fields are refused. */

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
  VerifyView,
  VolumeView,
} from './agent-operations.js'
import { type Static, type TObject, type TSchema, Type } from './json-schema.js'

export type { Static, TSchema }

const strict = { additionalProperties: false } as const
/** Checked for its letters by checkName, which explains better than a pattern does. */
const name = Type.String({ minLength: 1, maxLength: 4096 })
const absolutePath = Type.String({ maxLength: 4095, pattern: '^/[^\\u0000]*$' })
const printable = (maxLength: number) => Type.String({ maxLength, pattern: '^[^\\u0000-\\u001f\\u007f]+$' })
const digits = Type.String({ pattern: '^[0-9]{1,15}$' })
/** A quantity as a number, or as people write it (`1GiB`, `1s`). */
const quantity = Type.Union([Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }), printable(40)])

const yesOrNo = Type.Optional(Type.Enum(['true', 'false']))

export const nameParams = Type.Object({ name }, strict)
export const snapshotParams = Type.Object({ name, snapshot: name }, strict)
export const attachQuery = Type.Object({ readOnly: yesOrNo }, strict)
export const yesQuery = Type.Object({ yes: yesOrNo }, strict)
export const discardJournalQuery = Type.Object({ discardJournal: yesOrNo }, strict)
export const checkQuery = Type.Object({ repair: yesOrNo }, strict)
export const diffQuery = Type.Object({ from: name, to: Type.Optional(name), after: Type.Optional(digits) }, strict)
export const noQuery = Type.Object({}, strict)
export const waitQuery = Type.Object({ epoch: digits, timeoutMs: Type.Optional(digits) }, strict)
export const eventsQuery = Type.Object({ after: Type.Optional(digits), follow: yesOrNo }, strict)

export const adoptBody = Type.Object({ path: absolutePath }, strict)
const force = Type.Optional(Type.Boolean())
export const createVolumeBody = Type.Object(
  { name, path: Type.Optional(absolutePath), pool: Type.Optional(name), size: quantity, force },
  strict,
)
export const resizeBody = Type.Object({ size: quantity, force }, strict)
const poolDevice = { path: absolutePath, kind: Type.Enum(['file', 'raw']), size: Type.Optional(quantity) }
export const createPoolBody = Type.Object(
  {
    name,
    devices: Type.Array(Type.Object(poolDevice, strict), { minItems: 1, maxItems: 64 }),
    unit: Type.Optional(quantity),
    block: Type.Optional(quantity),
    force,
  },
  strict,
)
export const extendPoolBody = Type.Object({ ...poolDevice, force }, strict)
export const importPoolBody = Type.Object({ paths: Type.Array(absolutePath, { minItems: 1, maxItems: 64 }) }, strict)
export const createSnapshotBody = Type.Object({ name }, strict)
export const createCloneBody = Type.Object(
  { name, volume: name, snapshot: Type.Optional(name), full: Type.Optional(Type.Boolean()) },
  strict,
)
export const refreshBody = Type.Object({ from: Type.Optional(name) }, strict)
export const addDestinationBody = Type.Object({ name, pairing: Type.String({ minLength: 1, maxLength: 8192 }) }, strict)
const policyKind = Type.Enum(['degrade', 'strict'])
export const createStreamBody = Type.Object(
  {
    name,
    volumes: Type.Array(name, { minItems: 1, maxItems: 256, uniqueItems: true }),
    destination: name,
    epoch: Type.Optional(quantity),
    policy: Type.Optional(policyKind),
    wait: Type.Optional(quantity),
  },
  strict,
)
export const setStreamBody = Type.Object(
  { policy: Type.Optional(policyKind), wait: Type.Optional(quantity) },
  { ...strict, minProperties: 1 },
)
export const moveBufferBody = Type.Object({ directory: absolutePath }, strict)

export const verifyStreamBody = Type.Object({ repair: Type.Optional(Type.Boolean()) }, strict)

export const createPairingBody = Type.Object(
  {
    kind: Type.Enum(['https', 'ftp', 'folder']),
    listen: Type.Optional(printable(300)),
    url: Type.Optional(printable(2048)),
    inbox: Type.Optional(absolutePath),
    directory: Type.Optional(absolutePath),
  },
  strict,
)

/** Checked by the compiler: the schema and the view have the same fields, of the same types. */
const view =
  <V>() =>
  <S extends TObject>(
    schema: S & (Static<S> extends V ? (keyof V extends keyof Static<S> ? unknown : never) : never),
  ): S =>
    schema

const text = Type.String()
const textOrNull = Type.Union([text, Type.Null()])
const texts = Type.Array(text)
const integer = Type.Integer()
const integerOrNull = Type.Union([integer, Type.Null()])

export const agentView = view<AgentView>()(
  Type.Object({ version: text, pid: integer, state: text, listen: textOrNull, javascriptCalls: integer }),
)

const attachState = Type.Enum(['attached', 'detached', 'failed'])

const imageView = view<ImageView>()(
  Type.Object({
    volume: text,
    complete: Type.Boolean(),
    progress: Type.Union([Type.Object({ doneBytes: integer, totalBytes: integer }), Type.Null()]),
    reason: text,
  }),
)

export const volumeView = view<VolumeView>()(
  Type.Object({
    name: text,
    path: textOrNull,
    kind: Type.Enum(['file', 'raw', 'thin']),
    pool: textOrNull,
    sizeBytes: integer,
    device: textOrNull,
    link: textOrNull,
    state: attachState,
    reason: text,
    readOnly: Type.Boolean(),
    stream: textOrNull,
    allocatedBytes: Type.Union([integer, Type.Null()]),
    snapshots: integer,
    origin: textOrNull,
    role: Type.Enum(['volume', 'inbound']),
    image: Type.Union([imageView, Type.Null()]),
    logicalBlockBytes: integer,
    counters: Type.Object({
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
  Type.Object({
    volume: text,
    name: text,
    pool: text,
    createdAt: text,
    sizeBytes: integer,
    allocatedBytes: integer,
    writtenBytes: Type.Union([integer, Type.Null()]),
    device: textOrNull,
    link: textOrNull,
    readOnly: Type.Boolean(),
    state: attachState,
    reason: text,
  }),
)

export const poolView = view<PoolView>()(
  Type.Object({
    name: text,
    id: text,
    devices: Type.Array(Type.Object({ path: text, sizeBytes: integer })),
    unitBytes: integer,
    blockBytes: integer,
    sizeBytes: integer,
    allocatedBytes: integer,
    mappedBytes: integer,
    virtualBytes: integer,
    marks: Type.Array(Type.Number()),
    state: Type.Enum(['online', 'nearly-full', 'full', 'damaged', 'failed']),
    reason: text,
    background: textOrNull,
    check: Type.Union([Type.Object({ donePages: integer, totalPages: integer }), Type.Null()]),
    volumes: texts,
  }),
)

export const poolCheckView = view<PoolCheckView>()(
  Type.Object({
    pool: text,
    id: text,
    devices: texts,
    clean: Type.Boolean(),
    usable: Type.Boolean(),
    findings: Type.Array(
      Type.Object({
        severity: Type.Enum(['warning', 'error']),
        object: text,
        text,
        volumes: texts,
        repaired: Type.Boolean(),
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
  Type.Object({
    volume: text,
    from: text,
    to: textOrNull,
    changedBytes: integer,
    extents: Type.Array(Type.Object({ offset: integer, lengthBytes: integer })),
    next: Type.Union([integer, Type.Null()]),
  }),
)

export const destinationView = view<DestinationView>()(
  Type.Object({
    name: text,
    kind: Type.Enum(['folder', 'https', 'ftp']),
    endpoint: text,
    state: Type.Enum(['up', 'down', 'unknown']),
    reason: text,
    streams: texts,
  }),
)

export const destinationTestView = view<DestinationTestView>()(
  Type.Object({ name: text, endpoint: text, roundTripMs: Type.Number() }),
)

const sourceBufferView = view<SourceBufferView>()(
  Type.Object({
    directory: text,
    usedBytes: integer,
    limitBytes: integer,
    fullInSeconds: integerOrNull,
    sharedDisk: textOrNull,
    move: Type.Union([
      Type.Object({
        from: text,
        doneBytes: integer,
        totalBytes: integer,
        returning: Type.Boolean(),
        trouble: textOrNull,
      }),
      Type.Null(),
    ]),
  }),
)

const verifyView = view<VerifyView>()(
  Type.Object({
    state: Type.Enum(['comparing', 'repairing', 'equal', 'repaired', 'differs', 'aborted', 'failed']),
    reason: text,
    repair: Type.Boolean(),
    doneBytes: integer,
    totalBytes: integer,
    mismatchedBytes: integer,
    mismatches: Type.Array(Type.Object({ volume: text, offset: integer, lengthBytes: integer })),
    busyBytes: integer,
  }),
)

export const streamView = view<StreamView>()(
  Type.Object({
    name: text,
    id: text,
    destination: text,
    volumes: texts,
    epochMs: Type.Number(),
    policy: policyKind,
    waitMs: Type.Number(),
    state: Type.Enum([
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
    oldestUnsentSeconds: Type.Number(),
    bytesPerSecond: Type.Number(),
    lsn: Type.Object({ journal: text, sent: text, applied: text }),
    epoch: Type.Object({ cut: integer, sent: integer, applied: integer }),
    generation: integer,
    initialize: Type.Union([Type.Object({ doneBytes: integer, totalBytes: integer }), Type.Null()]),
    caughtUpInSeconds: integerOrNull,
    buffer: sourceBufferView,
    catchUp: Type.Union([Type.Object({ reason: text, doneBytes: integer, totalBytes: integer }), Type.Null()]),
    verify: Type.Union([verifyView, Type.Null()]),
    counters: Type.Object({
      rawBytes: integer,
      foldedBytes: integer,
      identicalBytes: integer,
      compressedBytes: integer,
      sentBytes: integer,
    }),
  }),
)

export const inboundView = view<InboundView>()(
  Type.Object({
    stream: text,
    id: text,
    pairing: text,
    state: Type.Enum(['initializing', 'consistent', 'applying', 'stalled', 'failed']),
    reason: text,
    generation: integer,
    appliedEpoch: integer,
    appliedLsn: text,
    appliedTime: textOrNull,
    waitingFiles: integer,
    volumes: Type.Array(Type.Object({ name: text, path: text, sizeBytes: integer, volume: textOrNull })),
  }),
)

export const eventView = view<AgentEvent>()(
  Type.Object({
    number: integer,
    time: text,
    severity: Type.Enum(['info', 'warning', 'error']),
    code: text,
    object: text,
    text,
  }),
)

export const exportView = Type.Object({ name: text, paths: texts })
export const pairingView = Type.Object({ pairing: text })
export const flushView = Type.Object({ epoch: integer, lsn: text })
export const waitView = Type.Object({ done: Type.Boolean(), stream: streamView })
export const nothing = Type.Object({}, strict)
export const listOf = <S extends TSchema>(schema: S) => Type.Array(schema)
