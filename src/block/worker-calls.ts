import assert from 'node:assert/strict'
import { parentPort, Worker } from 'node:worker_threads'
import { type RetryClass, StorageError } from './storage-error.js'

interface Request {
  readonly id: number
  readonly method: string
  readonly argument: unknown
}

type Reply = { readonly id: number; readonly value: unknown } | { readonly id: number; readonly error: PlainError }

interface PlainError {
  readonly message: string
  readonly stack: string | undefined
  readonly storage: { code: string; op: string; object: string; hint: string; retry: RetryClass } | null
}

/** Requests waiting on one worker, at the most. */
const queueLimit = 1024

/** Calls into one worker thread; they are answered in order. A worker that dies fails what waits and is started anew. */
export class WorkerCalls {
  readonly #script: URL
  #worker: Worker | undefined
  #nextId = 1
  readonly #waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: unknown) => void }>()

  constructor(script: URL) {
    this.#script = script
  }

  call<T>(method: string, argument: unknown): Promise<T> {
    assert(this.#waiting.size < queueLimit, 'a worker is called faster than it answers')
    const worker = this.#start()
    const id = this.#nextId++
    return new Promise<T>((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as (value: unknown) => void, reject })
      worker.postMessage({ id, method, argument } satisfies Request)
    })
  }

  async close(): Promise<void> {
    const worker = this.#worker
    this.#worker = undefined
    await worker?.terminate()
  }

  #start(): Worker {
    if (this.#worker) return this.#worker
    const worker = new Worker(this.#script)
    worker.unref()
    worker.on('message', (reply: Reply) => this.#settle(reply))
    // An error is followed by an exit, when the next worker may have calls of its own.
    let over = false
    const ended = (error: unknown): void => {
      if (over) return
      over = true
      if (this.#worker === worker) this.#worker = undefined
      for (const { reject } of this.#waiting.values()) reject(error)
      this.#waiting.clear()
    }
    worker.on('error', ended)
    worker.on('exit', () => ended(new Error(`worker ${this.#script.pathname} ended`)))
    this.#worker = worker
    return worker
  }

  #settle(reply: Reply): void {
    const waiting = this.#waiting.get(reply.id)
    this.#waiting.delete(reply.id)
    if ('error' in reply) waiting?.reject(revive(reply.error))
    else waiting?.resolve(reply.value)
  }
}

/** The worker's side: answer calls with these methods, one after the other. */
export function serveCalls(methods: Record<string, (argument: never) => unknown>): void {
  let last: Promise<void> = Promise.resolve()
  parentPort?.on('message', (request: Request) => {
    last = last.then(async () => {
      try {
        const method = methods[request.method]
        assert(method, `no method ${request.method}`)
        const value = await method(request.argument as never)
        parentPort?.postMessage({ id: request.id, value } satisfies Reply)
      } catch (error) {
        parentPort?.postMessage({ id: request.id, error: flatten(error) } satisfies Reply)
      }
    })
  })
}

function flatten(error: unknown): PlainError {
  const storage = error instanceof StorageError ? error.toJSON() : null
  return error instanceof Error
    ? { message: error.message, stack: error.stack, storage }
    : { message: String(error), stack: undefined, storage }
}

function revive(plain: PlainError): Error {
  if (plain.storage) {
    const { code, ...detail } = plain.storage
    return Object.assign(new StorageError(code, detail), { message: plain.message })
  }
  const error = new Error(plain.message)
  if (plain.stack !== undefined) error.stack = plain.stack
  return error
}
