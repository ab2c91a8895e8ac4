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

serveCalls({ recover, sync })
