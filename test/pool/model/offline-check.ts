import { checkPool } from '../../../src/pool/check.js'

/** What `pool check` finds wrong with a pool that nobody has open, in words. */
export async function checkOffline(paths: readonly string[]): Promise<string[]> {
  const { clean, usable, findings } = await checkPool(paths)
  const texts = findings.map(({ severity, object, text }) => `${severity}: ${object}: ${text}`)
  if (texts.length === 0 && !(clean && usable)) texts.push(`clean ${clean}, usable ${usable}`)
  return texts
}
