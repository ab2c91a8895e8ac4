/** The agent's words for what went wrong, or the command's own. Exit code 1. */
export interface FailureDetail {
  readonly code: string
  readonly op: string
  readonly object: string
  /** What happened, without what to do. */
  readonly message: string
  /** What to do. */
  readonly hint: string
  readonly retry: string
}

/** Refused or failed: one line on stderr. */
export class CommandFailure extends Error {
  readonly detail: FailureDetail

  constructor(detail: Omit<FailureDetail, 'retry'> & { readonly retry?: string }) {
    super(detail.message)
    const { code, op, object, message, hint, retry = 'never' } = detail
    this.detail = { code, op, object, message, hint, retry }
  }
}

/** The command was typed wrong: what, and how it is typed right. Exit code 2. */
export class UsageError extends Error {}
