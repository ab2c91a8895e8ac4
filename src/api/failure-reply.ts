import { StorageError } from '../block/storage-error.js'

/** What every refused or failed request gets as its body. */
export interface FailureBody {
  readonly error: ReturnType<StorageError['toJSON']>
}

export interface FailureReply {
  readonly status: number
  readonly body: FailureBody
  /** True when nobody foresaw it: to be logged with its stack, which never leaves the agent. */
  readonly unexpected: boolean
}

/** HTTP's word for a code. A client branches on the code; the status is for people and proxies. */
const statuses: readonly (readonly [RegExp, number])[] = [
  [/^BAD_/, 400],
  [/^(NOT_FOUND|UNKNOWN_.*|NO_SUCH_.*|.*_NOT_FOUND|.*_UNKNOWN)$/, 404],
  [/^(ACCESS_DENIED|FORBIDDEN)$/, 403],
  [/(EXISTS|IN_USE|BUSY|MOUNTED|WRONG_STATE|RUNNING|LOCKED)/, 409],
  [/(FULL|NO_SPACE|TOO_LARGE)/, 507],
]

/** Wrong input: what the client sent is not what the route takes. */
export function badRequest(op: string, object: string, reason: string, hint?: string): StorageError {
  return new StorageError('BAD_REQUEST', {
    op,
    object,
    cause: reason,
    hint: hint ?? 'Correct the request. The tidemark command of the same version sends it right.',
  })
}

/** The reply for anything that was thrown while a request was handled. */
export function failureReply(error: unknown, op: string): FailureReply {
  if (error instanceof StorageError) {
    return { status: statusOf(error), body: { error: error.toJSON() }, unexpected: false }
  }
  const status = frameworkStatus(error)
  if (status !== undefined) {
    const refusal = badRequest(op, 'request', frameworkReason(error, status))
    return { status, body: { error: refusal.toJSON() }, unexpected: false }
  }
  const internal = new StorageError('INTERNAL', {
    op,
    object: 'agent',
    hint: 'This is a fault of the agent. Its log has the details; the work of other streams and volumes goes on.',
  })
  return { status: 500, body: { error: internal.toJSON() }, unexpected: true }
}

function statusOf(error: StorageError): number {
  for (const [pattern, status] of statuses) if (pattern.test(error.code)) return status
  return error.retry === 'never' ? 422 : 503
}

/** fastify marks what the client did wrong with a status under 500. */
function frameworkStatus(error: unknown): number | undefined {
  if (typeof error !== 'object' || error === null) return undefined
  if (!('statusCode' in error) || typeof error.statusCode !== 'number') return undefined
  const ours = 'code' in error && typeof error.code === 'string' && error.code.startsWith('FST_')
  return ours && error.statusCode >= 400 && error.statusCode < 500 ? error.statusCode : undefined
}

interface ValidationFault {
  readonly instancePath?: string
  readonly message?: string
  readonly params?: { readonly additionalProperty?: unknown }
}

function frameworkReason(error: unknown, status: number): string {
  if (status === 413) return 'the body is larger than 1 MiB'
  if (status === 415) return 'the body is not application/json'
  const { validation, validationContext } = error as {
    validation?: readonly ValidationFault[]
    validationContext?: string
  }
  const fault = validation?.[0]
  if (!fault) return 'the request is malformed'
  const where = `${validationContext ?? 'request'}${fault.instancePath ?? ''}`
  const unknown = fault.params?.additionalProperty
  if (unknown !== undefined) return `${where} has the unknown field ${JSON.stringify(String(unknown).slice(0, 80))}`
  return `${where} ${fault.message ?? 'is wrong'}`
}
