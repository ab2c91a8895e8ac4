import { closeSync, fdatasyncSync, openSync, renameSync, rmSync, writevSync } from 'node:fs'
import path from 'node:path'
import { syncDirectory } from '../block/durable-file.js'
import { errnoOf, StorageError } from '../block/storage-error.js'
import { type Lsn, volumeIndex } from '../block/units.js'
import { serveCalls } from '../block/worker-calls.js'
import { loadEpoch } from '../journal/epoch.js'
import { encodePart } from '../replication-file/encode-part.js'
import type { PartHeader, PartRecord } from '../replication-file/part.js'
import { partFileName } from '../replication-file/part-file-name.js'
import { copyLayer, type EpochRecords, journalLayer } from './epoch-records.js'
import { foldEpoch } from './fold.js'
import { EPOCH_JOURNAL_LIMIT, type PackJob, type PackResult } from './pack-job.js'
import { partRecords, splitParts } from './part-records.js'
import { SentContent } from './sent-content.js'

/** What the far side will hold, by stream; valid only after the epoch whose last tag stands beside it. */
const sent = new Map<string, { readonly content: SentContent; tag: string }>()
/** Streams whose sent content is remembered, the latest. */
const sentLimit = 32

/** Make one epoch: read, fold, seal, and put its files, durable, into the source buffer. */
async function pack(job: PackJob): Promise<PackResult> {
  const { directory, id, segmentBytes } = job.journal
  const journal = loadEpoch({
    directory,
    journalId: Buffer.from(id),
    segmentBytes,
    from: job.from,
    to: job.to,
    limitBytes: EPOCH_JOURNAL_LIMIT,
  })
  const endLsn = journal.endLsn
  const records = journalLayer(journal, copyLayer(job.copies))
  const fold = foldEpoch(records)
  const content = sentContentOf(job)
  const { kept, rawBytes, foldedBytes, identicalBytes } = partRecords(fold, records, content, job.ontoZeros)
  const initializing = job.consistentFrom === null || endLsn < job.consistentFrom
  const written = await writeParts(job, endLsn, initializing, records, kept)
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
  }
}

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
  let previousTag: Buffer = Buffer.from(job.place.previousTag)
  let compressedBytes = 0
  groups.forEach((group, part) => {
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
    const encoded = encodePart(header, group, Buffer.from(job.secret))
    const name = partFileName(header)
    writeFile(job.directory, name, encoded.bytes)
    parts.push({ name, lengthBytes: encoded.lengthBytes })
    previousTag = encoded.tag
    compressedBytes += encoded.compressedBytes
  })
  await syncDirectory(job.directory)
  return { parts, tag: previousTag, compressedBytes }
}

/** Durable under its name, except for the folder's entry. @throws StorageError BUFFER_DISK_FULL, BUFFER_UNAVAILABLE */
function writeFile(directory: string, name: string, pieces: readonly Buffer[]): void {
  const file = path.join(directory, name)
  const temporary = `${file}.tmp`
  try {
    const fd = openSync(temporary, 'w', 0o600)
    try {
      writeAll(fd, pieces)
      fdatasyncSync(fd)
    } finally {
      closeSync(fd)
    }
    renameSync(temporary, file)
  } catch (cause) {
    rmSync(temporary, { force: true })
    const full = errnoOf(cause) === 'ENOSPC'
    throw new StorageError(full ? 'BUFFER_DISK_FULL' : 'BUFFER_UNAVAILABLE', {
      op: 'write replication file',
      object: file,
      cause,
      retry: 'later',
      hint: full
        ? 'Free space on the file system of the source buffer; the journal collects meanwhile.'
        : 'Check the file system of the source buffer; the journal collects meanwhile.',
    })
  }
}

function writeAll(fd: number, pieces: readonly Buffer[]): void {
  let left = [...pieces]
  while (left.length > 0) {
    let written = writevSync(fd, left.slice(0, 512))
    while (left.length > 0 && written >= left[0]!.length) written -= left.shift()!.length
    if (left.length > 0) left = [left[0]!.subarray(written), ...left.slice(1)]
  }
}

/**
 * The table is only right directly after the epoch it was brought up to date with: anything else (a failed pack, a new
 * generation, a restart) begins with an empty one. It leaves this map while it is in use, so a failure drops it.
 */
function sentContentOf(job: PackJob): SentContent {
  const stream = Buffer.from(job.place.streamId).toString('hex')
  const known = sent.get(stream)
  sent.delete(stream)
  if (known && known.tag === Buffer.from(job.place.previousTag).toString('hex')) return known.content
  return new SentContent()
}

function rememberSent(job: PackJob, content: SentContent, tag: Buffer): void {
  sent.set(Buffer.from(job.place.streamId).toString('hex'), { content, tag: tag.toString('hex') })
  if (sent.size > sentLimit) sent.delete(sent.keys().next().value!)
}

serveCalls({ pack })
