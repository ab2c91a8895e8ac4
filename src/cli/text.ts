/** Text for people: nothing that came from elsewhere reaches a terminal as anything but visible characters. */

// C0 and C1 controls, DEL, and the invisible or direction-changing characters that make a line read as another.
const unsafe = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu

/** One line: every control or invisible character is shown as its code. */
export function visible(text: string): string {
  return text.replace(unsafe, (character) => {
    const code = character.codePointAt(0)!.toString(16)
    return code.length <= 2 ? `\\x${code.padStart(2, '0')}` : `\\u{${code}}`
  })
}

/** The same for a text of several lines. */
export function visibleLines(text: string): string {
  return text.split('\n').map(visible).join('\n')
}

/** A JSON document that is safe on a terminal too; its value is unchanged. */
export function safeJson(value: unknown, indent?: number): string {
  return safeJsonText(JSON.stringify(value, null, indent))
}

/** The same for text that is JSON already, line ends kept: all that is left to escape in it stands inside strings. */
export function safeJsonText(json: string): string {
  return json.replace(unsafe, (character) => {
    if (character === '\n') return character
    return Array.from({ length: character.length }, (_, index) => character.charCodeAt(index))
      .map((unit) => `\\u${unit.toString(16).padStart(4, '0')}`)
      .join('')
  })
}

/** Columns padded to the same width, two spaces between them, none at the end of a line. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const safe = rows.map((row) => row.map(visible))
  const widths: number[] = []
  for (const row of safe) {
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length)
  }
  return safe.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join('  ')
      .trimEnd(),
  )
}

/** `Name  value` lines, the values aligned. */
export function facts(entries: readonly (readonly [string, string])[]): string[] {
  return table(entries.map(([label, value]) => [`${label}:`, value]))
}

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const

/** `1.5 GiB` */
export function bytes(count: number): string {
  let value = count
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit += 1
  }
  if (unit === 0) return `${Math.round(value)} B`
  return `${value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`
}

/** `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `4 d 1 h` */
export function age(seconds: number): string {
  if (seconds <= 0) return '0 s'
  if (seconds < 10) return `${seconds.toFixed(1)} s`
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  const [size, large, small, part] =
    whole < 3600 ? [60, 'min', 's', 1] : whole < 86_400 ? [3600, 'h', 'min', 60] : [86_400, 'd', 'h', 3600]
  const rest = Math.floor((whole % (size as number)) / (part as number))
  return `${Math.floor(whole / (size as number))} ${large}${rest > 0 ? ` ${rest} ${small}` : ''}`
}

export function percent(part: number, whole: number): string {
  return whole > 0 ? `${Math.min(100, Math.floor((100 * part) / whole))} %` : '100 %'
}
