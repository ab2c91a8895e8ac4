import type { PoolCheckView } from '../api/agent-operations.js'
import { type CheckOptions, checkPool } from '../pool/check.js'

export interface PoolCheckJob {
  readonly paths: readonly string[]
  readonly repair: boolean
  /** False when it is not known. */
  readonly afterFailure?: boolean
}

/** Of a pool that nobody has open. @throws StorageError as of checkPool() */
export async function checkPoolOffline(
  { paths, repair, afterFailure = false }: PoolCheckJob,
  onProgress?: CheckOptions['onProgress'],
): Promise<PoolCheckView> {
  const { name, ...found } = await checkPool(paths, { repair, afterFailure, ...(onProgress && { onProgress }) })
  return { pool: name, ...found }
}
