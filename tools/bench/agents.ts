/** Agents as an operator has them: processes of their own, set up by the CLI, asked for figures through the API. */
import { type ChildProcess, spawn } from 'node:child_process'
import { createWriteStream, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { StreamView, VolumeView } from '../../src/api/agent-operations.js'
import { AgentClient } from '../../src/cli/agent-client.js'
import { freePort, tidemark } from '../../test/fixtures/agent.js'
import { forget, type Leftover, releaseFolder, remember } from '../../test/fixtures/leftovers.js'
import { repositoryRoot } from '../../test/fixtures/paths.js'
import { cpuSeconds, exactCpuSeconds, residentMiB } from './processes.js'

const startLimitMs = 120_000
const stopLimitMs = 60_000
const startPollMs = 5
const logTail = 1000

/** This build cannot do what a row or a figure needs. */
export class NotAvailable extends Error {}

export interface AgentOptions {
  /** Of the configuration file: `volume.direct`, `journal.limit`... */
  readonly config?: Readonly<Record<string, string | number | boolean>>
  readonly environment?: Readonly<Record<string, string>>
}

export class BenchAgent {
  readonly state: string
  readonly api: AgentClient
  readonly #options: AgentOptions
  #child: ChildProcess | undefined
  /** Kept while a child of ours runs. */
  readonly #logFile: string

  constructor(folder: string, name: string, options: AgentOptions = {}) {
    this.state = join(folder, name)
    this.#logFile = join(folder, `${name}.log`)
    this.#options = options
    mkdirSync(this.state, { mode: 0o700, recursive: true })
    writeFileSync(this.#configFile, JSON.stringify(options.config ?? {}))
    this.api = new AgentClient(join(this.state, 'agent.sock'))
  }

  static async start(folder: string, name: string, options: AgentOptions = {}): Promise<BenchAgent> {
    const agent = new BenchAgent(folder, name, options)
    await agent.start()
    return agent
  }

  get #left(): Leftover {
    return { kind: 'folder', path: this.state }
  }

  get #configFile(): string {
    return `${this.state}.yaml`
  }

  get pid(): number {
    if (this.#child?.pid === undefined) throw new Error('the agent is not running')
    return this.#child.pid
  }

  get running(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null
  }

  /** @returns milliseconds from the start of the process until it answers, volumes attached and journals replayed */
  async start(): Promise<number> {
    const output = createWriteStream(this.#logFile, { flags: 'a' })
    const program = join(repositoryRoot, 'dist/src/main.js')
    forget(this.#left)
    remember(this.#left)
    const startedAt = performance.now()
    const child = spawn(process.execPath, [program, 'agent', '--state', this.state, '--config', this.#configFile], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...this.#options.environment },
    })
    child.stdout.pipe(output, { end: false })
    child.stderr.pipe(output, { end: false })
    this.#child = child
    const left = { kind: 'process', pid: child.pid! } as const
    remember(left)
    child.on('close', () => {
      forget(left)
      output.end()
    })
    while (performance.now() - startedAt < startLimitMs) {
      if (await this.#answers()) return performance.now() - startedAt
      if (!this.running) throw new Error(`the agent ended at its start: ${this.log()}`)
      await delay(startPollMs)
    }
    throw new Error(`the agent does not answer: ${this.log()}`)
  }

  async #answers(): Promise<boolean> {
    try {
      // What an agent before it left there does not count.
      const { pid } = await this.api.get<{ pid: number }>('agent')
      return pid === this.#child?.pid
    } catch {
      return false
    }
  }

  log(): string {
    try {
      return readFileSync(this.#logFile, 'utf8').slice(-logTail)
    } catch {
      return ''
    }
  }

  /** Run one command that must succeed; its JSON. @throws NotAvailable when this build has no such command */
  async cli<T = unknown>(...parameters: string[]): Promise<T> {
    const result = await tidemark(['--agent', join(this.state, 'agent.sock'), '--json', ...parameters])
    if (result.code === 0) return result.json as T
    const what = `"tidemark ${parameters.slice(0, 2).join(' ')}"`
    if (result.code === 2) throw new NotAvailable(`this build has no ${what}`)
    throw new Error(`${what} failed: ${result.errorCode ?? result.stderr.trim().slice(-100)}`)
  }

  /** A new empty volume in a file of its own, attached. */
  async linearVolume(name: string, file: string, sizeBytes: number): Promise<string> {
    await this.api.call({ method: 'POST', path: ['volumes'], body: { name, path: file, size: sizeBytes } })
    return this.attach(name)
  }

  async attach(name: string): Promise<string> {
    const { device } = await this.api.call<VolumeView>({ method: 'POST', path: ['volumes', name, 'attach'] })
    if (device === null) throw new Error(`volume ${name} has no device`)
    return device
  }

  stream(name: string): Promise<StreamView> {
    return this.api.get<StreamView>('streams', name)
  }

  get cpuSeconds(): number {
    return cpuSeconds(this.pid)
  }

  get exactCpuSeconds(): number {
    return exactCpuSeconds(this.pid)
  }

  get residentMiB(): number {
    return residentMiB(this.pid)
  }

  /** kill -9. Resolves when it is gone. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL')
  }

  /** Everything it holds is given back; its state stays. */
  async stop(): Promise<void> {
    if (this.running) {
      const late = setTimeout(() => this.#child?.kill('SIGKILL'), stopLimitMs)
      await this.#end('SIGTERM')
      clearTimeout(late)
    }
    releaseFolder(this.state)
    forget(this.#left)
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child
    if (child === undefined || !this.running) return
    const gone = new Promise((resolve) => child.once('close', resolve))
    child.kill(signal)
    await gone
  }
}

/** How the destination is reached. */
export type Link =
  | { readonly via: 'https' }
  | { readonly via: 'folder'; readonly folder: string }
  | { readonly via: 'ftp'; readonly url: string; readonly inbox: string }

/** The destination is `far` at the source from now on. */
export async function pair(source: BenchAgent, destination: BenchAgent, link: Link): Promise<void> {
  const parameters =
    link.via === 'https'
      ? ['--listen', `127.0.0.1:${await freePort()}`]
      : link.via === 'folder'
        ? ['--folder', link.folder]
        : ['--ftp', link.url, '--inbox', link.inbox]
  const { pairing } = await destination.cli<{ pairing: string }>('pairing', 'create', ...parameters)
  await source.cli('destination', 'add', 'far', '--pairing', pairing)
}

export function delay(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds))
}

/** Ask again until it holds. @throws after the limit */
export async function until<T>(
  ask: () => Promise<T>,
  holds: (value: T) => boolean,
  limitMs: number,
  pollMs = 20,
): Promise<T> {
  const deadline = performance.now() + limitMs
  for (;;) {
    const value = await ask()
    if (holds(value)) return value
    if (performance.now() > deadline) {
      throw new Error(`not within ${limitMs} ms: ${JSON.stringify(value)?.slice(0, 300)}`)
    }
    await delay(pollMs)
  }
}
