import { StorageError } from '../block/storage-error.js'
import type { ThinPool } from '../pool/thin-pool.js'
import type { PoolHolders, StreamDefinition } from '../replication/stream-state.js'

/** The pool that has a volume, if one does. */
export type PoolOf = (volume: string) => Pick<ThinPool, 'id' | 'holder'> | undefined

export function holdersOf({ volumes }: StreamDefinition, poolOf: PoolOf): PoolHolders {
  const holders: Record<string, string | null> = {}
  for (const { name } of volumes) {
    const pool = poolOf(name)
    if (pool) holders[pool.id] = pool.holder
  }
  return holders
}

/** @throws StorageError VOLUME_AWAY */
export function volumeAway(stream: string, volume: string): never {
  throw new StorageError('VOLUME_AWAY', {
    op: 'stream',
    object: volume,
    retry: 'later',
    hint: `Its pool is not open here. See: tidemark pool list; import the pool, then the stream goes on, or: tidemark stream remove ${stream}`,
  })
}
