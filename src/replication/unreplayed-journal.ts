import { StorageError } from '../block/storage-error.js'
import { StreamJournal } from '../journal/stream-journal.js'
import type { StreamRecordingOptions } from './recording-options.js'
import { syncReplayTargets } from './replayed-journal.js'

/**
 * What hosts flushed may be in the journal alone where a stream could not be recovered: before it is thrown away it is
 * replayed, for which this tries again what failed. Where it is given up, what of it is in the page cache at least stays.
 * @param discard the journal is given up where it cannot be replayed
 * @param start recovers the stream
 * @throws StorageError JOURNAL_NOT_REPLAYED
 */
export async function replayOrDiscard(
  { definition, store, state, health, volumes }: StreamRecordingOptions,
  op: string,
  discard: boolean,
  start: () => Promise<void>,
): Promise<void> {
  const { name } = definition
  if (state.position.phase !== 'running' || StreamJournal.isClean(store, name)) return
  try {
    return await start()
  } catch (cause) {
    if (!discard) throw notReplayed(op, name, cause)
    const text = `What hosts flushed last and was in the journal alone is lost: ${cause}`
    health.say('warning', 'JOURNAL_DISCARDED', text)
  }
  await volumes
    .hold()
    .then(() => syncReplayTargets(volumes))
    .catch((error) => health.say('warning', 'JOURNAL_DISCARDED', `A volume could not be synced: ${error}`))
}

function notReplayed(op: string, object: string, cause: unknown): StorageError {
  const why = cause instanceof StorageError ? `${cause.message}. ${cause.hint}` : String(cause)
  return new StorageError('JOURNAL_NOT_REPLAYED', {
    op,
    object,
    cause,
    hint: `What hosts flushed last may be in its journal alone, which cannot be replayed now: ${why} Mend that first. If it is lost for good: tidemark ${op} ${object} --discard-journal`,
  })
}
