import { serveCalls } from '../block/worker-calls.js'
import { type Recovered, recoverJournal } from '../journal/recovery.js'
import type { RecoveryJob } from '../journal/stream-journal.js'
import { Backing } from '../volume/backing.js'
import { replayOnto } from './replay.js'
import type { VolumeFile } from './volume-file.js'

export interface ReplayJob {
  readonly journal: RecoveryJob
  readonly volumes: readonly VolumeFile[]
}

/** What could not be had of a journal. */
export interface Salvaged {
  /** By volume index: why it lacks something of what is in the journal. */
  readonly failures: Readonly<Record<number, string>>
  /** Why the journal cannot be read, as a rule before any volume has something of it; or null. */
  readonly journalFailure: string | null
}

/** Find the journal's end, write what lies before it onto the volumes, and sync them. */
function recover({ journal, volumes }: ReplayJob): Recovered {
  const replay = replayOnto(volumes, (path) => new Backing(path, 'write'))
  try {
    const found = recoverJournal({ ...journal, apply: replay.apply })
    replay.sync()
    return found
  } finally {
    replay.close()
  }
}

/**
 * As much of it as can be had, each volume by itself: of one that lacks something the rest is written, and what is in the
 * page cache of any is synced, also where there is no journal.
 */
function salvage({ journal, volumes }: ReplayJob): Salvaged {
  const failures: Record<number, string> = {}
  const note = (volume: number, error: unknown): void => {
    failures[volume] ??= String(error)
  }
  const replay = replayOnto(volumes, (path) => new Backing(path, 'write'), note)
  let journalFailure: string | null = null
  try {
    recoverJournal({ ...journal, apply: replay.apply })
  } catch (error) {
    journalFailure = String(error)
  } finally {
    replay.flush()
    replay.close()
  }
  for (const volume of volumes) {
    try {
      sync([volume])
    } catch (error) {
      note(volume.index, error)
    }
  }
  return { failures, journalFailure }
}

function sync(volumes: readonly VolumeFile[]): void {
  for (const { path } of volumes) {
    const backing = new Backing(path, 'write')
    try {
      backing.sync()
    } finally {
      backing.close()
    }
  }
}

serveCalls({ recover, salvage, sync })
