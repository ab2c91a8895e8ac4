/** The shape of every body, parameter and response. Strict: nothing is coerced and unknown fields are refused. */
import { type Static, type TObject, type TSchema, Type } from 'typebox'
import type {
  AgentEvent,
  AgentView,
  DestinationTestView,
  DestinationView,
  InboundView,
  StreamView,
  VolumeView,
} from './agent-operations.js'

export type { Static, TSchema }

const strict = { additionalProperties: false } as const
/** Checked for its letters by checkName, which explains better than a pattern does. */
const name = Type.String({ minLength: 1, maxLength: 4096 })
const absolutePath = Type.String({ maxLength: 4095, pattern: '^/[^\\u0000]*$' })
const printable = (maxLength: number) => Type.String({ maxLength, pattern: '^[^\\u0000-\\u001f\\u007f]+$' })
const digits = Type.String({ pattern: '^[0-9]{1,15}$' })
/** A quantity as a number, or as people write it (`1GiB`, `1s`). */
const quantity = Type.Union([Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }), printable(40)])

export const nameParams = Type.Object({ name }, strict)
export const noQuery = Type.Object({}, strict)
export const waitQuery = Type.Object({ epoch: digits, timeoutMs: Type.Optional(digits) }, strict)
export const eventsQuery = Type.Object(
  { after: Type.Optional(digits), follow: Type.Optional(Type.Enum(['true', 'false'])) },
  strict,
)

export const adoptBody = Type.Object({ path: absolutePath }, strict)
export const createVolumeBody = Type.Object(
  { name, path: absolutePath, size: quantity, force: Type.Optional(Type.Boolean()) },
  strict,
)
export const addDestinationBody = Type.Object({ name, pairing: Type.String({ minLength: 1, maxLength: 8192 }) }, strict)
export const createStreamBody = Type.Object(
  {
    name,
    volumes: Type.Array(name, { minItems: 1, maxItems: 256, uniqueItems: true }),
    destination: name,
    epoch: Type.Optional(quantity),
  },
  strict,
)
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

export const agentView = view<AgentView>()(
  Type.Object({ version: text, pid: integer, state: text, listen: textOrNull, javascriptCalls: integer }),
)

export const volumeView = view<VolumeView>()(
  Type.Object({
    name: text,
    path: text,
    kind: Type.Enum(['file', 'raw']),
    sizeBytes: integer,
    device: textOrNull,
    link: textOrNull,
    state: Type.Enum(['attached', 'detached', 'failed']),
    reason: text,
    stream: textOrNull,
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

export const streamView = view<StreamView>()(
  Type.Object({
    name: text,
    id: text,
    destination: text,
    volumes: texts,
    epochMs: Type.Number(),
    state: Type.Enum(['new', 'initializing', 'replicating', 'paused', 'waiting', 'diverged', 'failed']),
    reason: text,
    waitingBytes: integer,
    oldestUnsentSeconds: Type.Number(),
    bytesPerSecond: Type.Number(),
    lsn: Type.Object({ journal: text, sent: text, applied: text }),
    epoch: Type.Object({ cut: integer, sent: integer, applied: integer }),
    generation: integer,
    initialize: Type.Union([Type.Object({ doneBytes: integer, totalBytes: integer }), Type.Null()]),
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
    volumes: Type.Array(Type.Object({ name: text, path: text, sizeBytes: integer })),
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

export const pairingView = Type.Object({ pairing: text })
export const flushView = Type.Object({ epoch: integer, lsn: text })
export const waitView = Type.Object({ done: Type.Boolean(), stream: streamView })
export const nothing = Type.Object({}, strict)
export const listOf = <S extends TSchema>(schema: S) => Type.Array(schema)
