import { type Lsn, MiB, volumeIndex } from '../block/units.js'
import { comeAfterHosts, serveCalls, workerEnded } from '../block/worker-calls.js'
import { loadEpoch } from '../journal/epoch.js'
import { encodePart } from '../replication-file/encode-part.js'
import type { PartHeader, PartRecord } from '../replication-file/part.js'
import { partFileName } from '../replication-file/part-file-name.js'
import { type CopyPlanJob, planCopy } from './copy-planner.js'
import { copyLayer, type EpochRecords, journalLayer } from './epoch-records.js'
import { foldEpoch } from './fold.js'
import { EPOCH_JOURNAL_LIMIT, type PackJob, type PackResult } from './pack-job.js'
import { PackMemory } from './pack-memory.js'
import { partRecords, splitParts } from './part-records.js'
import { PartWriting } from './part-writing.js'
import { digestPieces, digestRecords } from './range-digests.js'
import { SentContent } from './sent-content.js'
import { type DigestPlanJob, planDigests } from './verify-planner.js'
import { withSparse } from './volume-file.js'

/** What the far side will hold, by stream; valid only after the epoch whose last tag stands beside it. */
const sent = new Map<string, { readonly content: SentContent; tag: string }>()
/** Of streams whose sent content is remembered, the latest: so much in all. */
const sentLimitBytes = 320 * MiB
let sentBytes = 0
/** Epochs that are sealed and not known to be durable, by the tag of their last part. */
const sealed = new Map<string, PartWriting>()
const memory = new PackMemory()

/** Make one epoch: read, fold, seal. Its files are on their way to the source buffer, and durable when written() says so. */
async function pack(job: PackJob): Promise<PackResult> {
  const { directory, id, segmentBytes } = job.journal
  const journal = loadEpoch({
    directory,
    journalId: Buffer.from(id),
    segmentBytes,
    from: job.from,
    to: job.to,
    limitBytes: EPOCH_JOURNAL_LIMIT,
    into: memory.journal,
  })
  const endLsn = journal.endLsn
  const records = journalLayer(journal, job.copies.length > 0 ? copyLayer(job.copies, memory.copy) : [])
  const fold = foldEpoch(records)
  const content = sentContentOf(job)
  if (job.afresh) for (const { volume, offset, lengthBytes } of job.copies) content.forget(volume, offset, lengthBytes)
  const { kept, rawBytes, foldedBytes, identicalBytes } = partRecords(fold, records, content, job.ontoZeros)
  const initializing = job.consistentFrom === null || endLsn < job.consistentFrom
  const digested = digestRecords(job, endLsn, !initializing, () => memory.copy)
  const written = await writeParts(job, endLsn, initializing, records, [...kept, ...digested.records])
  rememberSent(job, content, written.tag)
  return {
    endLsn,
    initializing,
    parts: written.parts,
    tag: written.tag,
    rawBytes,
    foldedBytes,
    identicalBytes,
    compressedBytes: written.compressedBytes,
    oldestMs: Number(records.oldestNs / 1_000_000n),
    digestedBytes: digested.digestedBytes,
    busy: digested.busy,
  }
}

/** Each part is written while the next one is made. */
async function writeParts(
  job: PackJob,
  endLsn: Lsn,
  initializing: boolean,
  records: EpochRecords,
  kept: readonly PartRecord[],
): Promise<{ parts: { name: string; lengthBytes: number }[]; tag: Buffer; compressedBytes: number }> {
  const declared = job.declare.map(
    (volume): PartRecord => ({ ...volume, kind: 'volume', volume: volumeIndex(volume.volume) }),
  )
  const groups = splitParts([...declared, ...kept])
  const parts: { name: string; lengthBytes: number }[] = []
  const { pairingId, streamId, generation, epoch } = job.place
  const secret = Buffer.from(job.secret)
  const writing = new PartWriting(job.directory)
  let previousTag: Buffer = Buffer.from(job.place.previousTag)
  let compressedBytes = 0
  try {
    for (const [part, group] of groups.entries()) {
      const header: PartHeader = {
        pairingId: Buffer.from(pairingId),
        streamId: Buffer.from(streamId),
        generation,
        epoch,
        part,
        partCount: groups.length,
        previousTag,
        firstLsn: job.from,
        endLsn,
        firstTimeNs: records.oldestNs,
        lastTimeNs: records.newestNs,
        initializing,
      }
      const area = await memory.takePart()
      try {
        const encoded = encodePart(header, group, secret, area)
        const name = partFileName(header)
        writing.begin(name, encoded.bytes, () => memory.givePart(area))
        parts.push({ name, lengthBytes: encoded.bytes.length })
        previousTag = encoded.tag
        compressedBytes += encoded.compressedBytes
      } catch (error) {
        memory.givePart(area)
        throw error
      }
    }
  } catch (error) {
    await writing.over()
    throw error
  }
  sealed.set(previousTag.toString('hex'), writing)
  return { parts, tag: previousTag, compressedBytes }
}

/**
 * Its files are durable under their names. Asked once of each epoch that was packed.
 * @throws StorageError WORKER_ENDED: another process packed it
 */
async function written(tag: Uint8Array): Promise<void> {
  const key = Buffer.from(tag).toString('hex')
  const writing = sealed.get(key)
  if (!writing) throw workerEnded('pack-worker', 'the one before had sealed the epoch')
  sealed.delete(key)
  await writing.durable()
}

/**
 * The table is only right directly after the epoch it was brought up to date with: anything else (a failed pack, a new
 * generation, a restart) begins with an empty one. It leaves this map while it is in use, so a failure drops it.
 */
function sentContentOf(job: PackJob): SentContent {
  const stream = Buffer.from(job.place.streamId).toString('hex')
  const known = forgetSent(stream)
  if (known && known.tag === Buffer.from(job.place.previousTag).toString('hex')) return known.content
  return SentContent.for(job.volumeBytes)
}

function rememberSent(job: PackJob, content: SentContent, tag: Buffer): void {
  sent.set(Buffer.from(job.place.streamId).toString('hex'), { content, tag: tag.toString('hex') })
  sentBytes += content.memoryBytes
  while (sentBytes > sentLimitBytes) forgetSent(sent.keys().next().value!)
}

function forgetSent(stream: string): { readonly content: SentContent; readonly tag: string } | undefined {
  const known = sent.get(stream)
  sent.delete(stream)
  sentBytes -= known?.content.memoryBytes ?? 0
  return known
}

/** What only the disks know. */
const plans = {
  planCopy: ({ volumes, cursor }: CopyPlanJob) => withSparse(volumes, (sparse) => planCopy(sparse, cursor)),
  planDigests: ({ volumes, verify }: DigestPlanJob) => withSparse(volumes, (sparse) => planDigests(sparse, verify)),
}

comeAfterHosts()
serveCalls({ ...plans, pack, digest: digestPieces }, { written })
