import { type ChildProcessByStdio, spawn } from 'node:child_process'
import type { Readable, Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'

const main = fileURLToPath(new URL('../../src/main.js', import.meta.url))
export const fakeProgram = fileURLToPath(new URL('./fake-program.js', import.meta.url))

export interface Outcome {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
  // biome-ignore lint/suspicious/noExplicitAny: a test looks into any document
  readonly json: any
}

export interface RunOptions {
  readonly socketPath?: string
  readonly stdin?: string
  readonly program?: string
  readonly directory?: string
  /** Called with the process and what it has printed so far, each time it prints. */
  readonly onOutput?: (child: ChildProcessByStdio<Writable, Readable, Readable>, stdout: string, stderr: string) => void
}

/** A command that takes longer hangs. */
const LIMIT_MS = 30_000

/** The real command line in a process of its own. */
export function runCli(words: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [options.program ?? main, ...words], {
      stdio: ['pipe', 'pipe', 'pipe'],
      cwd: options.directory,
      env: { PATH: process.env.PATH, ...(options.socketPath ? { TIDEMARK_AGENT: options.socketPath } : {}) },
    })
    const limit = setTimeout(() => child.kill('SIGKILL'), LIMIT_MS)
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (piece) => {
      stdout += piece
      options.onOutput?.(child, stdout, stderr)
    })
    child.stderr.setEncoding('utf8').on('data', (piece) => {
      stderr += piece
      options.onOutput?.(child, stdout, stderr)
    })
    child.stdin.on('error', () => {})
    child.stdin.end(options.stdin ?? '')
    child.on('error', reject)
    child.on('close', (code) => {
      clearTimeout(limit)
      resolve({ code, stdout, stderr, json: parse(stdout) })
    })
  })
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
