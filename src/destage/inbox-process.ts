import { HangingWorker } from '../block/hanging-worker.js'
import { StorageError } from '../block/storage-error.js'
import { Lanes } from '../transport/lanes.js'
import type { InboxCalls } from './inbox.js'
import type { InboxNames } from './inbox-listing.js'
import type { InboxCall } from './inbox-worker.js'

export const INBOX_UNAVAILABLE = 'INBOX_UNAVAILABLE'
/** Files read at once from a share, each into memory. */
const parallelTakes = 4

/** An inbox that others serve, such as a share: touched by a process of its own, for it may hang. */
export class InboxProcess implements InboxCalls {
  readonly directory: string
  readonly #worker: HangingWorker
  readonly #onChange: (streamId: string | null) => void
  readonly #lanes = new Lanes(parallelTakes)
  readonly #closing = new AbortController()
  #listens = false

  /** @param onChange as of Inbox */
  constructor(
    directory: string,
    onChange: (streamId: string | null) => void,
    { silenceMs }: { readonly silenceMs?: number } = {},
  ) {
    this.directory = directory
    this.#onChange = onChange
    this.#worker = new HangingWorker({
      script: new URL('./inbox-worker.js', import.meta.url),
      hung: (method) => unavailable(method, directory),
      silenceMs,
    })
  }

  /** Whether the inbox, or what its path leads to, is a folder. */
  isFolder(): Promise<boolean> {
    return this.#worker.call<boolean>('isFolder', this.directory)
  }

  streams(): Promise<string[]> {
    return this.#call<string[]>('streams', {})
  }

  names(streamId: string): Promise<InboxNames> {
    return this.#call<InboxNames>('names', { streamId })
  }

  take(streamId: string, name: string, to: string): Promise<string | null> {
    const { signal } = this.#closing
    return this.#lanes.run(undefined, signal, () => this.#call<string | null>('take', { streamId, name, to }))
  }

  remove(streamId: string, name: string): Promise<string | null> {
    return this.#call<string | null>('remove', { streamId, name })
  }

  putAside(streamId: string, name: string, to: string): Promise<boolean> {
    return this.#call<boolean>('putAside', { streamId, name, to })
  }

  acknowledge(streamId: string, sealed: Buffer): Promise<boolean> {
    return this.#call<boolean>('acknowledge', { streamId, sealed })
  }

  /** What is under way fails (INBOX_UNAVAILABLE), and so does what comes after. */
  close(): void {
    this.#closing.abort(unavailable('close', this.directory))
    this.#worker.close()
  }

  #call<T>(method: string, given: Omit<InboxCall, 'directory'>): Promise<T> {
    this.#listen()
    return this.#worker.call<T>(method, { directory: this.directory, ...given } satisfies InboxCall)
  }

  /** Each process begins to watch anew. */
  #listen(): void {
    if (this.#listens) return
    this.#listens = true
    const ended = (): void => {
      this.#listens = false
    }
    const hint = (streamId: unknown): void => this.#onChange(streamId as string | null)
    this.#worker.listen('watch', this.directory, hint).then(ended, ended)
  }
}

function unavailable(op: string, directory: string): StorageError {
  return new StorageError(INBOX_UNAVAILABLE, {
    op,
    object: directory,
    cause: 'it does not answer',
    retry: 'later',
    hint: 'Check the share or server that the inbox lies on. It is tried again by itself; what was sent waits at the source.',
  })
}
