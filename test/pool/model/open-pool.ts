import { Pool } from '../../../src/pool/pool.js'
import type { OpenSettings } from './child-calls.js'

export type Report = (event: { code: string; severity: string; text: string }) => void

export function openPool(paths: readonly string[], settings: OpenSettings, report: Report): Promise<Pool> {
  return Pool.open(paths, { ...settings, report })
}
