/**
 * One control connection to an FTP server, one operation at a time. A negative reply is an FtpRefusal and the session
 * goes on; anything else is a lost connection: the session is closed and says so.
 *
 * Passive and binary always. Extended passive mode comes first, whose reply names no host; a PASV reply that names
 * another host than the control connection's is refused. TLS certificates are verified, except on loopback; an authority
 * of your own is named to the agent by NODE_EXTRA_CA_CERTS. A reply, a listing and the time of each are bounded.
 */
import assert from 'node:assert/strict'
import { isIP } from 'node:net'
import { type Readable, Writable } from 'node:stream'
import { Client, FTPError } from 'basic-ftp'
import { transferFault } from './faults.js'
import { cleanReply, connectionFault, FtpRefusal } from './ftp-faults.js'
import type { FtpTimeouts } from './ftp-pool.js'
import { describeEndpoint, type FtpEndpoint } from './pairing.js'
import { isRemoteName } from './remote-name.js'
import { LIST_LIMIT, type RemoteFile } from './transport.js'

const LISTING_LIMIT_BYTES = 32 * 1024 * 1024

export class FtpSession {
  readonly #client: Client
  readonly #endpoint: FtpEndpoint
  readonly #timeouts: FtpTimeouts
  readonly #object: string
  #home = '/'
  #busy = false

  private constructor(endpoint: FtpEndpoint, timeouts: FtpTimeouts) {
    this.#endpoint = endpoint
    this.#timeouts = timeouts
    this.#object = describeEndpoint(endpoint)
    this.#client = new Client(timeouts.idleMs, {
      allowSeparateTransferHost: false,
      maxListingBytes: LISTING_LIMIT_BYTES,
    })
  }

  /** Connect and log in. @throws StorageError the exact fault; the session's abort rejects with the signal's reason */
  static async open(endpoint: FtpEndpoint, timeouts: FtpTimeouts, signal: AbortSignal): Promise<FtpSession> {
    const session = new FtpSession(endpoint, timeouts)
    try {
      await session.#run('connect', signal, timeouts.operationMs, () => session.#login())
      return session
    } catch (error) {
      session.close()
      throw error
    }
  }

  get isClosed(): boolean {
    return this.#client.closed
  }

  close(): void {
    this.#client.close()
  }

  /** The endpoint's directory as an absolute path, without a slash at its end. */
  get base(): string {
    const { directory } = this.#endpoint
    const path = directory.startsWith('/') ? directory : `${this.#home}/${directory}`
    return path.replace(/\/+/g, '/').replace(/\/$/, '')
  }

  enter(directory: string, signal: AbortSignal): Promise<void> {
    return this.#call('enter', signal, async () => void (await this.#client.cd(directory === '' ? '/' : directory)))
  }

  makeDirectory(directory: string, signal: AbortSignal): Promise<void> {
    return this.#call('make directory', signal, async () => void (await this.#client.send(`MKD ${directory}`)))
  }

  removeDirectory(directory: string, signal: AbortSignal): Promise<void> {
    return this.#call('remove directory', signal, async () => void (await this.#client.removeEmptyDir(directory)))
  }

  /** Complete files of a directory, in name order. @throws FtpRefusal when it is not there */
  async list(directory: string, signal: AbortSignal): Promise<RemoteFile[]> {
    // A refused LIST may look like a lost connection, so the directory is entered first.
    await this.enter(directory, signal)
    const entries = await this.#call('list', signal, () => this.#client.list())
    return entries
      .filter(({ isFile, name, size }) => isFile && isRemoteName(name) && Number.isSafeInteger(size) && size >= 0)
      .map(({ name, size }) => ({ name, lengthBytes: size }))
      .sort((one, other) => (one.name < other.name ? -1 : 1))
      .slice(0, LIST_LIMIT)
  }

  /** Undefined when there is no such file. */
  async size(file: string, signal: AbortSignal): Promise<number | undefined> {
    try {
      const size = await this.#call('size', signal, () => this.#client.size(file))
      if (Number.isSafeInteger(size) && size >= 0) return size
    } catch (error) {
      if (error instanceof FtpRefusal && error.code === 550) return undefined
      throw error
    }
    throw transferFault('PROTOCOL_ERROR', 'size', this.#object, 'the server gave a length that is none')
  }

  /** The file from a position on. Ask its size first: a refused download may look like a lost connection. */
  async download(file: string, startAt: number, limitBytes: number, signal: AbortSignal): Promise<Buffer> {
    const chunks: Buffer[] = []
    let length = 0
    const tooLarge = transferFault('REMOTE_FILE_TOO_LARGE', 'read', `${this.#object} ${file}`)
    const sink = new Writable({
      write(chunk: Buffer, _encoding, done) {
        length += chunk.length
        chunks.push(chunk)
        done(length > limitBytes ? tooLarge : null)
      },
    })
    await this.#call('read', signal, async () => void (await this.#client.downloadTo(sink, file, startAt)))
    return Buffer.concat(chunks)
  }

  /**
   * Write a file from a position on. REST before STOR, not APPE: whatever a connection that was cut still writes at the
   * server, both write the same bytes in the same places.
   */
  async upload(file: string, source: Readable, startAt: number, signal: AbortSignal): Promise<void> {
    const client = this.#client
    const enterPassive = client.prepareTransfer
    const withRestart: typeof enterPassive = async (ftp) => {
      const reply = await enterPassive(ftp)
      await client.send(`REST ${startAt}`)
      return reply
    }
    try {
      await this.#run('put', signal, undefined, async () => {
        if (startAt > 0) client.prepareTransfer = withRestart
        await client.uploadFrom(source, file)
      })
    } finally {
      // The first transfer of a session puts the mode it found in this place by itself.
      if (client.prepareTransfer === withRestart) client.prepareTransfer = enterPassive
      source.destroy()
    }
  }

  rename(from: string, to: string, signal: AbortSignal): Promise<void> {
    return this.#call('rename', signal, async () => void (await this.#client.rename(from, to)))
  }

  remove(file: string, signal: AbortSignal): Promise<void> {
    return this.#call('remove', signal, async () => void (await this.#client.remove(file)))
  }

  async #login(): Promise<void> {
    const { host, port, user, password, tls } = this.#endpoint
    const client = this.#client
    const secureOptions = {
      host,
      minVersion: 'TLSv1.2' as const,
      rejectUnauthorized: !isLoopback(host),
      ...(isIP(host) === 0 && { servername: host }),
    }
    await refusalMeans('REMOTE_BUSY', this.#object, this.#endpoint, async () => {
      if (tls === 'implicit') await client.connectImplicitTLS(host, port, secureOptions)
      else await client.connect(host, port)
    })
    if (tls === 'explicit') {
      await refusalMeans('TLS_FAILED', this.#object, this.#endpoint, () => client.useTLS(secureOptions))
    }
    await refusalMeans('LOGIN_DENIED', this.#object, this.#endpoint, () => client.login(user, password))
    await client.useDefaultSettings()
    this.#home = await client.pwd()
    if (!/^\/\P{C}*$/u.test(this.#home)) throw transferFault('PROTOCOL_ERROR', 'connect', this.#object)
  }

  #call<T>(op: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    return this.#run(op, signal, this.#timeouts.operationMs, work)
  }

  async #run<T>(op: string, signal: AbortSignal, limitMs: number | undefined, work: () => Promise<T>): Promise<T> {
    // A second operation would kill both, and the library would not say which of them reached the server.
    assert(!this.#busy, 'an FTP session does one thing at a time')
    signal.throwIfAborted()
    this.#busy = true
    let isLate = false
    const stop = (): void => this.close()
    const timer =
      limitMs === undefined
        ? undefined
        : setTimeout(() => {
            isLate = true
            stop()
          }, limitMs)
    signal.addEventListener('abort', stop, { once: true })
    try {
      return await work()
    } catch (error) {
      signal.throwIfAborted()
      if (isLate) throw transferFault('LINK_TIMEOUT', op, this.#object)
      const { password } = this.#endpoint
      if (error instanceof FTPError) {
        const text = cleanReply(error.message, password)
        // vsftpd's last words, whatever was asked.
        const isDying = text.startsWith('500 OOPS')
        if (isDying || error.code === 421) this.close()
        throw isDying ? transferFault('LINK_DOWN', op, this.#object, text) : new FtpRefusal(error.code, text)
      }
      this.close()
      throw connectionFault(error, op, this.#object, password)
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', stop)
      this.#busy = false
    }
  }
}

async function refusalMeans(
  code: 'REMOTE_BUSY' | 'TLS_FAILED' | 'LOGIN_DENIED',
  object: string,
  { password }: FtpEndpoint,
  work: () => Promise<unknown>,
): Promise<void> {
  try {
    await work()
  } catch (error) {
    if (!(error instanceof FTPError)) throw error
    throw transferFault(
      error.code === 421 ? 'REMOTE_BUSY' : code,
      'connect',
      object,
      cleanReply(error.message, password),
    )
  }
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'))
}
