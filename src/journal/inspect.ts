import { recordTypeName, SEGMENT_HEADER_BYTES } from './format.js'
import { SegmentFile } from './segment-file.js'
import { type PlaceState, SegmentScan } from './segment-scan.js'

/** Strings and numbers only, to be printed as text or as JSON. */
export type InspectedItem =
  | {
      readonly kind: 'segment'
      readonly text: string
      readonly baseLsn: string
      readonly journalId: string
      readonly segmentBytes: number
      readonly version: number
      readonly writerVersion: string
    }
  | {
      readonly kind: 'record'
      readonly text: string
      readonly lsn: string
      readonly time: string
      readonly type: string
      /** Absent for MARKER, PAD and VOID. */
      readonly volume?: number
      readonly offset: number
      readonly lengthBytes: number
      readonly payloadBytes: number
      readonly incarnation: number
      readonly payloadCrc: string
      readonly state: PlaceState
    }
  | { readonly kind: 'end'; readonly text: string; readonly lsn: string; readonly reason: string }

/**
 * Everything in one segment file, of whatever journal, up to the first place that holds no record.
 *
 * @throws StorageError NOT_FOUND, NOT_A_SEGMENT, JOURNAL_DAMAGED (a record no writer makes), JOURNAL_UNREADABLE
 */
export function* inspectSegment(file: string): Generator<InspectedItem> {
  const segment = SegmentFile.openAny(file)
  try {
    yield inspectHeader(segment)
    const scan = new SegmentScan(segment, { position: SEGMENT_HEADER_BYTES })
    for (;;) {
      const state = scan.next()
      if (state === 'none' || state === 'end' || state === 'beyond') {
        yield inspectEnd(scan, state)
        return
      }
      yield inspectRecord(scan, state)
    }
  } finally {
    segment.close()
  }
}

function inspectHeader(segment: SegmentFile): InspectedItem {
  const { header, segmentBytes } = segment
  const id = header.journalId.toString('hex')
  const version = header.writerVersion
  const writerVersion = `${version >> 16}.${(version >> 8) & 255}.${version & 255}`
  return {
    kind: 'segment',
    text: `segment  base LSN ${header.baseLsn}  ${segmentBytes} bytes  journal ${id}  format ${header.version}  written by ${writerVersion}`,
    baseLsn: header.baseLsn.toString(),
    journalId: id,
    segmentBytes,
    version: header.version,
    writerVersion,
  }
}

function inspectRecord(scan: SegmentScan, state: PlaceState): InspectedItem {
  const type = recordTypeName(scan.type)!
  const onVolume = type === 'write' || type === 'zero' || type === 'trim'
  const time = formatTime(scan.time)
  const payloadCrc = scan.payloadCrc.toString(16).padStart(8, '0')
  const place = onVolume ? `volume ${scan.volume}  offset ${scan.offset}  ` : ''
  const lengthBytes = onVolume ? scan.length : scan.payloadBytes
  return {
    kind: 'record',
    text: `${String(scan.lsn).padStart(14)}  ${time}  ${type.toUpperCase().padEnd(6)}  ${place}length ${lengthBytes}  crc ${payloadCrc}  ${state}`,
    lsn: String(scan.lsn),
    time,
    type,
    ...(onVolume ? { volume: scan.volume } : {}),
    offset: scan.offset,
    lengthBytes,
    payloadBytes: scan.payloadBytes,
    incarnation: scan.incarnation,
    payloadCrc,
    state,
  }
}

function inspectEnd(scan: SegmentScan, state: PlaceState): InspectedItem {
  const blank = state === 'none' && scan.isBlank()
  const reason = state === 'end' ? 'the segment is full' : blank ? 'nothing was written here' : scan.reason
  return { kind: 'end', text: `${String(scan.lsn).padStart(14)}  end: ${reason}`, lsn: String(scan.lsn), reason }
}

/** ISO 8601 with nanoseconds; the number itself when no date can show it. */
function formatTime(timeNs: bigint): string {
  const date = new Date(Number(timeNs / 1_000_000n))
  if (Number.isNaN(date.getTime())) return `${timeNs} ns`
  const nanoseconds = (timeNs % 1_000_000_000n).toString().padStart(9, '0')
  return `${date.toISOString().slice(0, 19)}.${nanoseconds}Z`
}
