import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { remember } from '../../test/fixtures/leftovers.js'
import { repositoryRoot } from '../../test/fixtures/paths.js'
import { BenchAgent, NotAvailable } from './agents.js'
import { checkoutFacts, machineFacts } from './machine.js'
import { syncFolder } from './measures/filling.js'
import { type Found, figureOf, type Measure, type MeasureSetting } from './measures/measure.js'
import { measures } from './measures.js'
import { type BenchOptions, chosen, parseOptions, usage } from './options.js'
import { plot } from './plot.js'
import { report } from './report.js'
import type { Absence, Figure, MissingFigure, Results, Sample } from './results.js'
import { resultsVersion } from './results.js'
import { requireRoom } from './room.js'
import type { Row } from './rows/row.js'
import { rows } from './rows.js'
import { runSeries } from './series.js'
import { judge } from './targets.js'
import { makePooledVolume } from './volumes.js'
import { workloads } from './workloads.js'

const startedMs = performance.now()
const timeUp = 'time was up'

function say(text: string): void {
  process.stderr.write(`[${((performance.now() - startedMs) / 1000).toFixed(0).padStart(4)} s] ${text}\n`)
}

async function main(words: readonly string[]): Promise<number> {
  const options = parseOptions(words)
  if (options.help) {
    process.stdout.write(usage)
    return 0
  }
  if (options.list) {
    process.stdout.write(listing())
    return 0
  }
  if (process.geteuid?.() !== 0) throw new Error('Run this as root: it attaches block devices.')
  const plan = planOf(options)
  installPrograms(plan.rows)
  // Of rows and measures the hungriest mode at a time: each gives its space back before the next.
  const rowBytes = plan.rows.reduce((sum, row) => sum + row.diskBytes(options.volumeBytes), 0)
  const measureBytes = Math.max(0, ...plan.measures.map((measure) => measure.diskBytes(options.volumeBytes)))
  mkdirSync(options.directory, { recursive: true })
  await requireRoom(options.directory, Math.max(rowBytes, measureBytes))

  const folder = mkdtempSync(join(options.directory, 'tidemark-bench-'))
  // Given back at the end of the process, however it ends, with all that is in it.
  remember({ kind: 'scratch', path: folder })
  // What servers make for themselves is in the same folder, and goes with it.
  process.env.TMPDIR = folder
  const results = await measureAll(options, plan, folder, words)
  const text = report(results)
  const place = writeResults(options, results, text)
  process.stdout.write(`${text}\nWritten to ${place}.json, .txt and .svg\n`)
  if (options.quick) return 0
  return judge(results).some(({ verdict }) => verdict === 'missed') ? 1 : 0
}

function planOf({ quick, only, workloads: workloadNames, measures: measureNames }: BenchOptions) {
  const rowsAsked = chosen('--only', rows, only)
  const workloadsAsked = chosen('--workloads', workloads, workloadNames)
  const measuresAsked = chosen('--measures', measures, measureNames)
  const wanted = <T extends { readonly quick?: boolean }>(all: T[], named: readonly string[] | undefined): T[] =>
    quick && named === undefined ? all.filter((one) => one.quick) : all
  return {
    rows: wanted(rowsAsked, only),
    workloads: wanted(workloadsAsked, workloadNames),
    measures: wanted(measuresAsked, measureNames),
  }
}

async function measureAll(
  options: BenchOptions,
  plan: ReturnType<typeof planOf>,
  folder: string,
  words: readonly string[],
): Promise<Results> {
  const startedAt = new Date().toISOString()
  const machine = machineFacts(options.directory)
  const { quick, rounds, runMs, rampMs, volumeBytes } = options
  const deadlineMs = startedMs + options.rowsLimitMs
  const endMs = startedMs + options.limitMs
  const [samples, absences]: [Sample[], Absence[]] = [[], []]
  const [figures, missing]: [Figure[], MissingFigure[]] = [[], []]
  const noPools = await whyNoPools(inFolder(folder, 'probe'))
  const kind = noPools === undefined ? 'thin' : 'linear'
  for (const mode of plan.workloads.length > 0 ? options.modes : []) {
    const able = plan.rows.filter((row) => row.modes.includes(mode))
    const asked = plan.workloads.filter((workload) => mode === 'page-cache' || workload.direct)
    const place = inFolder(folder, mode)
    say(`${mode}: ${able.length} rows, ${asked.length} workloads`)
    const found = await runSeries({
      mode,
      rows: able,
      workloads: asked,
      folder: place,
      volumeBytes,
      runMs,
      rampMs,
      rounds,
      deadlineMs,
      noPools,
      say,
    })
    samples.push(...found.samples)
    absences.push(...found.absences)
    rmSync(place, { recursive: true, force: true })
  }
  for (const measure of plan.measures) {
    const place = inFolder(folder, measure.id)
    const setting = { folder: place, volumeBytes, quick, rounds: quick ? 1 : rounds, kind, say } as const
    const found: Found = {}
    const reason = await tryMeasure(measure, setting, found, endMs)
    for (const { id, title, quick: inQuick } of measure.figures) {
      if (quick && inQuick === false) continue
      const figure = found[id]
      if (figure && figure.samples.length > 0) figures.push(figureOf(measure, id, figure))
      else missing.push({ id, title, reason: figure?.reason ?? reason ?? 'it gave no such figure' })
    }
    if (reason !== timeUp) rmSync(place, { recursive: true, force: true })
  }
  return {
    version: resultsVersion,
    machine,
    startedAt,
    seconds: (performance.now() - startedMs) / 1000,
    ...checkoutFacts(repositoryRoot),
    command: ['npm run bench', ...(words.length > 0 ? ['--', ...words] : [])].join(' '),
    quick,
    volumeBytes,
    runMs,
    rounds,
    samples,
    absences,
    figures,
    missing,
  }
}

/** @returns why not everything was found */
async function tryMeasure(
  measure: Measure,
  setting: MeasureSetting,
  found: Found,
  endMs: number,
): Promise<string | undefined> {
  const leftMs = endMs - performance.now()
  if (leftMs <= 0) return timeUp
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<string>((resolve) => {
    // What is left running then ends with this process.
    if (Number.isFinite(leftMs)) timer = setTimeout(resolve, leftMs, timeUp)
  })
  try {
    say(`${measure.id}: begins`)
    const work = syncFolder(setting.folder).then(() => measure.run(setting, found)) as Promise<string | undefined>
    work.catch(() => undefined)
    return await Promise.race([work.then(() => undefined), late])
  } catch (error) {
    const text = error instanceof Error ? error.message.split('\n')[0]! : String(error)
    const reason = error instanceof NotAvailable ? `not available: ${text}` : `failed: ${text}`
    say(`${measure.id}: ${reason}`)
    return reason
  } finally {
    clearTimeout(timer)
  }
}

/** Whether this build has thin pools, found out by making one; undefined: it has. */
async function whyNoPools(folder: string): Promise<string | undefined> {
  const agent = await BenchAgent.start(folder, 'agent')
  try {
    await makePooledVolume(agent, 'thin', folder, 64 * 2 ** 20)
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  } finally {
    await agent.stop()
    rmSync(folder, { recursive: true, force: true })
  }
}

function inFolder(folder: string, name: string): string {
  const path = join(folder, name)
  mkdirSync(path)
  return path
}

function installPrograms(asked: readonly Row[]): void {
  const packages = new Set(['fio:fio', ...asked.flatMap((row) => row.packages ?? [])])
  execFileSync(join(repositoryRoot, 'tools/install-packages'), [...packages], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
}

function writeResults(options: BenchOptions, results: Results, text: string): string {
  const directory = options.output ?? join(repositoryRoot, 'tools/bench/results')
  mkdirSync(directory, { recursive: true })
  const moment = results.startedAt.slice(0, 16).replace(/[-:]/g, '')
  const place = join(directory, `${options.quick ? 'quick-' : ''}${moment}-${results.commit}`)
  writeFileSync(`${place}.json`, `${JSON.stringify(results, null, 1)}\n`)
  writeFileSync(`${place}.txt`, text)
  writeFileSync(`${place}.svg`, plot(results))
  return place
}

function listing(): string {
  const lines = (title: string, all: readonly { id: string; title?: string }[]): string[] => [
    `${title}:`,
    ...all.map((one) => `  ${one.id.padEnd(22)}${one.title ?? ''}`.trimEnd()),
  ]
  return `${[...lines('rows', rows), ...lines('workloads', workloads), ...lines('measures', measures)].join('\n')}\n`
}

try {
  // A measure that was given up may still run: it, and what it holds, ends here.
  process.exit(await main(process.argv.slice(2)))
} catch (error) {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : error}\n`)
  process.exit(2)
}
