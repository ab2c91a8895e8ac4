import assert from 'node:assert/strict'
import type { JournalRecord } from '../journal/reader.js'
import type { Backing } from '../volume/backing.js'

/** A volume of the journal, and where its bytes are written: its backing, or the file that its front end serves. */
export interface ReplayTarget {
  readonly index: number
  readonly path: string
}

/**
 * Writes journal records onto the backings again. Idempotent: a record that is there already is written once more.
 */
export function replayOnto(
  volumes: readonly ReplayTarget[],
  openBacking: (path: string) => Backing,
): { apply: (record: JournalRecord) => void; sync: () => void; close: () => void } {
  const open = new Map<number, Backing>()
  const backing = (index: number): Backing => {
    const present = open.get(index)
    if (present) return present
    const volume = volumes.find((candidate) => candidate.index === index)
    assert(volume, `the journal names volume ${index}, the stream does not have it`)
    const opened = openBacking(volume.path)
    open.set(index, opened)
    return opened
  }
  return {
    apply: (record) => {
      if (record.type === 'write') backing(record.volume).write(record.offset, record.payload)
      else if (record.type === 'zero' || record.type === 'trim')
        backing(record.volume).zero(record.offset, record.lengthBytes)
    },
    sync: () => {
      for (const each of open.values()) each.sync()
    },
    close: () => {
      for (const each of open.values()) each.close()
    },
  }
}
