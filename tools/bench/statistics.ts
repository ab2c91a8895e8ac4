/** Medians and spreads of repeated measurements. Nothing here knows what was measured. */

export interface Summary {
  readonly count: number
  readonly median: number
  readonly least: number
  readonly greatest: number
}

/** The value below which the fraction `at` of the values lies, interpolated between neighbours. NaN of nothing. */
export function quantile(values: readonly number[], at: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  const place = (sorted.length - 1) * at
  const below = sorted[Math.floor(place)] ?? Number.NaN
  const above = sorted[Math.ceil(place)] ?? Number.NaN
  return below + (above - below) * (place - Math.floor(place))
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5)
}

/** Undefined of nothing: what was not measured has no summary. */
export function summarize(values: readonly number[]): Summary | undefined {
  if (values.length === 0) return undefined
  return { count: values.length, median: median(values), least: Math.min(...values), greatest: Math.max(...values) }
}

/** How far the values lie apart: the greatest distance from the median as a fraction of it. */
export function spread({ median, least, greatest }: Summary): number {
  return median === 0 ? 0 : Math.max(greatest - median, median - least) / Math.abs(median)
}

/** One value a round; a round in which the run failed has none. */
export type ByRound = ReadonlyMap<number, number>

/**
 * The ratio of two rows, round by round: what slowed down the machine for a whole round slowed down both, and is gone
 * from their ratio. Rounds in which one of them is missing, or the divisor is 0, do not count.
 */
export function pairedRatios(dividends: ByRound, divisors: ByRound): number[] {
  const ratios: number[] = []
  for (const [round, dividend] of dividends) {
    const divisor = divisors.get(round)
    if (divisor !== undefined && divisor > 0) ratios.push(dividend / divisor)
  }
  return ratios
}
