import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { forget, remember } from '../fixtures/leftovers.js'
import { repositoryRoot } from '../fixtures/paths.js'
import type { FuzzJob, FuzzMessage } from './fuzz-job.js'
import { INPUT_LIMIT } from './target.js'

const inputLimitMs = 10_000
/** And sleep so long: it may wait for other threads, which have to wait for a processor on a machine that does other things. */
const sleepLimitMs = 180_000
const heapLimitMiB = 512

export interface FuzzOptions {
  readonly target: string
  readonly seconds: number
  readonly seed: number
  /** Add what reaches something new to the corpus of the repository. */
  readonly save?: boolean
  readonly blind?: boolean
  /** Instead of a search, remove from the corpus of the repository what reaches nothing that the rest does not. */
  readonly minimise?: boolean
  /** Of the search; default 0. What is known is fed before it, at the priority of the process. */
  readonly nice?: number
  /** One input may compute so long; default 10 s. */
  readonly limitMs?: number
  /** Another module than targets.js. */
  readonly module?: string
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
  const {
    target,
    seconds,
    seed,
    save = false,
    blind = false,
    minimise = false,
    nice = 0,
    limitMs = inputLimitMs,
  } = options
  const module = options.module ?? new URL('./targets.js', import.meta.url).href
  const current = new SharedArrayBuffer(INPUT_LIMIT)
  const currentLength = new SharedArrayBuffer(8)
  const corpus = readCorpus(target)
  const job: FuzzJob = {
    target,
    folder,
    seconds,
    seed,
    nice,
    save,
    blind,
    minimise,
    module,
    corpus,
    current,
    currentLength,
  }
  const worker = new Worker(new URL('./fuzz-worker.js', import.meta.url), {
    workerData: job,
    resourceLimits: { maxOldGenerationSizeMb: heapLimitMiB },
  })
  return new Promise((resolve, reject) => {
    const counts = new Int32Array(currentLength)
    const inHand = (): Buffer => Buffer.from(new Uint8Array(current).slice(0, counts[0]))
    const needed = new Set<string>()
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
    let thread: string | undefined
    let since: ThreadTime | undefined
    const watch = setInterval(() => {
      const now = thread === undefined ? undefined : threadTime(thread)
      if (counts[1] !== seen || !since || !now) {
        seen = counts[1]!
        since = now
        return
      }
      const ranMs = now.ranMs - since.ranMs
      const sleptMs = now.wallMs - since.wallMs - ranMs - (now.waitedMs - since.waitedMs)
      if (ranMs > limitMs) find(inHand(), `no end after ${limitMs} ms of processor time`)
      else if (sleptMs > sleepLimitMs) find(inHand(), `it has done nothing for ${sleepLimitMs} ms`)
    }, 500)
    worker.on('message', (message: FuzzMessage) => {
      if (message.kind === 'ready') thread = message.thread
      else if (message.kind === 'new') {
        if (minimise) needed.add(message.name)
        addToCorpus(target, message)
      } else if (message.kind === 'finding') find(message.input, message.text)
      else {
        if (minimise) removeOthers(target, needed)
        end({ ...message, codes: Object.fromEntries(message.codes) })
      }
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

interface ThreadTime {
  /** On a processor, and ready to be on one. */
  readonly ranMs: number
  readonly waitedMs: number
  readonly wallMs: number
}

/** Undefined when the thread has ended. */
function threadTime(thread: string): ThreadTime | undefined {
  try {
    const [ran, waited] = readFileSync(`/proc/${thread}/schedstat`, 'latin1').split(' ')
    return { ranMs: Number(ran) / 1e6, waitedMs: Number(waited) / 1e6, wallMs: performance.now() }
  } catch {
    return undefined
  }
}

export function readCorpus(target: string): Buffer[] {
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

function removeOthers(target: string, needed: ReadonlySet<string>): void {
  const folder = corpusFolder(target)
  if (!existsSync(folder)) return
  for (const name of readdirSync(folder)) if (!needed.has(name)) rmSync(join(folder, name))
}

function keep(target: string, input: Uint8Array, text: string): { file: string; text: string } {
  const folder = join(repositoryRoot, 'build/fuzz')
  mkdirSync(folder, { recursive: true })
  const file = join(folder, `${target}-${createHash('sha256').update(input).digest('hex').slice(0, 16)}`)
  writeFileSync(file, input)
  return { file, text }
}
