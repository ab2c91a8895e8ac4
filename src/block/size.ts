import { StorageError } from './storage-error.js'
import { sectorBytes } from './units.js'

const factors: Record<string, number> = {
  '': 1,
  B: 1,
  K: 1024,
  KIB: 1024,
  M: 1024 ** 2,
  MIB: 1024 ** 2,
  G: 1024 ** 3,
  GIB: 1024 ** 3,
  T: 1024 ** 4,
  TIB: 1024 ** 4,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
}

/**
 * A size as people write it (`1GiB`, `512M`, `1048576`) in bytes.
 *
 * @throws StorageError BAD_SIZE when it is no size or not a multiple of 512
 */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([A-Za-z]*)$/.exec(text.trim())
  const factor = match ? factors[match[2]!.toUpperCase()] : undefined
  const bytes = match && factor !== undefined ? Number(match[1]) * factor : Number.NaN
  if (Number.isSafeInteger(bytes) && bytes > 0 && bytes % sectorBytes === 0) return bytes
  throw new StorageError('BAD_SIZE', {
    op: 'parse size',
    object: JSON.stringify(text.slice(0, 40)),
    hint: 'Give a positive size that is a multiple of 512 bytes, such as 1GiB, 512MiB or 1048576.',
  })
}

/**
 * A duration as people write it (`1s`, `250ms`, `2m`) in milliseconds.
 *
 * @throws StorageError BAD_DURATION
 */
export function parseDuration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h)$/.exec(text.trim())
  const factor = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[match?.[2] ?? ''] ?? Number.NaN
  const milliseconds = Number(match?.[1]) * factor
  if (milliseconds > 0 && milliseconds <= 86_400_000) return milliseconds
  throw new StorageError('BAD_DURATION', {
    op: 'parse duration',
    object: JSON.stringify(text.slice(0, 40)),
    hint: 'Give a time such as 500ms, 1s or 2m, one day at the most.',
  })
}

/** Bytes for people: `1.5 GiB`. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit += 1
  }
  return `${unit === 0 ? value : value.toFixed(value >= 100 ? 0 : 1)} ${units[unit]}`
}
