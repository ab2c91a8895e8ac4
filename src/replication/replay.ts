import { MiB } from '../block/units.js'
import type { JournalRecord } from '../journal/reader.js'
import { damaged } from '../journal/segment-file.js'
import type { Backing } from '../volume/backing.js'
import { GatheredWrites } from '../volume/gathered-writes.js'
import type { VolumeFile } from './volume-file.js'

interface Extent {
  readonly volume: number
  readonly offset: number
  readonly lengthBytes: number
}

/** Gathered over so much of the journal at the most: a payload keeps in memory all that was read with it. */
const gatheredLsns = BigInt(16 * MiB)

interface Target {
  readonly backing: Backing
  readonly writes: GatheredWrites
  readonly sizeBytes: number
}

/**
 * Writes journal records onto the backings again. Idempotent: a record that is there already is written once more.
 *
 * What is applied is written when it is flushed or synced, at the latest.
 *
 * A checksum is no seal: what no host can have written, because there is no such volume or it ends before, is damage.
 *
 * @param onFailed what cannot be written is told, and the rest is; absent: it is thrown
 */
export function replayOnto(
  volumes: readonly VolumeFile[],
  openBacking: (path: string) => Backing,
  onFailed: (volume: number, error: unknown) => void = (_, error) => {
    throw error
  },
): { apply: (record: JournalRecord) => void; flush: () => void; sync: () => void; close: () => void } {
  const open = new Map<number, Target>()
  const target = ({ volume, offset, lengthBytes }: Extent): GatheredWrites => {
    const { backing, writes, sizeBytes } = open.get(volume) ?? begin(volume)
    if (offset + lengthBytes > sizeBytes) throw damaged(backing.path, 'the journal has a write beyond its end')
    return writes
  }
  const begin = (index: number): Target => {
    const volume = volumes.find((candidate) => candidate.index === index)
    if (!volume) throw damaged(`volume ${index}`, 'the journal names it, and the stream does not have it')
    const backing = openBacking(volume.path)
    const opened = { backing, writes: new GatheredWrites(backing), sizeBytes: volume.sizeBytes }
    open.set(index, opened)
    return opened
  }
  const attempt = (volume: number, action: () => void): void => {
    try {
      action()
    } catch (error) {
      onFailed(volume, error)
    }
  }
  const flush = (): void => {
    for (const [volume, { writes }] of open) attempt(volume, () => writes.flush())
  }
  let flushedLsn: bigint | undefined
  return {
    apply: (record) => {
      if (record.type === 'marker') return
      flushedLsn ??= record.lsn
      if (record.lsn - flushedLsn >= gatheredLsns) {
        flush()
        flushedLsn = record.lsn
      }
      attempt(record.volume, () => {
        if (record.type === 'write') target(record).write(record.offset, record.payload)
        else target(record).zero(record.offset, record.lengthBytes)
      })
    },
    flush,
    sync: () => {
      for (const [volume, { writes }] of open) attempt(volume, () => writes.sync())
    },
    close: () => {
      for (const { backing } of open.values()) backing.close()
    },
  }
}
