import { opendir } from 'node:fs/promises'
import { errnoOf } from '../block/storage-error.js'
import { ACKNOWLEDGEMENT_NAME } from '../replication-file/acknowledgement.js'
import { parsePartFileName } from '../replication-file/part-file-name.js'
import { TEMPORARY_SUFFIX } from '../transport/transport.js'

/** Parts that one listing gives, the first in their order: those behind them are looked for when these are taken. */
export const PARTS_LISTED = 16_384
/** Other names that one listing gives: more are not remembered, see ForeignFiles. */
const othersListed = 20_001
/** Parts kept while a folder is read, before all but the first are dropped. */
const gathered = 4 * PARTS_LISTED
/** Entries read at once. */
const entriesAtOnce = 512

export interface InboxNames {
  /** Names that a part can have, in their order, which is the order they are applied in; the first of many. */
  readonly parts: readonly string[]
  /** Other names, as they come. */
  readonly others: readonly string[]
}

/**
 * What lies in a folder, temporary files and the acknowledgement aside. However many foreign files there are, those that
 * come next in the stream are among the parts. A flooded folder costs time, not memory.
 *
 * @param limit give up and return undefined when the folder has more entries
 */
export async function listInbox(folder: string, limit = Number.POSITIVE_INFINITY): Promise<InboxNames | undefined> {
  const parts: string[] = []
  const others: string[] = []
  let count = 0
  for await (const { name } of await entriesOf(folder)) {
    if (++count > limit) return undefined
    if (name === ACKNOWLEDGEMENT_NAME || name.endsWith(TEMPORARY_SUFFIX)) continue
    if (parsePartFileName(name)) parts.push(name)
    else if (others.length < othersListed) others.push(name)
    if (parts.length >= gathered) keepFirst(parts)
  }
  keepFirst(parts)
  return { parts, others }
}

export async function entriesOf(folder: string): Promise<AsyncIterable<{ name: string; isDirectory(): boolean }>> {
  try {
    return await opendir(folder, { bufferSize: entriesAtOnce })
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return (async function* () {})()
    throw error
  }
}

/** The first in name order. */
function keepFirst(names: string[]): void {
  names.sort()
  names.length = Math.min(names.length, PARTS_LISTED)
}
