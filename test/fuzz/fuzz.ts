import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { forget, remember } from '../fixtures/leftovers.js'
import { repositoryRoot } from '../fixtures/paths.js'
import type { FuzzJob, FuzzMessage } from './fuzz-job.js'
import { INPUT_LIMIT } from './target.js'

/** One input may take so long, on a machine that does other things too. */
const inputLimitMs = 10_000
const heapLimitMiB = 512

export interface FuzzOptions {
  readonly target: string
  readonly seconds: number
  readonly seed: number
  /** Add what reaches something new to the corpus of the repository. */
  readonly save?: boolean
  readonly blind?: boolean
}

export interface FuzzReport {
  readonly runs: number
  readonly blocks: number
  readonly corpus: number
  readonly codes: Readonly<Record<string, number>>
  /** The input that was not refused as it should be, where it lies, and what happened. */
  readonly finding?: { readonly file: string; readonly text: string }
}

export function corpusFolder(target: string): string {
  return join(repositoryRoot, 'test/fuzz/corpus', target)
}

/** Feed a target for a while. A finding ends it, and its input is kept below build/fuzz. */
export async function fuzz(options: FuzzOptions): Promise<FuzzReport> {
  // In memory where there is such a place: nothing here has to survive, and targets sync.
  const folder = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'tidemark-fuzz-'))
  const left = { kind: 'scratch', path: folder } as const
  remember(left)
  try {
    return await run(options, folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
    forget(left)
  }
}

function run(options: FuzzOptions, folder: string): Promise<FuzzReport> {
  const { target, seconds, seed, save = false, blind = false } = options
  const current = new SharedArrayBuffer(INPUT_LIMIT)
  const currentLength = new SharedArrayBuffer(8)
  const corpus = readCorpus(target)
  const job: FuzzJob = { target, folder, seconds, seed, save, blind, corpus, current, currentLength }
  const worker = new Worker(new URL('./fuzz-worker.js', import.meta.url), {
    workerData: job,
    resourceLimits: { maxOldGenerationSizeMb: heapLimitMiB },
  })
  return new Promise((resolve, reject) => {
    const counts = new Int32Array(currentLength)
    const inHand = (): Buffer => Buffer.from(new Uint8Array(current).slice(0, counts[0]))
    let result: FuzzReport | undefined
    const end = (report: FuzzReport): void => {
      result ??= report
      clearInterval(watch)
      void worker.terminate()
    }
    const find = (input: Uint8Array, text: string): void => {
      end({ runs: counts[1]!, blocks: 0, corpus: corpus.length, codes: {}, finding: keep(target, input, text) })
    }
    let seen = -1
    let sinceMs = performance.now()
    const watch = setInterval(() => {
      if (counts[1] !== seen) {
        seen = counts[1]!
        sinceMs = performance.now()
      } else if (seen > 0 && performance.now() - sinceMs > inputLimitMs) {
        find(inHand(), `no end after ${inputLimitMs} ms`)
      }
    }, 500)
    worker.on('message', (message: FuzzMessage) => {
      if (message.kind === 'new') addToCorpus(target, message)
      else if (message.kind === 'finding') find(message.input, message.text)
      else end({ ...message, codes: Object.fromEntries(message.codes) })
    })
    // Out of memory, or a crash of the thread.
    worker.on('error', (error) => find(inHand(), String(error)))
    worker.on('exit', () => {
      clearInterval(watch)
      if (result) resolve(result)
      else reject(new Error(`the fuzzer of ${target} ended without a word`))
    })
  })
}

function readCorpus(target: string): Buffer[] {
  const folder = corpusFolder(target)
  try {
    return readdirSync(folder)
      .sort()
      .map((name) => readFileSync(join(folder, name)))
  } catch {
    return []
  }
}

function addToCorpus(target: string, { input, name }: { input: Uint8Array; name: string }): void {
  mkdirSync(corpusFolder(target), { recursive: true })
  writeFileSync(join(corpusFolder(target), name), input)
}

function keep(target: string, input: Uint8Array, text: string): { file: string; text: string } {
  const folder = join(repositoryRoot, 'build/fuzz')
  mkdirSync(folder, { recursive: true })
  const file = join(folder, `${target}-${createHash('sha256').update(input).digest('hex').slice(0, 16)}`)
  writeFileSync(file, input)
  return { file, text }
}
