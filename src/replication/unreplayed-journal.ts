import { StorageError } from '../block/storage-error.js'
import { StreamJournal } from '../journal/stream-journal.js'
import type { StreamRecordingOptions } from './recording-options.js'
import { salvageJournal } from './replayed-journal.js'
import { heldElsewhere, isHeldStill } from './stream-state.js'

/**
 * What hosts flushed may be in the journal alone where a stream could not be recovered: before it is thrown away it is
 * replayed, for which this tries again what failed. Where it is given up, each volume still gets what can be had.
 * @param discard the journal is given up where it cannot be replayed onto all of its volumes
 * @param start recovers the stream
 * @throws StorageError JOURNAL_NOT_REPLAYED
 */
export async function replayOrDiscard(
  options: StreamRecordingOptions,
  op: string,
  discard: boolean,
  start: () => Promise<void>,
): Promise<void> {
  const { definition, store, state, health } = options
  const { name } = definition
  if (state.position.phase !== 'running' || StreamJournal.isClean(store, name)) return
  try {
    return await start()
  } catch (cause) {
    if (!discard) throw notReplayed(op, name, cause)
  }
  for (const text of await salvage(options)) health.say('warning', 'JOURNAL_DISCARDED', text)
}

/** @returns what is lost, in words */
async function salvage(options: StreamRecordingOptions): Promise<string[]> {
  const { definition, store, state, journal, volumes, holders } = options
  const lost = (what: string, why: unknown): string =>
    `What hosts flushed last ${what}and was in the journal alone is lost: ${why}`
  const job = StreamJournal.recoveryJob({ ...journal, state: store, stream: definition.name })
  if (!job) return []
  // What was written elsewhere since is newer than what the journal has.
  if (!isHeldStill(state.position, holders())) return [lost('', heldElsewhere)]
  try {
    const away = await volumes.holdPresent()
    const { failures, journalFailure } = await salvageJournal(job, volumes)
    const texts = definition.volumes.flatMap(({ index, name }) => {
      const why = away.get(name) ?? failures[index]
      return why === undefined ? [] : [lost(`to ${name} `, why)]
    })
    return journalFailure === null ? texts : [lost('', journalFailure), ...texts]
  } catch (error) {
    return [lost('', error)]
  } finally {
    // Of those alone that were there nothing is to be recorded.
    await volumes.letGo()
  }
}

function notReplayed(op: string, object: string, cause: unknown): StorageError {
  const why = cause instanceof StorageError ? `${cause.message}. ${cause.hint}` : String(cause)
  return new StorageError('JOURNAL_NOT_REPLAYED', {
    op,
    object,
    cause,
    hint: `What hosts flushed last may be in its journal alone, which cannot be replayed now: ${why} Mend that first. If it is lost for good, this gives up what cannot be had of it: tidemark ${op} ${object} --discard-journal`,
  })
}
