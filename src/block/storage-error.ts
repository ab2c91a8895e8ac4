/** When the caller may try again. `never` means: not until somebody changed something. */
export type RetryClass = 'never' | 'later' | 'after-arrival'

export interface StorageErrorDetail {
  /** What was being done, in the field's words: `destage`, `volume attach`. */
  readonly op: string
  /** The volume, stream, file or device it was done to. */
  readonly object: string
  /** One sentence the operator can act on. */
  readonly hint: string
  readonly retry?: RetryClass
  readonly cause?: unknown
}

/**
 * Anything a disk, network, peer or operator can cause.
 *
 * Branch on `code`, never on text. A broken invariant is not one of these: that is an assertion.
 */
export class StorageError extends Error {
  readonly code: string
  readonly op: string
  readonly object: string
  readonly hint: string
  readonly retry: RetryClass

  constructor(code: string, detail: StorageErrorDetail) {
    super(`${detail.op} ${detail.object}: ${code}${causeText(detail.cause)}`, { cause: detail.cause })
    this.name = 'StorageError'
    this.code = code
    this.op = detail.op
    this.object = detail.object
    this.hint = detail.hint
    this.retry = detail.retry ?? 'never'
  }

  toJSON(): { code: string; op: string; object: string; message: string; hint: string; retry: RetryClass } {
    const { code, op, object, message, hint, retry } = this
    return { code, op, object, message, hint, retry }
  }
}

function causeText(cause: unknown): string {
  if (cause === undefined || cause === null) return ''
  return ` (${cause instanceof Error ? cause.message : String(cause)})`
}

/** The errno name (`ENOSPC`) of an error thrown by Node's fs, or undefined. */
export function errnoOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}
