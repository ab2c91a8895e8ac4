import { type RetryLimits, withRetry } from './backoff.js'
import { transferFault } from './faults.js'
import { asFault } from './ftp-faults.js'
import type { FtpSession } from './ftp-session.js'
import { Lanes } from './lanes.js'
import { describeEndpoint, type FtpEndpoint } from './pairing.js'

export interface FtpTimeouts {
  /** Without a byte in either direction, connecting included. */
  readonly idleMs: number
  /** For a whole operation but an upload, however steadily a server drips its bytes. */
  readonly operationMs: number
}

export const FTP_TIMEOUTS: FtpTimeouts = { idleMs: 20_000, operationMs: 120_000 }

/** Connections for uploads, and for everything else: an acknowledgement is not read behind a queue of uploads. */
const UPLOAD_SESSIONS = 2
const CALL_SESSIONS = 2

/** Sessions to one server, made when needed and kept; reconnects with backoff when one is lost. */
export class FtpPool {
  readonly #endpoint: FtpEndpoint
  readonly #retry: RetryLimits
  readonly #timeouts: FtpTimeouts
  readonly #uploads = new Lanes(UPLOAD_SESSIONS)
  readonly #calls = new Lanes(CALL_SESSIONS)
  readonly #idle: FtpSession[] = []
  readonly #busy = new Set<FtpSession>()
  #isClosed = false

  constructor(endpoint: FtpEndpoint, retry: RetryLimits, timeouts: FtpTimeouts) {
    this.#endpoint = endpoint
    this.#retry = retry
    this.#timeouts = timeouts
  }

  describe(object: string): string {
    const base = describeEndpoint(this.#endpoint)
    return `${base}${base.endsWith('/') ? '' : '/'}${object}`
  }

  /**
   * Do something with a session, again with another one when it was lost.
   *
   * @param key one upload at a time for each; undefined: no upload
   * @throws StorageError
   */
  async run<T>(
    op: string,
    object: string,
    key: string | undefined,
    signal: AbortSignal,
    work: (session: FtpSession, progress: () => void) => Promise<T>,
  ): Promise<T> {
    const lanes = key === undefined ? this.#calls : this.#uploads
    return lanes.run(key, signal, () =>
      withRetry(this.#retry, signal, async (progress) => {
        const session = await this.#take(signal)
        try {
          return await work(session, progress)
        } catch (error) {
          throw asFault(error, op, this.describe(object))
        } finally {
          this.#busy.delete(session)
          if (this.#isClosed) session.close()
          else if (!session.isClosed) this.#idle.push(session)
        }
      }),
    )
  }

  close(): void {
    this.#isClosed = true
    for (const session of [...this.#idle.splice(0), ...this.#busy]) session.close()
  }

  async #take(signal: AbortSignal): Promise<FtpSession> {
    if (this.#isClosed) throw transferFault('LINK_DOWN', 'connect', this.describe(''), 'the transport was closed')
    let session = this.#idle.pop()
    while (session?.isClosed) session = this.#idle.pop()
    session ??= await this.#open(signal)
    this.#busy.add(session)
    return session
  }

  async #open(signal: AbortSignal): Promise<FtpSession> {
    // Its client is loaded by agents that have such a destination, and not at the start of every agent.
    const { FtpSession } = await import('./ftp-session.js')
    return FtpSession.open(this.#endpoint, this.#timeouts, signal)
  }
}
