import { StorageError } from '../block/storage-error.js'
import type { RegionMap } from '../journal/region-map.js'
import type { StreamJournal, StreamJournalOptions } from '../journal/stream-journal.js'
import type { CatchUp } from './catch-up.js'
import type { RecordedVolumes } from './recorded-volumes.js'
import type { RegionKeeper } from './region-keeper.js'
import { openReplayed, syncReplayTargets } from './replayed-journal.js'
import type { StreamHealth } from './stream-health.js'
import type { StreamState } from './stream-state.js'

/** Codes that mean: what the journal held cannot be had any more. */
const journalLost = new Set(['JOURNAL_DAMAGED', 'FOREIGN_SEGMENT'])
const restarted = 'The machine was restarted while writes were under way.'
const hasLost = 'The disk of the journal has lost what it had said was written, and epochs were made of.'

export interface RecoveryParts {
  readonly journal: StreamJournalOptions
  readonly volumes: RecordedVolumes
  readonly state: StreamState
  readonly regions: RegionKeeper
  readonly catchUp: CatchUp
  readonly health: StreamHealth
}

/** A journal to go on with, and the region record open; or why there is none, and what the far side may lack. */
export type Recovery =
  | { readonly journal: StreamJournal }
  /** undefined: nobody knows. */
  | { readonly reason: string; readonly lacking: RegionMap | undefined }

/**
 * After a stop or a crash: replay what the journal holds, and begin to catch up what it may have lost.
 *
 * @param recorded what the region record says; undefined: it is lost
 * @throws StorageError what may be over later: the next start tries again
 */
export async function recoverStream(parts: RecoveryParts, recorded: RegionMap | undefined): Promise<Recovery> {
  const { volumes, state, regions, catchUp, health } = parts
  const opened = await openReplayed(parts.journal, volumes).catch((error: unknown) => {
    if (error instanceof StorageError && journalLost.has(error.code)) return error
    throw error
  })
  if (opened instanceof StorageError) {
    // What was flushed may be in the page cache only, and the journal that promised it is not replayed.
    await syncReplayTargets(volumes)
    return { reason: `${opened.message}.`, lacking: recorded }
  }
  const { journal, report } = opened
  if (report.records > 0) {
    const text = `${report.records} records replayed, ${report.voids} never acknowledged`
    health.say('info', 'JOURNAL_REPLAYED', text)
  }
  const end = journal.counters().publishedLsn
  const { cutLsn, copyEndLsn } = state.position
  try {
    if (end < BigInt(cutLsn) || end < BigInt(copyEndLsn)) {
      // What hosts write next would get places that are cut already, and be in no epoch. What was lost is named in the record.
      await syncReplayTargets(volumes)
      await journal.close(false)
      return { reason: hasLost, lacking: recorded }
    }
    const reason = await unknown()
    if (reason === null) return { journal }
    await journal.close(false)
    return { reason, lacking: undefined }
  } catch (error) {
    await journal.close(false)
    throw error
  }

  async function unknown(): Promise<string | null> {
    if (report.afterPowerCut && !recorded) return `${restarted} The record of their regions is lost.`
    if (!(await catchUp.load(state.position))) return 'The map of a catch-up is lost.'
    // Where the journal holds everything a lost record is no loss: all regions count until all is cut.
    await regions.open(recorded ?? regions.everything(), end)
    if (state.position.regionsLost) await state.move({ regionsLost: false })
    if (!report.afterPowerCut) return null
    await catchUp.begin(state, { regions: regions.active(), reason: restarted, afterLsn: end })
    await journal.acceptBoot()
    health.sayCatchUp(state.position)
    return null
  }
}
