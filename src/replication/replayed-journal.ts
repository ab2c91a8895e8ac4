import { LentWorker } from '../block/lent-worker.js'
import { WorkerCalls } from '../block/worker-calls.js'
import type { Recovered } from '../journal/recovery.js'
import {
  type RecoveryJob,
  type RecoveryReport,
  StreamJournal,
  type StreamJournalOptions,
} from '../journal/stream-journal.js'
import type { RecordedVolumes } from './recorded-volumes.js'
import type { ReplayJob, Salvaged } from './recovery-worker.js'

/** For a journal that is given up: recovery-worker.ts says what of it the volumes get. Held, as far as they can be. */
export async function salvageJournal(journal: RecoveryJob, volumes: RecordedVolumes): Promise<Salvaged> {
  const worker = recoveryWorker()
  try {
    return await worker.call<Salvaged>('salvage', { journal, volumes: volumes.files() } satisfies ReplayJob)
  } finally {
    await worker.close()
  }
}

/** What lies in the page cache of the volumes' files, of whoever wrote it, is durable when this resolves. Held. */
export async function syncReplayTargets(volumes: RecordedVolumes): Promise<void> {
  const worker = recoveryWorker()
  try {
    await worker.call('sync', volumes.files())
  } finally {
    await worker.close()
  }
}

/** Where recoveries run. It ends with close(). */
export function recoveryWorker(): WorkerCalls {
  return new WorkerCalls(new URL('./recovery-worker.js', import.meta.url))
}

/**
 * Open a stream's journal and write onto its volumes what they may lack. They must be held. Files are read and written
 * in a worker: what a front end serves can only be written while the main thread answers its faults.
 */
export async function openReplayed(
  options: StreamJournalOptions,
  volumes: RecordedVolumes,
): Promise<{ journal: StreamJournal; report: RecoveryReport }> {
  const { worker, giveBack } = (options.recoverer ?? new LentWorker(recoveryWorker)).lend()
  const targets = volumes.files()
  const recover = (journal: RecoveryJob): Promise<Recovered> =>
    worker.call<Recovered>('recover', { journal, volumes: targets } satisfies ReplayJob)
  try {
    return await StreamJournal.open(options, recover)
  } finally {
    await giveBack()
  }
}
