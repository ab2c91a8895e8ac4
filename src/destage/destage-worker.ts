import assert from 'node:assert/strict'
import { StorageError } from '../block/storage-error.js'
import { epochNumber } from '../block/units.js'
import { comeAfterHosts, serveCalls } from '../block/worker-calls.js'
import { type DecodedPart, decodePart } from '../replication-file/decode-part.js'
import type { PartPlace, PartRecord } from '../replication-file/part.js'
import { Backing } from '../volume/backing.js'
import { GatheredWrites } from '../volume/gathered-writes.js'
import { readArrival } from './arrival-file.js'
import { compareDigests, type DigestRecord } from './compare-digests.js'
import type { ApplyJob, ApplyResult, Declaration, VerifyJob, VerifyResult } from './destage-job.js'
import { listInbox } from './inbox-listing.js'

/** Parts verified a moment ago and most likely applied next: kept opened. */
const recentLimitBytes = 64 * 1024 * 1024
const recent = new Map<string, DecodedPart>()
let recentBytes = 0

/** Whether the file is a whole part of this stream, and where it belongs. */
function verify(job: VerifyJob): VerifyResult {
  const decoded = decodePart(readArrival(job.file), Buffer.from(job.secret), {
    name: job.file,
    expected: { pairingId: Buffer.from(job.pairingId), streamId: Buffer.from(job.streamId) },
  })
  remember(job.file, decoded)
  const { generation, epoch, part, partCount, initializing, rawLength } = decoded.header
  const declarations = decoded.records.flatMap((record): Declaration[] =>
    record.kind === 'volume'
      ? [{ index: record.volume, stream: record.stream, name: record.name, sizeBytes: record.sizeBytes }]
      : [],
  )
  const hasDigests = decoded.records.some(({ kind }) => kind === 'digest')
  return { generation, epoch, part, partCount, initializing, rawBytes: rawLength, hasDigests, declarations }
}

/** Open whole epochs and check them, the chain of tags included; nothing is written. Returns the tag of the last part. */
function check(job: ApplyJob): Uint8Array {
  return tagOf(openChecked(job))
}

/**
 * Apply whole epochs. Everything is opened and checked before the first byte is written; the images are durable when
 * this returns. Applying the same epochs again gives the same images. What the last of them says that the images hold is
 * compared with them then.
 */
function apply(job: ApplyJob): ApplyResult {
  const parts = openChecked(job)
  const backings = new Map<number, Backing>()
  let writtenBytes = 0
  let compared: ApplyResult['compared'] = null
  try {
    for (const { index, path } of job.images) backings.set(index, new Backing(path, 'write'))
    const writes = new Map([...backings].map(([index, backing]) => [index, new GatheredWrites(backing)]))
    for (const { records } of parts) for (const record of records) writtenBytes += applyRecord(record, writes)
    for (const each of writes.values()) each.sync()
    compared = compareDigests(digestsOf(parts), job.images, backings)
  } finally {
    for (const backing of backings.values()) backing.close()
  }
  const { endLsn, lastTimeNs } = parts.at(-1)!.header
  return { tag: tagOf(parts), endLsn, lastTimeNs, writtenBytes, compared }
}

/** Of the last epoch. In one before there are none: the images are beyond its end. */
function digestsOf(parts: readonly DecodedPart[]): DigestRecord[] {
  const last = parts.at(-1)?.header.epoch
  return parts.flatMap(({ header, records }) =>
    records.flatMap((record) => {
      if (record.kind !== 'digest') return []
      assert(header.epoch === last, 'digests before the last epoch of a batch')
      return [record]
    }),
  )
}

function tagOf(parts: readonly DecodedPart[]): Uint8Array {
  const last = parts.at(-1)
  assert(last, 'an apply of nothing')
  return last.tag
}

function openChecked(job: ApplyJob): DecodedPart[] {
  const parts = openChain(job)
  const images = new Map(job.images.map((image) => [image.index, image]))
  for (const { header, records } of parts) {
    for (const record of records) checkInside(record, images, `epoch ${header.epoch} part ${header.part}`)
  }
  return parts
}

function openChain(job: ApplyJob): DecodedPart[] {
  const parts: DecodedPart[] = []
  let previousTag: Buffer = Buffer.from(job.previousTag)
  job.epochs.forEach((files, index) => {
    files.forEach((file, part) => {
      const place = { epoch: epochNumber(job.firstEpoch + index), part, partCount: files.length }
      const decoded = take(file) ?? openAgain(file, job, place)
      const { header } = decoded
      assert(header.epoch === place.epoch && header.part === part, `${file} is out of order`)
      assert(header.partCount === files.length && header.generation === job.generation, `${file} is out of place`)
      if (!header.previousTag.equals(previousTag)) throw forked(file)
      previousTag = decoded.tag
      parts.push(decoded)
    })
  })
  return parts
}

/**
 * A file that was whole when it arrived. Whoever still holds it open may have written to it since, or the disk gives back
 * other bytes.
 */
function openAgain(file: string, job: ApplyJob, place: Pick<PartPlace, 'epoch' | 'part' | 'partCount'>): DecodedPart {
  const expected = {
    ...place,
    pairingId: Buffer.from(job.pairingId),
    streamId: Buffer.from(job.streamId),
    generation: job.generation,
  }
  try {
    return decodePart(readArrival(file), Buffer.from(job.secret), { name: file, expected })
  } catch (cause) {
    if (!(cause instanceof StorageError)) throw cause
    throw new StorageError('ARRIVAL_CHANGED', {
      op: 'destage',
      object: file,
      cause,
      retry: 'after-arrival',
      hint: 'It was whole when it arrived and is not any more. Check the disk of the inbound folder, and who may write to the inbox.',
    })
  }
}

function applyRecord(record: PartRecord, images: ReadonlyMap<number, GatheredWrites>): number {
  if (record.kind === 'volume' || record.kind === 'marker' || record.kind === 'digest') return 0
  const image = images.get(record.volume)
  assert(image)
  if (record.kind === 'write') image.write(record.offset, record.payload)
  else image.zero(record.offset, record.lengthBytes)
  return record.kind === 'write' ? record.payload.length : 0
}

function checkInside(record: PartRecord, images: ReadonlyMap<number, { sizeBytes: number }>, where: string): void {
  if (record.kind === 'marker' || record.kind === 'volume') return
  const image = images.get(record.volume)
  if (image && record.offset + record.lengthBytes <= image.sizeBytes) return
  throw new StorageError('OUTSIDE_VOLUME', {
    op: 'destage',
    object: where,
    cause: image ? `offset ${record.offset} + ${record.lengthBytes}` : `volume ${record.volume} was never declared`,
    hint: 'The source sent what no volume of this stream can hold. Initialize the stream again at the source.',
  })
}

function forked(file: string): StorageError {
  return new StorageError('SEQUENCE_FORK', {
    op: 'destage',
    object: file,
    hint: 'It does not follow what was applied last: the source was restored from an old image, or is another machine. Initialize the stream again at the source.',
  })
}

function remember(file: string, decoded: DecodedPart): void {
  const bytes = decoded.header.rawLength
  if (recentBytes + bytes > recentLimitBytes) return
  take(file)
  recent.set(file, decoded)
  recentBytes += bytes
}

function take(file: string): DecodedPart | undefined {
  const decoded = recent.get(file)
  if (decoded) recentBytes -= decoded.header.rawLength
  recent.delete(file)
  return decoded
}

/** The file is gone or replaced. */
function forget(file: string): void {
  take(file)
}

comeAfterHosts()
serveCalls({ verify, check, apply, forget }, { list: (folder: string) => listInbox(folder) })
