/** The thread that feeds a target; the one that started it watches over its time. */
import { createHash } from 'node:crypto'
import { readlinkSync } from 'node:fs'
import { setPriority } from 'node:os'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { parentPort, workerData } from 'node:worker_threads'
import { StorageError } from '../../src/block/storage-error.js'
import { MiB } from '../../src/block/units.js'
import { Random } from '../pool/model/random.js'
import { Coverage } from './coverage.js'
import type { FuzzJob, FuzzMessage } from './fuzz-job.js'
import { mutate } from './mutator.js'
import type { FuzzTarget } from './target.js'

/** A look at the coverage takes its time: inputs in between take so many times as long, and are no more than that. */
const batchTimes = 4
const batchLimit = 10_000
/** Inputs that found something new, kept in memory. */
const corpusLimit = 4000
/** What one input may take, and what may stay when all of them are over. */
const memoryLimitBytes = 384 * MiB

const job = workerData as FuzzJob
const current = new Uint8Array(job.current)
const currentLength = new Int32Array(job.currentLength)

setFlagsFromString('--expose-gc')
const collectGarbage: () => void = runInNewContext('gc')
const tell = (message: FuzzMessage): void => parentPort!.postMessage(message)
// Blocks are counted in code that is compiled from here on, so what is tried is loaded behind this.
const coverage = job.blind ? undefined : new Coverage()
const { targets } = (await import(job.module)) as typeof import('./targets.js')
const target = await targets[job.target]!(job.folder)
const random = new Random(job.seed)
const corpus: Buffer[] = []
const codes = new Map<string, number>()
let runs = 0

tell({ kind: 'ready', thread: readlinkSync('/proc/thread-self') })
const known = job.corpus.map((bytes) => Buffer.from(bytes))
if (await feedAll(job.minimise ? target.seeds() : [...target.seeds(), ...known])) {
  // What these reach is known before anything is new.
  coverage?.takeNew()
  // Of this thread alone.
  setPriority(0, job.nice)
  const deadline = performance.now() + job.seconds * 1000
  const isSound = job.minimise ? await findEach(known) : await search(deadline)
  if (isSound) tell({ kind: 'done', runs, blocks: coverage?.blockCount ?? 0, codes: [...codes], corpus: corpus.length })
}

/** @returns false when there was a finding: it is told */
async function feedAll(inputs: readonly Buffer[]): Promise<boolean> {
  for (const input of inputs) {
    if (!(await feed(target, input))) return false
    if (corpus.length < corpusLimit && !corpus.includes(input)) corpus.push(input)
  }
  return true
}

/** Shorter ones first. @returns false when there was a finding */
async function findEach(inputs: readonly Buffer[]): Promise<boolean> {
  for (const input of [...inputs].sort((one, other) => one.length - other.length)) {
    if (!(await feed(target, input))) return false
    if ((coverage?.takeNew() ?? []).length > 0) keep(input)
  }
  return true
}

function keep(input: Buffer): void {
  if (corpus.length < corpusLimit) corpus.push(input)
  if (!job.save && !job.minimise) return
  tell({ kind: 'new', input, name: createHash('sha256').update(input).digest('hex').slice(0, 16) })
}

async function search(deadline: number): Promise<boolean> {
  const words = target.words ?? []
  const memoryBefore = process.memoryUsage().rss
  let batchSize = 32
  while (performance.now() < deadline) {
    const from = performance.now()
    const batch = Array.from({ length: batchSize }, () => mutate(random, random.pick(corpus), corpus, words))
    for (const input of batch) {
      if (performance.now() > deadline) return true
      if (!(await feed(target, input))) return false
    }
    const fed = performance.now()
    if (process.memoryUsage().rss - memoryBefore > memoryLimitBytes && !(await weigh(batch, memoryBefore))) return false
    const fresh = coverage?.takeNew() ?? []
    const lookMs = performance.now() - fed
    const wanted = (batchSize * lookMs * batchTimes) / Math.max(fed - from, 0.1)
    batchSize = Math.round(Math.min(batchLimit, Math.max(32, Math.min(wanted, batchSize * 4))))
    if (!coverage || fresh.length === 0) continue
    coverage.forget(fresh)
    if (!(await find(coverage, batch, deadline))) return false
    // V8 joins neighbouring blocks that ran equally often, so fewer runs may name them otherwise.
    coverage.note(fresh)
  }
  return true
}

/**
 * The memory has grown. What only waits to be collected is none's fault: each input of the batch is fed again, with
 * nothing to collect before it, and what is there when all is collected has leaked.
 *
 * @returns false when there was a finding
 */
async function weigh(batch: readonly Buffer[], beforeBytes: number): Promise<boolean> {
  const find = (input: Buffer, grownBytes: number): false => {
    tell({ kind: 'finding', input, text: `${Math.round(grownBytes / MiB)} MiB more memory` })
    return false
  }
  for (const input of batch) {
    collectGarbage()
    const from = process.memoryUsage().rss
    if (!(await feed(target, input))) return false
    const grownBytes = process.memoryUsage().rss - from
    if (grownBytes > memoryLimitBytes) return find(input, grownBytes)
  }
  collectGarbage()
  const leftBytes = process.memoryUsage().rss - beforeBytes
  return leftBytes <= memoryLimitBytes || find(batch.at(-1)!, leftBytes)
}

/** Which of these reach something new: by halves. @returns false when there was a finding */
async function find(coverage: Coverage, inputs: readonly Buffer[], deadline: number): Promise<boolean> {
  if (performance.now() > deadline) return true
  for (const input of inputs) if (!(await feed(target, input))) return false
  const fresh = coverage.takeNew()
  const [input] = inputs
  if (fresh.length === 0 || !input) return true
  if (inputs.length > 1) {
    coverage.forget(fresh)
    const middle = inputs.length >> 1
    if (!(await find(coverage, inputs.slice(0, middle), deadline))) return false
    return find(coverage, inputs.slice(middle), deadline)
  }
  keep(input)
  return true
}

async function feed(target: FuzzTarget, input: Buffer): Promise<boolean> {
  current.set(input)
  Atomics.store(currentLength, 0, input.length)
  Atomics.add(currentLength, 1, 1)
  runs += 1
  try {
    await target.run(Buffer.from(input))
    count('taken')
  } catch (error) {
    if (!(error instanceof StorageError)) {
      tell({ kind: 'finding', input, text: error instanceof Error ? (error.stack ?? error.message) : String(error) })
      return false
    }
    count(error.code)
  }
  return true
}

function count(code: string): void {
  codes.set(code, (codes.get(code) ?? 0) + 1)
}
