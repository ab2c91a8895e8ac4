import { measures } from './measures.js'
import { type Mode, modes, type Results } from './results.js'
import { rows } from './rows.js'
import { spread, summarize } from './statistics.js'
import { judge, runsOf } from './targets.js'
import { workloads } from './workloads.js'

/** Rows side by side in one table, at the most. */
const columnsLimit = 7

/** All of a run as text: machine, tables of medians, figures, and targets with verdicts. */
export function report(results: Results): string {
  const parts = [
    heading(results),
    ...modes.flatMap((mode) => modeTables(results, mode)),
    figureTable(results),
    absenceList(results),
    verdictTable(results),
  ]
  return `${parts.filter((part) => part !== '').join('\n\n')}\n`
}

function heading(results: Results): string {
  const { machine, commit, dirty, startedAt, seconds, command, volumeBytes, rounds, runMs } = results
  const tools = Object.entries(machine.tools).map(([name, version]) => `${name}: ${version}`)
  return [
    `Tidemark bench, ${startedAt}, ${Math.round(seconds)} s, commit ${commit}${dirty ? ' with changes' : ''}`,
    `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB, ${machine.system}, Linux ${machine.kernel}, Node ${machine.node}`,
    `${machine.fileSystem}; ${tools.join('; ')}; load before ${machine.loadBefore.toFixed(2)}`,
    `${command}: volumes of ${volumeBytes / 2 ** 20} MiB, ${rounds} rounds of ${runMs} ms each, rows interleaved`,
  ].join('\n')
}

function modeTables(results: Results, mode: Mode): string[] {
  const present = rows.filter(({ id }) => results.samples.some((sample) => sample.mode === mode && sample.row === id))
  const asked = workloads.filter(({ id }) =>
    results.samples.some((sample) => sample.mode === mode && sample.workload === id),
  )
  const tables: string[] = []
  for (let first = 0; first < present.length; first += columnsLimit) {
    const some = present.slice(first, first + columnsLimit)
    const lines = asked.map((workload) => [
      `${workload.title}, ${workload.figure}`,
      ...some.map(({ id }) => cell(results, workload.id, id, mode)),
    ])
    const title = mode === 'direct' ? 'Backing opened O_DIRECT' : 'On the page cache'
    tables.push(
      [`${title}: median and greatest distance from it`, ...table([['', ...some.map(({ id }) => id)], ...lines])].join(
        '\n',
      ),
    )
  }
  return tables
}

function cell(results: Results, workload: string, row: string, mode: Mode): string {
  const found = summarize([...runsOf(results, workload, row, mode).values()])
  return found ? `${number(found.median)} ±${(100 * spread(found)).toFixed(0)} %` : '-'
}

function figureTable(results: Results): string {
  const all = measures.flatMap(({ figures }) => figures)
  const lines = all.flatMap(({ id, title }) => {
    const figure = results.figures.find((candidate) => candidate.id === id)
    const found = figure && summarize(figure.samples)
    if (figure && found) {
      const range = found.count > 1 ? `${number(found.least)} to ${number(found.greatest)}, n ${found.count}` : ''
      return [[title, `${number(found.median)} ${figure.unit}`, range, figure.note ?? '']]
    }
    const missing = results.missing.find((candidate) => candidate.id === id)
    return missing ? [[title, 'not measured', '', missing.reason]] : []
  })
  if (lines.length === 0) return ''
  return ['Beside the rows', ...table([['', 'median', 'range', ''], ...lines])].join('\n')
}

function absenceList(results: Results): string {
  const whole = results.absences.filter(({ workload }) => workload === undefined)
  const parts = results.absences.filter(({ workload }) => workload !== undefined)
  const lines = [
    ...whole.map(({ mode, row, reason }) => `${row} (${mode}): ${reason}`),
    ...parts.map(({ mode, row, workload, reason }) => `${row} (${mode}), ${workload}: ${reason}`),
  ]
  return lines.length === 0 ? '' : ['Could not be had', ...lines].join('\n')
}

function verdictTable(results: Results): string {
  const lines = judge(results).map(({ title, target, figure, verdict }) => [title, target, figure, verdict])
  return ['Targets', ...table([['', 'target', 'figure', 'verdict'], ...lines])].join('\n')
}

/** Three digits, with k for thousands. */
export function number(value: number): string {
  const size = Math.abs(value)
  if (size >= 1000) return `${(value / 1000).toFixed(size >= 100_000 ? 0 : 1)}k`
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3)
}

/** Columns padded to one width; the last is not. */
function table(lines: readonly (readonly string[])[]): string[] {
  const widths: number[] = []
  for (const line of lines) for (const [at, text] of line.entries()) widths[at] = Math.max(widths[at] ?? 0, text.length)
  return lines.map((line) =>
    line
      .map((text, at) => text.padEnd(widths[at]!))
      .join('  ')
      .trimEnd(),
  )
}
