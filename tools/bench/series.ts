import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { releaseFolder } from '../../test/fixtures/leftovers.js'
import { NotAvailable } from './agents.js'
import { FioFailure, type FioOptions, runFio } from './fio.js'
import { interleave } from './interleave.js'
import { fill, syncFolder } from './measures/filling.js'
import type { Absence, Mode, Sample } from './results.js'
import type { OpenRow, Row } from './rows/row.js'
import { copiedBlockBytes, type Workload } from './workloads.js'

export interface SeriesSetting {
  readonly mode: Mode
  readonly rows: readonly Row[]
  readonly workloads: readonly Workload[]
  /** Empty, its own, removed by whoever gave it. */
  readonly folder: string
  readonly volumeBytes: number
  readonly runMs: number
  /** Of each run, before it counts. */
  readonly rampMs: number
  readonly rounds: number
  /** By performance.now(): no run begins later. */
  readonly deadlineMs: number
  /** Why there are no thin pools in this build; undefined: there are. */
  readonly noPools: string | undefined
  readonly say: (text: string) => void
}

export interface SeriesResult {
  readonly samples: readonly Sample[]
  readonly absences: readonly Absence[]
}

interface Opened {
  readonly row: Row
  readonly open: OpenRow
}

/** A row is given up after so many failures in a row. */
const failureLimit = 3

/** Open every row, fill it, and run all workloads on them, interleaved. What cannot be had is told, nothing else stops. */
export async function runSeries(setting: SeriesSetting): Promise<SeriesResult> {
  const samples: Sample[] = []
  const absences: Absence[] = []
  const opened: Opened[] = []
  try {
    for (const row of setting.rows) {
      if (!setting.workloads.some((workload) => row.takes(workload))) continue
      const reason = await openRow(setting, row, opened)
      if (reason !== undefined) {
        absences.push({ mode: setting.mode, row: row.id, reason })
        setting.say(`${row.id}: ${reason}`)
      }
    }
    await runAll(setting, opened, samples, absences)
  } finally {
    for (const { row, open } of opened) {
      await open.close().catch((error) => setting.say(`${row.id} did not end in order: ${messageOf(error)}`))
      releaseFolder(join(setting.folder, row.id))
    }
  }
  return { samples, absences }
}

/** @returns why it cannot be had */
async function openRow(setting: SeriesSetting, row: Row, opened: Opened[]): Promise<string | undefined> {
  const folder = join(setting.folder, row.id)
  await mkdir(folder)
  let open: OpenRow | undefined
  try {
    if (performance.now() > setting.deadlineMs) throw new NotAvailable('time was up')
    if (row.needsPools && setting.noPools !== undefined) throw new NotAvailable(setting.noPools)
    open = await row.open({ folder, mode: setting.mode, volumeBytes: setting.volumeBytes })
    await fill(open.target)
    await open.begin?.()
    opened.push({ row, open })
    return undefined
  } catch (error) {
    await open?.close().catch(() => undefined)
    releaseFolder(folder)
    await rm(folder, { recursive: true, force: true })
    return error instanceof NotAvailable ? `not available: ${error.message}` : `failed: ${messageOf(error)}`
  }
}

async function runAll(
  setting: SeriesSetting,
  opened: readonly Opened[],
  samples: Sample[],
  absences: Absence[],
): Promise<void> {
  const { mode, workloads, rounds } = setting
  const failures = new Map<string, number>()
  for (const turn of interleave(opened, workloads, rounds, ({ row }, workload) => row.takes(workload))) {
    const { row, open } = turn.row
    const place = { mode, row: row.id, workload: turn.workload.id }
    const known = absences.some((absence) => absence.row === row.id && absence.workload === turn.workload.id)
    if ((failures.get(row.id) ?? 0) >= failureLimit || known) continue
    if (performance.now() > setting.deadlineMs) {
      const measured = samples.some((sample) => sample.row === row.id && sample.workload === turn.workload.id)
      if (!measured) absences.push({ ...place, reason: 'time was up' })
      continue
    }
    try {
      const sample = await runOne(setting, open, turn.workload, turn.round)
      samples.push({ ...place, round: turn.round, ...sample })
      failures.delete(row.id)
      const figure = turn.workload.figure === 'iops' ? sample.iops : sample.mibPerSecond
      setting.say(
        `${turn.workload.id} ${turn.round + 1}/${rounds} ${row.id}: ${figure.toFixed(0)} ${turn.workload.figure}`,
      )
    } catch (error) {
      failures.set(row.id, (failures.get(row.id) ?? 0) + 1)
      absences.push({ ...place, reason: messageOf(error) })
      setting.say(`${turn.workload.id} ${row.id}: ${messageOf(error)}`)
    }
  }
}

type Measured = Pick<Sample, 'iops' | 'mibPerSecond' | 'p50Us' | 'p99Us'>

/** What the row before wrote is on the disk first, and what this one leaves behind is done before the next. */
async function runOne(setting: SeriesSetting, open: OpenRow, workload: Workload, round: number): Promise<Measured> {
  if (workload.afterSnapshot) await open.snapshot?.()
  await syncFolder(setting.folder)
  const { iops, mibPerSecond, p50Us, p99Us } = await runFio(
    open.target,
    { ...workload.options, ...extent(setting, workload), randseed: 1000 + round },
    setting.runMs + setting.rampMs,
  )
  await open.settle?.()
  return { iops, mibPerSecond, p50Us, p99Us }
}

/** So long; or after a snapshot so many that most of them meet a block nobody has written since. */
function extent({ volumeBytes, runMs, rampMs }: SeriesSetting, workload: Workload): FioOptions {
  if (workload.afterSnapshot) return { number_ios: Math.floor(volumeBytes / copiedBlockBytes / 2) }
  return { time_based: 1, runtime: `${runMs}ms`, ...(rampMs > 0 ? { ramp_time: `${rampMs}ms` } : {}) }
}

function messageOf(error: unknown): string {
  if (error instanceof FioFailure) return error.message
  return error instanceof Error ? error.message.split('\n')[0]! : String(error)
}
