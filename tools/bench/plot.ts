import { number } from './report.js'
import type { Mode, Results } from './results.js'
import { rows } from './rows.js'
import { type Summary, summarize } from './statistics.js'
import { runsOf } from './targets.js'
import { type Workload, workloads } from './workloads.js'

const colours = { limit: '#8a8f98', tidemark: '#1769aa', peer: '#c98a2b' } as const
const panelWidth = 460
const labelWidth = 150
const valueWidth = 60
const barHeight = 14
const barGap = 5
const panelGap = 28
const titleHeight = 24
const columns = 2
const margin = 20
const headHeight = 64

interface Bar {
  readonly label: string
  readonly colour: string
  readonly summary: Summary
}

/** One panel a workload: a bar for each row's median, and a line from its least to its greatest run. */
export function plot(results: Results, mode: Mode = 'page-cache'): string {
  const panels = workloads.flatMap((workload) => {
    const bars = barsOf(results, workload, mode)
    return bars.length > 0 ? [{ workload, bars }] : []
  })
  const pieces: string[] = []
  const bottoms = Array.from({ length: columns }, () => headHeight)
  for (const { workload, bars } of panels) {
    const column = bottoms.indexOf(Math.min(...bottoms))
    const top = bottoms[column]!
    pieces.push(panel(workload, bars, margin + column * (panelWidth + margin), top))
    bottoms[column] = top + titleHeight + bars.length * (barHeight + barGap) + panelGap
  }
  const width = margin + columns * (panelWidth + margin)
  const height = Math.max(...bottoms)
  const { machine, commit, dirty, startedAt } = results
  const head = `Tidemark bench: ${mode === 'direct' ? 'backing opened O_DIRECT' : 'on the page cache'}`
  const facts = `${machine.cpu}, ${machine.cores} cores, Linux ${machine.kernel}; ${startedAt}; commit ${commit}${dirty ? ' with changes' : ''}`
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="11">`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    text(margin, 26, head, 'font-size="16" font-weight="bold"'),
    text(margin, 44, facts, 'fill="#555555"'),
    ...pieces,
    '</svg>',
    '',
  ].join('\n')
}

function barsOf(results: Results, workload: Workload, mode: Mode): Bar[] {
  return rows.flatMap(({ id, group }) => {
    const summary = summarize([...runsOf(results, workload.id, id, mode).values()])
    return summary ? [{ label: id, colour: colours[group], summary }] : []
  })
}

function panel(workload: Workload, bars: readonly Bar[], left: number, top: number): string {
  const scale = (panelWidth - labelWidth - valueWidth) / Math.max(...bars.map(({ summary }) => summary.greatest))
  const begin = left + labelWidth
  const lines = [text(left, top + 12, `${workload.title}, ${workload.figure}`, 'font-weight="bold"')]
  bars.forEach(({ label, colour, summary }, index) => {
    const y = top + titleHeight + index * (barHeight + barGap)
    const middle = y + barHeight / 2
    const at = (value: number): string => (begin + value * scale).toFixed(1)
    const width = (summary.median * scale).toFixed(1)
    lines.push(
      text(begin - 6, middle + 4, label, 'text-anchor="end"'),
      `<rect x="${begin}" y="${y}" width="${width}" height="${barHeight}" fill="${colour}"/>`,
      `<path d="M${at(summary.least)} ${middle}H${at(summary.greatest)}M${at(summary.least)} ${y + 3}v${barHeight - 6}M${at(summary.greatest)} ${y + 3}v${barHeight - 6}" stroke="#222222" fill="none"/>`,
      text(begin + summary.greatest * scale + 6, middle + 4, number(summary.median)),
    )
  })
  return lines.join('\n')
}

function text(x: number, y: number, content: string, attributes = ''): string {
  const safe = content.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`)
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}"${attributes === '' ? '' : ` ${attributes}`}>${safe}</text>`
}
