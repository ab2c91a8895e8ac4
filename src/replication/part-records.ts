import { lsn } from '../block/units.js'
import { PART_RAW_LIMIT, PART_RECORD_LIMIT, RECORD_PAYLOAD_LIMIT } from '../replication-file/limits.js'
import type { PartRecord } from '../replication-file/part.js'
import { payloadLength } from '../replication-file/part-index.js'
import type { EpochRecords } from './epoch-records.js'
import { type Fold, foldKind } from './fold.js'
import type { SentContent } from './sent-content.js'
import { splitZeroBlocks } from './zero-blocks.js'

/**
 * What of a folded epoch crosses the wire, in volume and offset order: blocks of zeros as such, blocks the far side
 * holds already not at all.
 *
 * @param ontoZeros copied zeros need not cross: the far side of a new generation is zeros to begin with
 */
export function partRecords(
  fold: Fold,
  records: EpochRecords,
  content: SentContent,
  ontoZeros: boolean,
): { kept: PartRecord[]; rawBytes: number; foldedBytes: number; identicalBytes: number } {
  const rawBytes = writtenBytes(records)
  let survivingBytes = 0
  const kept: PartRecord[] = []
  let identicalBytes = 0
  for (const folded of fold.volumes) {
    const { volume } = folded
    for (let at = 0; at < folded.count; at++) {
      const record = folded.record[at]!
      const offset = folded.offset[at]!
      const lengthBytes = folded.lengthBytes[at]!
      const stamp = { volume, lsn: lsn(records.lsn[record]!), timeNs: records.timeNs[record]! }
      if (folded.kind[at] !== foldKind.write) {
        content.forget(volume, offset, lengthBytes)
        kept.push({ ...stamp, kind: folded.kind[at] === foldKind.trim ? 'trim' : 'zero', offset, lengthBytes })
        continue
      }
      if (!records.isCopy(record)) survivingBytes += lengthBytes
      const payload = pieceOf(records.payload(record), folded.payloadOffset[at]!, lengthBytes)
      for (const piece of splitZeroBlocks(offset, payload)) {
        const pieceOffset = offset + piece.start
        if (piece.zero) {
          content.forget(volume, pieceOffset, piece.lengthBytes)
          if (!records.isCopy(record) || !ontoZeros)
            kept.push({ ...stamp, kind: 'zero', offset: pieceOffset, lengthBytes: piece.lengthBytes })
          continue
        }
        const data = pieceOf(payload, piece.start, piece.lengthBytes)
        identicalBytes += data.length
        for (const { start, lengthBytes: length } of content.sift(volume, pieceOffset, data)) {
          identicalBytes -= length
          for (let done = 0; done < length; done += RECORD_PAYLOAD_LIMIT) {
            const bytes = pieceOf(data, start + done, Math.min(length - done, RECORD_PAYLOAD_LIMIT))
            // Not spread: there is one of these for each block that was written.
            kept.push({
              kind: 'write',
              volume,
              offset: pieceOffset + start + done,
              lengthBytes: bytes.length,
              lsn: stamp.lsn,
              timeNs: stamp.timeNs,
              payload: bytes,
            })
          }
        }
      }
    }
  }
  return { kept, rawBytes, foldedBytes: rawBytes - survivingBytes, identicalBytes }
}

/** The same object where nothing is cut off: making one costs more than most of what is done with it. */
function pieceOf(bytes: Buffer, start: number, lengthBytes: number): Buffer {
  return start === 0 && lengthBytes === bytes.length ? bytes : bytes.subarray(start, start + lengthBytes)
}

/** By hosts: what an initialisation copied does not count. */
function writtenBytes(records: EpochRecords): number {
  let bytes = 0
  for (let at = 0; at < records.count; at++) {
    if (records.kind[at] === foldKind.write && !records.isCopy(at)) bytes += records.lengthBytes[at]!
  }
  return bytes
}

/** Groups that fit a part each; at least one, for an epoch that changes nothing is a recovery point too. */
export function splitParts(records: readonly PartRecord[]): PartRecord[][] {
  const groups: PartRecord[][] = [[]]
  let rawBytes = 0
  for (const record of records) {
    const bytes = payloadLength(record)
    if (groups.at(-1)!.length === PART_RECORD_LIMIT || rawBytes + bytes > PART_RAW_LIMIT) {
      groups.push([])
      rawBytes = 0
    }
    groups.at(-1)!.push(record)
    rawBytes += bytes
  }
  return groups
}
