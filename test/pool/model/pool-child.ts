import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { CreatePoolOptions, ThinPool } from '../../../src/pool/thin-pool.js'
import { forget, remember } from '../../fixtures/leftovers.js'
import type { OpenSettings, OwnCalls, PassedOn, Reply, Request } from './child-calls.js'

/** An error of the pool, as it came out of the other process. */
export class PoolError extends Error {
  readonly code: string
  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

/** The process is gone: nobody knows what became of the call. */
export class ChildGone extends Error {}

/** No call takes longer, whatever waits for room: then something hangs. */
const callLimitMs = 60_000

const program = fileURLToPath(new URL('./pool-process.js', import.meta.url))

/** A process of its own that has one pool open. Everything it attached or serves dies with it. */
export class PoolChild {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, { resolve: (value: never) => void; reject: (error: Error) => void }>()
  readonly #gone: Promise<void>
  #nextId = 1
  #alive = true
  #stderr = ''

  private constructor() {
    this.#child = fork(program, [], { stdio: ['ignore', 'inherit', 'pipe', 'ipc'] })
    const left = { kind: 'process', pid: this.#child.pid! } as const
    remember(left)
    this.#child.stderr!.on('data', (chunk: Buffer) => {
      this.#stderr = (this.#stderr + chunk).slice(-16_384)
    })
    this.#child.on('message', (reply: Reply) => {
      const call = this.#waiting.get(reply.id)
      this.#waiting.delete(reply.id)
      if ('error' in reply) call?.reject(new PoolError(reply.error.code, reply.error.message))
      else call?.resolve(reply.value as never)
    })
    this.#gone = once(this.#child, 'exit').then(() => {
      forget(left)
      this.#alive = false
      for (const { reject } of this.#waiting.values()) reject(new ChildGone('the process that had the pool is gone'))
      this.#waiting.clear()
    })
  }

  /** Make a pool, if `created` says so, and open it. Its first device is `paths[0]`. */
  static async start(
    paths: readonly string[],
    settings: OpenSettings,
    created?: CreatePoolOptions,
  ): Promise<PoolChild> {
    const child = new PoolChild()
    try {
      if (created) await child.own('createPool', created)
      await child.own('openPool', paths, settings)
      return child
    } catch (error) {
      await child.kill()
      throw error
    }
  }

  /** Begin to open the pool, and kill -9 the process so many milliseconds later, or once it is open. */
  static async interrupt(paths: readonly string[], settings: OpenSettings, afterMs: number): Promise<void> {
    const child = new PoolChild()
    await child.own('process')
    const opening = child.own('openPool', paths, settings).catch((error: unknown) => {
      if (!(error instanceof ChildGone)) throw error
    })
    await Promise.race([opening, delay(afterMs)])
    await child.kill()
    await opening
  }

  get pid(): number {
    return this.#child.pid!
  }

  get alive(): boolean {
    return this.#alive
  }

  /** What it said of its own accord, most recent last: empty unless something is wrong. */
  get complaints(): string {
    return this.#stderr
  }

  /** Call a method of the pool. @throws PoolError, ChildGone */
  pool<M extends PassedOn>(
    method: M,
    ...parameters: Parameters<ThinPool[M]>
  ): Promise<Awaited<ReturnType<ThinPool[M]>>> {
    return this.#call(method, parameters)
  }

  own<M extends keyof OwnCalls>(
    method: M,
    ...parameters: Parameters<OwnCalls[M]>
  ): Promise<Awaited<ReturnType<OwnCalls[M]>>> {
    return this.#call(method, parameters)
  }

  /** kill -9. Resolves when it is gone. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#gone
  }

  /** Close the pool in good order, and end. */
  async close(): Promise<void> {
    await this.own('closePool')
    this.#child.disconnect()
    await this.#gone
  }

  #call<T>(method: string, parameters: readonly unknown[]): Promise<T> {
    if (!this.#alive || !this.#child.connected) return Promise.reject(new ChildGone('there is no process any more'))
    const id = this.#nextId++
    return new Promise<T>((resolve, reject) => {
      const limit = setTimeout(() => {
        this.#waiting.delete(id)
        reject(new Error(`${method}(${JSON.stringify(parameters).slice(1, -1)}) does not end`))
      }, callLimitMs)
      const end =
        <V>(settle: (value: V) => void) =>
        (value: V): void => {
          clearTimeout(limit)
          settle(value)
        }
      this.#waiting.set(id, { resolve: end(resolve), reject: end(reject) })
      this.#child.send({ id, method, parameters } satisfies Request, (error) => {
        if (error) this.#waiting.get(id)?.reject(new ChildGone(error.message))
      })
    })
  }
}
