import type { ReportEvent } from '../block/event-log.js'
import { formatBytes } from '../block/size.js'
import { StorageError } from '../block/storage-error.js'
import type { Comparison } from '../replication-file/acknowledgement.js'
import { rangesText } from '../replication-file/volume-range.js'
import type { FailureRetry } from './failure-retry.js'
import type { StreamPosition, StreamVolume } from './stream-state.js'

/**
 * What keeps a stream from doing its work, and the events that tell of it: one when something begins to fail, one when
 * it works again.
 */
export class StreamHealth {
  /** An invariant that broke, or a recovery that failed: the stream stands. */
  failure: string | undefined
  /** The failure that was told of last, until it works again. */
  #told: string | undefined
  /** The last transfer failed. */
  #sending: StorageError | null = null
  /** Acknowledgements cannot be read. */
  #reading: StorageError | null = null
  /** The source buffer or the backing cannot be used for now. */
  trouble: StorageError | null = null
  /** The disk below a volume failed a sync: what hosts were told is safe may be in the journal alone. */
  unsynced: StorageError | null = null
  bufferFull = false
  /** Hosts wait, or get errors: why. */
  blocked: string | undefined
  /** What the destination says of itself. */
  farSide = { state: '', reason: '' }
  #badSeal = false
  readonly #stream: string
  readonly #report: ReportEvent

  /** Of what failed. */
  readonly #retry: Pick<FailureRetry, 'note' | 'cancel' | 'inSeconds'>

  constructor(stream: string, report: ReportEvent, retry: Pick<FailureRetry, 'note' | 'cancel' | 'inSeconds'>) {
    this.#stream = stream
    this.#report = report
    this.#retry = retry
  }

  say(severity: 'info' | 'warning' | 'error', code: string, text: string): void {
    this.#report({ severity, code, object: this.#stream, text })
  }

  sayCatchUp({ catchUp }: Pick<StreamPosition, 'catchUp'>): void {
    if (!catchUp) return
    const what = `${formatBytes(catchUp.totalBytes)} are read and sent again`
    this.say('warning', 'CATCH_UP_STARTED', `${catchUp.reason} ${what}; hosts go on.`)
  }

  /** Told of once, however often it is tried again, as long as it is the same. */
  noteFailure(error: unknown): void {
    const known = error instanceof StorageError
    this.failure = known ? `${error.message}. ${error.hint}` : String(error)
    this.#retry.note(error)
    if (this.failure === this.#told) return
    this.#told = this.failure
    const stack = !known && error instanceof Error ? `\n${error.stack}` : ''
    this.say('error', 'STREAM_FAILED', this.failure + stack)
  }

  /** What failed was tried again, and has not failed since. */
  noteWorks(): void {
    if (this.#told === undefined || this.failure !== undefined) return
    this.#told = undefined
    this.say('info', 'STREAM_WORKS_AGAIN', 'what had failed was tried again, and works')
  }

  /** Until what failed is tried again; null: not by itself. */
  get retryInSeconds(): number | null {
    return this.#retry.inSeconds
  }

  get link(): StorageError | null {
    return this.#sending ?? this.#reading
  }

  noteSending(error: StorageError | null): void {
    const before = this.link
    this.#sending = error
    this.#noteTurn(before, this.link, 'LINK_UP', 'transfers work again')
  }

  noteReading(error: StorageError | null): void {
    const before = this.link
    this.#reading = error
    this.#noteTurn(before, this.link, 'LINK_UP', 'transfers work again')
  }

  /** A new life of the stream: what was wrong with the old one is not its fault. */
  reset(): void {
    this.failure = undefined
    this.#told = undefined
    this.#retry.cancel()
    this.trouble = null
    this.unsynced = null
    this.bufferFull = false
    this.blocked = undefined
    this.farSide = { state: '', reason: '' }
  }

  noteTrouble(error: StorageError | null): void {
    this.#noteTurn(this.trouble, error, 'TROUBLE_OVER', 'epochs are cut again')
    this.trouble = error
  }

  noteUnsynced(error: StorageError | null): void {
    this.#noteTurn(this.unsynced, error, 'BACKING_SYNCED', 'the volumes of the stream are synced again')
    this.unsynced = error
  }

  /** The journal takes no more writes, and must not be given up: what it holds may be nowhere else. */
  noteRefused(error: unknown): void {
    this.blocked =
      'Host writes fail: the disk below a volume failed a sync, and the journal, which has what that may have lost, takes no more. Mend the disk (see dmesg), then restart the agent: it replays the journal.'
    this.say('error', 'HOSTS_REFUSED', `${error}. ${this.blocked}`)
  }

  /** Said when the first difference of a run is heard of; all of them are named when it is over. */
  noteComparison(now: Comparison, before: Comparison | null, volumes: readonly StreamVolume[]): void {
    if (now.differing.length === 0 || (before?.differing.length ?? 0) > 0) return
    const where = rangesText(now.differing, volumes)
    this.say('error', 'FAR_SIDE_DIFFERS', `the copy at the destination differs: ${where}. The comparison goes on.`)
  }

  noteFarSide(state: string, reason: string): void {
    if (state !== this.farSide.state && (state === 'failed' || state === 'stalled')) {
      this.say('warning', 'DESTINATION_STALLED', reason)
    }
    this.farSide = { state, reason }
  }

  /** Said once: whoever can forge one can forge many. */
  noteBadSeal(error: StorageError): void {
    if (!this.#badSeal) this.say('error', 'ACKNOWLEDGEMENT_REFUSED', `${error.message}. ${error.hint}`)
    this.#badSeal = true
  }

  #noteTurn(before: StorageError | null, now: StorageError | null, code: string, text: string): void {
    if (now && before?.code !== now.code) this.say('warning', now.code, `${now.message}. ${now.hint}`)
    if (!now && before) this.say('info', code, text)
  }
}
