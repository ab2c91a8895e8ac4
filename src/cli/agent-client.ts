/** The agent, as a command sees it: requests over its unix socket. */
import { stat } from 'node:fs/promises'
import http from 'node:http'
import path from 'node:path'
import { CommandFailure, type FailureDetail } from './failure.js'

/** An agent that is silent for so long is taken for hung. */
const SILENCE_LIMIT_MS = 300_000
const RESPONSE_LIMIT_BYTES = 64 * 1024 * 1024
/** One event's line. */
const LINE_LIMIT_BYTES = 1024 * 1024

export interface Request {
  readonly method: 'GET' | 'POST' | 'DELETE'
  /** `volumes`, NAME, `attach`: each is escaped. */
  readonly path: readonly string[]
  readonly query?: Readonly<Record<string, string>>
  readonly body?: unknown
  /** The answer may take as long as it likes. */
  readonly patient?: boolean
}

export class AgentClient {
  readonly #socketPath: string

  constructor(socketPath: string) {
    this.#socketPath = socketPath
  }

  /** The folder of its socket: its state directory, unless it was given another name. */
  get directory(): string {
    return path.dirname(path.resolve(this.#socketPath))
  }

  get<T>(...segments: string[]): Promise<T> {
    return this.call<T>({ method: 'GET', path: segments })
  }

  /** @throws CommandFailure the agent's error, AGENT_NOT_RUNNING, AGENT_LOST or NOT_AN_AGENT */
  async call<T>(request: Request): Promise<T> {
    const response = await this.#send(request)
    const text = await this.#readAll(response)
    const value = parse(text)
    if (response.statusCode === 200 && value !== undefined) return value as T
    throw this.#refusal(value, response.statusCode)
  }

  /** Each JSON line of an endless answer; ends when the agent stops. */
  async *lines<T>(request: Request): AsyncGenerator<T> {
    const response = await this.#send(request, true)
    if (response.statusCode !== 200) {
      throw this.#refusal(parse(await this.#readAll(response)), response.statusCode)
    }
    let rest = ''
    response.setEncoding('utf8')
    try {
      for await (const piece of response) {
        const lines = (rest + piece).split('\n')
        rest = lines.pop() ?? ''
        if (rest.length > LINE_LIMIT_BYTES) throw this.#notAnAgent()
        for (const line of lines) {
          const value = parse(line)
          if (value === undefined) throw this.#notAnAgent()
          yield value as T
        }
      }
    } catch (error) {
      throw error instanceof CommandFailure ? error : this.#unreachable(error)
    }
  }

  async #send(
    { method, path: segments, query, body, patient }: Request,
    endless = false,
  ): Promise<http.IncomingMessage> {
    await this.#checkOwner()
    const payload = body === undefined ? undefined : JSON.stringify(body)
    const search = query ? `?${new URLSearchParams(query)}` : ''
    return new Promise((resolve, reject) => {
      const request = http.request({
        socketPath: this.#socketPath,
        method,
        path: `/v1/${segments.map(encodeURIComponent).join('/')}${search}`,
        agent: false,
        headers: {
          host: 'localhost',
          ...(payload === undefined
            ? {}
            : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) }),
        },
      })
      if (!endless && !patient)
        request.setTimeout(SILENCE_LIMIT_MS, () => request.destroy(new Error('it does not answer')))
      request.on('response', resolve)
      request.on('error', (error) => reject(this.#unreachable(error)))
      request.end(payload)
    })
  }

  /** A pairing string must not go to a socket that another user put there. */
  async #checkOwner(): Promise<void> {
    const found = await stat(this.#socketPath).catch((error) => {
      throw this.#unreachable(error)
    })
    if (found.uid === 0 || found.uid === process.geteuid?.()) return
    throw this.#failure(
      'SOCKET_NOT_TRUSTED',
      'it belongs to another user',
      'Name the socket of your own agent with --agent.',
    )
  }

  async #readAll(response: http.IncomingMessage): Promise<string> {
    const pieces: Buffer[] = []
    let length = 0
    try {
      for await (const piece of response) {
        length += (piece as Buffer).length
        if (length > RESPONSE_LIMIT_BYTES) throw this.#notAnAgent()
        pieces.push(piece as Buffer)
      }
    } catch (error) {
      throw error instanceof CommandFailure ? error : this.#unreachable(error)
    }
    return Buffer.concat(pieces).toString('utf8')
  }

  #refusal(value: unknown, status: number | undefined): CommandFailure {
    const error = (value as { error?: Partial<Record<keyof FailureDetail, unknown>> } | undefined)?.error
    if (typeof error?.code !== 'string' || typeof error.message !== 'string') {
      // The answer of an agent that is just ending.
      return status === 503 ? this.#lost('the agent is stopping') : this.#notAnAgent()
    }
    return new CommandFailure({
      code: error.code,
      op: String(error.op ?? ''),
      object: String(error.object ?? ''),
      message: error.message,
      hint: String(error.hint ?? ''),
      retry: String(error.retry ?? 'never'),
    })
  }

  #notAnAgent(): CommandFailure {
    return this.#failure(
      'NOT_AN_AGENT',
      'what answers there is no Tidemark agent',
      'Name the agent with --agent SOCKET.',
    )
  }

  #unreachable(error: unknown): CommandFailure {
    const { code, message } = error as { code?: string; message?: string }
    if (code === 'ENOENT' || code === 'ECONNREFUSED') {
      const start = `tidemark agent --state ${path.dirname(path.resolve(this.#socketPath))}`
      return this.#failure(
        'AGENT_NOT_RUNNING',
        'no agent is running there',
        `Start it: ${start}, or name another with --agent SOCKET.`,
      )
    }
    if (code === 'EACCES' || code === 'EPERM') {
      return this.#failure(
        'ACCESS_DENIED',
        'this user may not open it',
        'Run the command as the user the agent runs as (root).',
      )
    }
    if (code === 'ECONNRESET' || code === 'EPIPE') {
      return this.#lost('the agent closed the connection')
    }
    return this.#failure('AGENT_LOST', message ?? 'unknown', 'Look whether the agent still runs, and at its log.')
  }

  #lost(what: string): CommandFailure {
    return this.#failure('AGENT_LOST', what, 'Look whether it still runs, then repeat the command.')
  }

  #failure(code: string, what: string, hint: string): CommandFailure {
    const retry = code === 'AGENT_NOT_RUNNING' || code === 'AGENT_LOST' ? 'later' : 'never'
    const object = this.#socketPath
    return new CommandFailure({ code, op: 'agent', object, message: `agent ${object}: ${code} (${what})`, hint, retry })
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
