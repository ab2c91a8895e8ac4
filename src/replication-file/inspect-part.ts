import { crc32c } from '../block/crc32c.js'
import { decodePart } from './decode-part.js'
import type { PartRecord } from './part.js'
import { type PeekedHeader, peekHeader } from './part-header.js'
import { RANGE_DIGEST_BYTES } from './range-digest.js'

/** Plain JSON values throughout: LSNs are decimal strings. */
export type InspectedItem =
  | ({ readonly item: 'file' } & Record<string, string | number | boolean>)
  | { readonly item: 'note'; readonly text: string }
  | ({ readonly item: 'record' } & Record<string, string | number>)

/**
 * What `inspect` prints of a replication file: its header, and with the stream's secret every record.
 *
 * Without the secret the header is all there is, and nothing proves it: the note that comes with it says so.
 *
 * @throws StorageError as decodePart(), after the header has been yielded
 */
export function* inspectPart(bytes: Buffer, streamSecret?: Buffer, name?: string): Generator<InspectedItem> {
  yield describeHeader(peekHeader(bytes, name))
  if (!streamSecret) {
    const text = 'The key of this file is not here: the header above is not authenticated, the records cannot be read.'
    yield { item: 'note', text }
    return
  }
  const { records, tag } = decodePart(bytes, streamSecret, name === undefined ? {} : { name })
  yield { item: 'note', text: `Authentic, ${records.length} records, tag ${tag.toString('hex')}.` }
  for (const record of records) yield describeRecord(record)
}

/** One line for people. */
export function formatInspected(item: InspectedItem): string {
  if (item.item === 'note') return item.text
  const fields = Object.entries(item).filter(([field]) => field !== 'item')
  if (item.item === 'file') return fields.map(([field, value]) => `${field.padEnd(14)} ${value}`).join('\n')
  return fields.map(([field, value]) => (field === 'type' ? String(value).padEnd(6) : `${field}=${value}`)).join(' ')
}

function describeHeader(header: PeekedHeader): InspectedItem {
  return {
    item: 'file',
    format: header.version,
    writer: [header.writerVersion >>> 16, (header.writerVersion >>> 8) & 0xff, header.writerVersion & 0xff].join('.'),
    pairing: header.pairingId.toString('hex'),
    stream: header.streamId.toString('hex'),
    key: header.keyId.toString('hex'),
    generation: header.generation,
    epoch: header.epoch,
    part: `${header.part + 1} of ${header.partCount}`,
    previousTag: header.previousTag.toString('hex'),
    firstLsn: String(header.firstLsn),
    endLsn: String(header.endLsn),
    firstTime: formatTime(header.firstTimeNs),
    lastTime: formatTime(header.lastTimeNs),
    initializing: header.initializing,
    records: header.recordCount,
    frames: header.frameCount,
    rawBytes: header.rawLength,
    storedBytes: header.dataLength,
    fileBytes: header.fileLength,
  }
}

function describeRecord(record: PartRecord): InspectedItem {
  if (record.kind === 'volume') {
    const { volume, stream, name, sizeBytes } = record
    return { item: 'record', type: 'volume', volume, stream, name, sizeBytes }
  }
  if (record.kind === 'digest') {
    const { volume, offset, lengthBytes, run, digests } = record
    const holds = digests.length === 0 ? 'zeros' : `${digests.length / RANGE_DIGEST_BYTES} digests`
    return { item: 'record', type: 'digest', volume, offset, lengthBytes, run, holds }
  }
  const { kind, lsn, timeNs } = record
  const head = { item: 'record', type: kind, lsn: String(lsn), time: formatTime(timeNs) } as const
  const checksum = (payload: Buffer) => crc32c(payload).toString(16).padStart(8, '0')
  if (kind === 'marker') return { ...head, lengthBytes: record.payload.length, crc32c: checksum(record.payload) }
  const { volume, offset, lengthBytes } = record
  const extent = { ...head, volume, offset, lengthBytes }
  return kind === 'write' ? { ...extent, crc32c: checksum(record.payload) } : extent
}

/** ISO 8601 to the nanosecond. */
function formatTime(timeNs: bigint): string {
  const seconds = new Date(Number(timeNs / 1_000_000_000n) * 1000).toISOString().slice(0, 19)
  return `${seconds}.${String(timeNs % 1_000_000_000n).padStart(9, '0')}Z`
}
