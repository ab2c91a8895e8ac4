import type { CheckProgressView, PoolCheckView } from '../api/agent-operations.js'
import type { CreatePoolOptions, ThinPool } from '../pool/thin-pool.js'

/** Of a pool that could not be written any more; see OpenPoolOptions. */
export interface PoolFailure {
  readonly afterFailure: boolean
  readonly onFailed: (id: string) => void
}

/** What the agent asks of the pool format: opened pools are faces, everything else is by paths. */
export interface PoolEngine {
  /** Writes the devices; what lay there is lost. */
  create(options: CreatePoolOptions): Promise<void>
  /** By all its devices, in any order. After a crash it is recovered. */
  open(paths: readonly string[], failure: PoolFailure): Promise<ThinPool>
  /** Of a pool that nobody has open. */
  check(
    paths: readonly string[],
    options: { readonly repair: boolean; readonly afterFailure: boolean },
    onProgress: (progress: CheckProgressView) => void,
  ): Promise<PoolCheckView>
  /** The id of the pool that a file or device belongs to, or undefined. */
  identify(path: string): Promise<string | undefined>
  /** It belongs to no pool afterwards; a file is gone. */
  erase(path: string): Promise<void>
  close(): Promise<void>
}
