import assert from 'node:assert/strict'
import { type EpochNumber, epochNumber } from '../block/units.js'

export interface PartFilePlace {
  readonly generation: number
  readonly epoch: EpochNumber
  /** 0-based here, 1-based in the name. */
  readonly part: number
  readonly partCount: number
}

const pattern = /^g(\d{8})-e(\d{16})-p(\d{7})-of-(\d{7})\.tmr$/

/**
 * The name of a part: `g00000001-e0000000000000001-p0000001-of-0000003.tmr`. Names sort as parts are applied. A name
 * is a hint for listing; what counts is the place inside the file.
 */
export function partFileName({ generation, epoch, part, partCount }: PartFilePlace): string {
  const digits = (value: number, width: number) => String(value).padStart(width, '0')
  const name = `g${digits(generation, 8)}-e${digits(epoch, 16)}-p${digits(part + 1, 7)}-of-${digits(partCount, 7)}.tmr`
  assert(parsePartFileName(name), `no file name for ${name}`)
  return name
}

/** The place a name speaks of, or undefined for a name no part can have. */
export function parsePartFileName(name: string): PartFilePlace | undefined {
  const match = pattern.exec(name)
  if (!match) return undefined
  const [generation, epoch, number, partCount] = match.slice(1).map(Number) as [number, number, number, number]
  if (generation < 1 || epoch < 1 || !Number.isSafeInteger(epoch)) return undefined
  if (number < 1 || number > partCount) return undefined
  return { generation, epoch: epochNumber(epoch), part: number - 1, partCount }
}
