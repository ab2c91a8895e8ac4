import type { ReportEvent } from '../block/event-log.js'
import { StorageError } from '../block/storage-error.js'
import type { ThinPool } from '../pool/thin-pool.js'
import type { SourceStream } from '../replication/source-stream.js'
import type { PoolHolders, StreamDefinition } from '../replication/stream-state.js'

/** The pool that has a volume, if one does. */
export type PoolOf = (volume: string) => Pick<ThinPool, 'id' | 'holder' | 'volume' | 'setStream'> | undefined

export function holdersOf({ volumes }: StreamDefinition, poolOf: PoolOf): PoolHolders {
  const holders: Record<string, string | null> = {}
  for (const { name } of volumes) {
    const pool = poolOf(name)
    if (pool) holders[pool.id] = pool.holder
  }
  return holders
}

/**
 * Tell the pools which of their volumes have a journal: who imports one without that can say what may be missing. Nothing
 * of the stream depends on it.
 */
export async function noteInPools(
  { definition: { name, volumes }, position: { phase } }: Pick<SourceStream, 'definition' | 'position'>,
  { poolOf, report }: { readonly poolOf: PoolOf; readonly report: ReportEvent },
): Promise<void> {
  const stream = phase === 'running' || phase === 'mapping' ? name : null
  try {
    for (const volume of volumes) {
      const pool = poolOf(volume.name)
      if (pool && pool.volume(volume.name).stream !== stream) await pool.setStream(volume.name, stream)
    }
  } catch (error) {
    report({ severity: 'warning', code: 'POOL_NOT_TOLD', object: name, text: String(error) })
  }
}

/** @throws StorageError VOLUME_AWAY */
export function volumeAway(stream: string, volume: string): never {
  throw new StorageError('VOLUME_AWAY', {
    op: 'stream',
    object: volume,
    retry: 'later',
    hint: `Its pool is not open here. See: tidemark pool list; import the pool, then the stream goes on. If it is gone for good: tidemark stream remove ${stream} --discard-journal`,
  })
}
