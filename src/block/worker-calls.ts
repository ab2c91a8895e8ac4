import assert from 'node:assert/strict'
import { type ChildProcess, fork } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { getPriority, setPriority } from 'node:os'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { errnoOf, type RetryClass, StorageError } from './storage-error.js'

interface Request {
  readonly id: number
  readonly method: string
  readonly argument: unknown
}

type Reply =
  | { readonly id: number; readonly progress: unknown }
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: PlainError }

interface PlainError {
  readonly message: string
  readonly stack: string | undefined
  /** The name (`EIO`) when it came from the file system. */
  readonly errno: string | undefined
  readonly storage: { code: string; op: string; object: string; hint: string; retry: RetryClass } | null
}

/** Requests waiting on one worker, at the most: a few of each of a thousand streams. */
const queueLimit = 8192

interface Waiting {
  readonly resolve: (value: unknown) => void
  readonly reject: (error: unknown) => void
  readonly onProgress: ((progress: unknown) => void) | undefined
}

/** Descriptors that every worker holds too. */
const held: number[] = []

/** A lock on this file lasts, when this process is killed, until its workers have ended too. */
export function holdInWorkers(fd: number): void {
  held.push(fd)
}

/**
 * Calls into one worker process; they are answered in order, but for those that take no turn. A worker that dies fails
 * what waits (WORKER_ENDED, to be tried again) and is started anew.
 *
 * A process, not a thread: what a worker reads and writes may be served by this very process. A thread that waits for
 * its own process keeps a killed one from ending, and with it the connection that it waits for: for ever. A worker
 * process ends with its parent, by the kernel's hand (see PR_SET_PDEATHSIG in prctl(2)).
 */
export class WorkerCalls {
  readonly #script: URL
  readonly #holdsLock: boolean
  #worker: ChildProcess | undefined
  #nextId = 1
  readonly #waiting = new Map<number, Waiting>()

  /** @param holdsLock false: it may outlast an agent that was killed, and keeps no other from beginning */
  constructor(script: URL, { holdsLock = true }: { readonly holdsLock?: boolean } = {}) {
    this.#script = script
    this.#holdsLock = holdsLock
  }

  /** @param onProgress what the method tells of itself until it ends */
  call<T>(method: string, argument: unknown, onProgress?: (progress: unknown) => void): Promise<T> {
    assert(this.#waiting.size < queueLimit, 'a worker is called faster than it answers')
    const worker = this.#start()
    const id = this.#nextId++
    return new Promise<T>((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as (value: unknown) => void, reject, onProgress })
      worker.ref()
      worker.channel?.ref()
      // What keeps it from being sent ends the worker, and that settles it.
      worker.send({ id, method, argument } satisfies Request, () => undefined)
    })
  }

  async close(): Promise<void> {
    const worker = this.#worker
    this.#worker = undefined
    if (!worker || worker.exitCode !== null || worker.signalCode !== null) return
    const ended = new Promise<void>((resolve) => worker.once('exit', () => resolve()))
    worker.ref()
    worker.kill('SIGKILL')
    await ended
  }

  /**
   * As close(), of one that may hang in the kernel: what waits fails at once (WORKER_ENDED), and nobody has to wait for its
   * end. Resolves when it is gone.
   */
  abandon(): Promise<void> {
    const worker = this.#worker
    this.#worker = undefined
    this.#fail('abandoned')
    if (!worker || worker.exitCode !== null || worker.signalCode !== null) return Promise.resolve()
    const ended = new Promise<void>((resolve) => worker.once('exit', () => resolve()))
    worker.kill('SIGKILL')
    worker.unref()
    worker.channel?.unref()
    return ended
  }

  #fail(cause: unknown): void {
    const error = workerEnded(basename(this.#script.pathname, '.js'), cause)
    for (const { reject } of this.#waiting.values()) reject(error)
    this.#waiting.clear()
  }

  #start(): ChildProcess {
    if (this.#worker) return this.#worker
    const worker = fork(fileURLToPath(this.#script), [`${process.pid}`], {
      execPath: 'setpriv',
      execArgv: ['--pdeathsig', 'KILL', process.execPath, ...process.execArgv],
      serialization: 'advanced',
      stdio: ['ignore', 'inherit', 'inherit', 'ipc', ...(this.#holdsLock ? held : [])],
    })
    worker.on('message', (reply: Reply) => this.#settle(reply))
    // An error is followed by an exit, when the next worker may have calls of its own.
    let over = false
    const ended = (cause: unknown): void => {
      if (over) return
      over = true
      const isCurrent = this.#worker === worker
      if (isCurrent) this.#worker = undefined
      // What waits now may wait for the next one.
      if (isCurrent || this.#worker === undefined) this.#fail(cause)
    }
    worker.on('error', ended)
    worker.on('exit', (code, signal) => ended(signal ?? `exit code ${code}`))
    this.#worker = worker
    return worker
  }

  #settle(reply: Reply): void {
    const waiting = this.#waiting.get(reply.id)
    if ('progress' in reply) {
      waiting?.onProgress?.(reply.progress)
      return
    }
    this.#waiting.delete(reply.id)
    // Nobody waits for it: it keeps nobody from ending.
    if (this.#waiting.size === 0) {
      this.#worker?.unref()
      this.#worker?.channel?.unref()
    }
    if ('error' in reply) waiting?.reject(revive(reply.error))
    else waiting?.resolve(reply.value)
  }
}

/** A worker is gone, with what only it knew: the same may be asked of the next one. */
export function workerEnded(worker: string, cause?: unknown): StorageError {
  return new StorageError('WORKER_ENDED', {
    op: 'work',
    object: worker,
    cause,
    retry: 'later',
    hint: 'It is started again when it is needed. When that does not help, see whether memory is short (dmesg).',
  })
}

/** When memory is short a worker goes before its agent, but after what is not of this system. */
function takeWorkerScore(): void {
  try {
    writeFileSync('/proc/self/oom_score_adj', '-500')
  } catch {
    // Not permitted: it stays what it was started with.
  }
}

/** Steps of nice: against what serves hosts it gets a third of a processor, where there is none to spare. */
const behindHosts = 5

/** What this worker does can wait for what hosts wait for. */
export function comeAfterHosts(): void {
  setPriority(Math.min(19, getPriority() + behindHosts))
}

type Methods = Record<string, (argument: never, tell: (progress: unknown) => void) => unknown>

/**
 * The worker's side: answer calls with these methods, one after the other. `tell` is for who waits: not too often.
 * @param beside methods that take no turn: they wait for something, and others are answered meanwhile
 */
export function serveCalls(methods: Methods, beside: Methods = {}): void {
  // Whoever started it died before the kernel knew that it is to end then: what was asked of it is not wanted any more.
  if (process.ppid !== Number(process.argv[2])) process.exit()
  takeWorkerScore()
  let last: Promise<void> = Promise.resolve()
  const reply = (answer: Reply): void => {
    if (process.connected) process.send?.(answer)
  }
  const answer = async ({ id, method: name, argument }: Request): Promise<void> => {
    try {
      const method = methods[name] ?? beside[name]
      assert(method, `no method ${name}`)
      reply({ id, value: await method(argument as never, (progress) => reply({ id, progress })) })
    } catch (error) {
      reply({ id, error: flatten(error) })
    }
  }
  process.on('message', (request: Request) => {
    if (request.method in beside) answer(request)
    else last = last.then(() => answer(request))
  })
}

function flatten(error: unknown): PlainError {
  const storage = error instanceof StorageError ? error.toJSON() : null
  return error instanceof Error
    ? { message: error.message, stack: error.stack, errno: errnoOf(error), storage }
    : { message: String(error), stack: undefined, errno: undefined, storage }
}

function revive(plain: PlainError): Error {
  if (plain.storage) {
    const { code, ...detail } = plain.storage
    return Object.assign(new StorageError(code, detail), { message: plain.message })
  }
  const error = new Error(plain.message)
  if (plain.errno !== undefined) Object.assign(error, { code: plain.errno })
  if (plain.stack !== undefined) error.stack = plain.stack
  return error
}
