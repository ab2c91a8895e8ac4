import { UsageError } from './failure.js'

/** A volume, or one of its snapshots, as it is typed: `VOLUME` or `VOLUME@SNAPSHOT`. */
export interface Target {
  readonly volume: string
  readonly snapshot: string | undefined
}

/** @throws UsageError; the letters of the names are the agent's business */
export function parseTarget(text: string): Target {
  const [volume, snapshot, ...more] = text.split('@')
  if (!volume || snapshot === '' || more.length > 0) throw new UsageError(`${text} is no VOLUME or VOLUME@SNAPSHOT`)
  return { volume, snapshot }
}

/** Where the API has it. */
export function targetPath({ volume, snapshot }: Target): string[] {
  return snapshot === undefined ? ['volumes', volume] : ['volumes', volume, 'snapshots', snapshot]
}
