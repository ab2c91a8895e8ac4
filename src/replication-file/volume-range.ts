/** Bytes of a volume of the stream. */
export interface VolumeRange {
  readonly volume: number
  readonly offset: number
  readonly lengthBytes: number
}

/** Named in one text. */
const namedLimit = 8

export function bytesOf(ranges: readonly VolumeRange[]): number {
  return ranges.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)
}

/**
 * In order, none touching another, and no more than the limit: those with the least between them become one. All bytes that
 * were in a range are in one afterwards. The limit must not be less than there are volumes.
 */
export function fewRanges(ranges: readonly VolumeRange[], limit: number): VolumeRange[] {
  const ordered = [...ranges].sort((a, b) => a.volume - b.volume || a.offset - b.offset)
  const joined = joinCloser(ordered, 0)
  if (joined.length <= limit) return joined
  const gaps = joined.flatMap((range, at) => {
    const next = joined[at + 1]
    return next?.volume === range.volume ? [next.offset - range.offset - range.lengthBytes] : []
  })
  gaps.sort((a, b) => a - b)
  return joinCloser(joined, gaps[Math.min(joined.length - limit, gaps.length) - 1] ?? 0)
}

function joinCloser(ordered: readonly VolumeRange[], gapBytes: number): VolumeRange[] {
  const joined: VolumeRange[] = []
  for (const range of ordered) {
    const last = joined.at(-1)
    const end = last && last.volume === range.volume ? last.offset + last.lengthBytes : Number.NEGATIVE_INFINITY
    if (!last || range.offset - end > gapBytes) {
      joined.push(range)
      continue
    }
    const lengthBytes = Math.max(end, range.offset + range.lengthBytes) - last.offset
    joined[joined.length - 1] = { ...last, lengthBytes }
  }
  return joined
}

/** For people: where they are, as far as they can be named in one line. */
export function rangesText(
  ranges: readonly VolumeRange[],
  volumes: readonly { readonly index: number; readonly name: string }[],
): string {
  const named = ranges.slice(0, namedLimit).map(({ volume, offset, lengthBytes }) => {
    const name = volumes.find(({ index }) => index === volume)?.name ?? `volume ${volume}`
    return `${name} at byte ${offset}, ${lengthBytes} long`
  })
  const more = ranges.length - named.length
  return `${named.join('; ')}${more > 0 ? `; and ${more} more` : ''}`
}
