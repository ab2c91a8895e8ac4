import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { promisify } from 'node:util'
import { forget, remember } from '../../../test/fixtures/leftovers.js'
import { delay } from '../agents.js'

const execute = promisify(execFile)
const startLimitMs = 15_000
const stopLimitMs = 20_000
const outputLimit = 4000

/** Run a program to its end; what it printed. @throws with its complaint */
export async function run(program: string, ...parameters: string[]): Promise<string> {
  const { stdout } = await execute(program, parameters)
  return stdout.trim()
}

/** A sparse file. */
export async function makeFile(file: string, sizeBytes: number): Promise<void> {
  const handle = await open(file, 'wx')
  try {
    await handle.truncate(sizeBytes)
  } finally {
    await handle.close()
  }
}

/** A program that serves until it is told to end. */
export class Server {
  readonly #child: ChildProcess
  #output = ''

  private constructor(program: string, parameters: readonly string[]) {
    this.#child = spawn(program, parameters, { stdio: ['ignore', 'pipe', 'pipe'] })
    const { pid } = this.#child
    if (pid !== undefined) {
      remember({ kind: 'process', pid })
      this.#child.on('close', () => forget({ kind: 'process', pid }))
    }
    for (const stream of [this.#child.stdout!, this.#child.stderr!]) {
      stream.on('data', (text) => {
        this.#output = (this.#output + text).slice(-outputLimit)
      })
    }
    this.#child.on('error', (error) => {
      this.#output += String(error)
    })
  }

  /** Resolves when `ready` says so. @throws when it ends instead, with what it said */
  static async start(
    program: string,
    parameters: readonly string[],
    ready: (output: string) => boolean,
  ): Promise<Server> {
    const server = new Server(program, parameters)
    const deadline = performance.now() + startLimitMs
    while (!ready(server.#output)) {
      if (!server.running || performance.now() > deadline) {
        await server.stop()
        throw new Error(`${program} did not start: ${server.#output.trim()}`)
      }
      await delay(10)
    }
    return server
  }

  /** One that listens on a unix socket. */
  static listening(program: string, parameters: readonly string[], socket: string): Promise<Server> {
    return Server.start(program, parameters, () => existsSync(socket))
  }

  get output(): string {
    return this.#output
  }

  get running(): boolean {
    return this.#child.pid !== undefined && this.#child.exitCode === null && this.#child.signalCode === null
  }

  async stop(): Promise<void> {
    if (!this.running) return
    const ended = once(this.#child, 'close')
    this.#child.kill('SIGTERM')
    const late = setTimeout(() => this.#child.kill('SIGKILL'), stopLimitMs)
    await ended
    clearTimeout(late)
  }
}
