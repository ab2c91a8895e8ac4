import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { StorageError } from '../../../src/block/storage-error.js'
import { MiB } from '../../../src/block/units.js'
import { checkDeclarations } from '../../../src/destage/declarations.js'
import { decodePart } from '../../../src/replication-file/decode-part.js'
import { encodePart, sealPart } from '../../../src/replication-file/encode-part.js'
import { formatInspected, inspectPart } from '../../../src/replication-file/inspect-part.js'
import { keyId } from '../../../src/replication-file/keys.js'
import { shrink } from '../../../src/replication-file/lz4.js'
import type { PartRecord } from '../../../src/replication-file/part.js'
import {
  PART_HEADER_BYTES,
  PART_VERSION,
  partHeaderLayout,
  writeHeader,
} from '../../../src/replication-file/part-header.js'
import { payloadOf, writeIndex } from '../../../src/replication-file/part-index.js'
import { repositoryRoot } from '../../fixtures/paths.js'
import { digestRecords, sampleHeader, sampleRecords, streamSecret, write } from '../../replication-file/samples.js'
import type { FuzzTarget, OpenTarget } from '../target.js'

/**
 * First byte: 0 the file itself. Else what a peer who has the key could seal: header, index length (2 bytes), index and
 * frames in the clear. Bit 1: the lengths in the header that describe the file are made right; without, the reader sees
 * what stands there.
 */
export const part: OpenTarget = (): FuzzTarget => ({
  seeds: () => [
    Buffer.concat([Buffer.of(0), encodePart(sampleHeader, sampleRecords, streamSecret).bytes]),
    Buffer.concat([Buffer.of(0), encodePart(sampleHeader, digestRecords, streamSecret).bytes]),
    Buffer.concat([Buffer.of(0), readFileSync(join(repositoryRoot, 'test/fixtures/replication-file/part-v1.tmr'))]),
    clear([write(0, Buffer.alloc(4096, 7))], false),
    clear([write(0, Buffer.alloc(4096, 7))], true),
    clear(
      [
        write(0, Buffer.alloc(512, 1)),
        write(MiB, Buffer.from(Array.from({ length: 8192 }, (_, at) => (at * at) & 255))),
      ],
      true,
    ),
    clear(sampleRecords, false),
    clear(digestRecords, false),
    // A bomb: 4 MiB of zeros.
    clear([write(0, Buffer.alloc(4 * MiB))], true),
  ],
  run(input) {
    const bytes = (input[0] ?? 0) === 0 ? input.subarray(1) : sealed(input)
    const { header, records } = decodePart(bytes, streamSecret)
    assert.equal(records.length, header.recordCount)
    assert(header.version > 1 || records.every(({ kind }) => kind !== 'digest'))
    const rawBytes = records.reduce((sum, record) => sum + ('payload' in record ? record.payload.length : 0), 0)
    assert(rawBytes <= header.rawLength)
    for (const item of inspectPart(bytes, streamSecret))
      assert(JSON.stringify(item) !== '' && formatInspected(item) !== '')
    declare(records)
  },
})

/** What the destination makes of the names: files of its own. */
function declare(records: readonly PartRecord[]): void {
  const declared = records.flatMap((record) =>
    record.kind === 'volume' ? [{ ...record, index: record.volume as number }] : [],
  )
  try {
    for (const { name } of checkDeclarations(declared)) assert(/^[\w.-]+$/.test(name), name)
  } catch (error) {
    if (!(error instanceof StorageError)) throw error
  }
}

function clear(records: readonly PartRecord[], compress: boolean): Buffer {
  const payloads = records.map(payloadOf)
  const frames = payloads
    .filter((raw) => raw !== undefined && raw.length > 0)
    .map((raw) => ({ raw: raw!, ...(compress ? shrink(raw!) : { encoding: 0, stored: raw! }) }))
  const entries = frames.map(({ encoding, stored, raw }) => ({
    ...{ encoding, storedLength: stored.length, rawLength: raw.length },
  }))
  const index = writeIndex(entries, records, payloads)
  const header = writeHeader(sampleHeader, {
    ...{ version: PART_VERSION, writerVersion: 1, indexEncoding: 0, keyId: keyId(streamSecret) },
    ...{ recordCount: records.length, frameCount: frames.length },
    rawLength: frames.reduce((sum, { raw }) => sum + raw.length, 0),
    dataLength: frames.reduce((sum, { stored }) => sum + stored.length, 0),
    ...{ indexLength: index.length, indexRawLength: index.length },
  })
  const length = Buffer.alloc(2)
  length.writeUInt16LE(index.length)
  return Buffer.concat([Buffer.of(3), header, length, index, ...frames.map(({ stored }) => stored)])
}

/** Sealed as it stands; frames as long as the index says, as far as there are bytes. */
function sealed(input: Buffer): Buffer {
  const header = Buffer.alloc(PART_HEADER_BYTES)
  input.subarray(1).copy(header)
  const rest = input.subarray(Math.min(input.length, 1 + PART_HEADER_BYTES + 2))
  const at = 1 + PART_HEADER_BYTES
  const indexLength = input.length >= at + 2 ? input.readUInt16LE(at) : 0
  const index = rest.subarray(0, indexLength)
  const data = rest.subarray(index.length)
  const frameCount = Math.min(header.readUInt32LE(partHeaderLayout.frameCount.offset), 64)
  const frames: Buffer[] = []
  let from = 0
  for (let frame = 0; frame < frameCount; frame += 1) {
    const promised = index.length >= (frame + 1) * 12 ? index.readUInt32LE(frame * 12) : 0
    const length = Math.min(promised, data.length - from)
    frames.push(data.subarray(from, from + length))
    from += length
  }
  keyId(streamSecret).copy(header, partHeaderLayout.keyId.offset)
  if ((input[0]! & 2) !== 0) {
    const put = (field: 'dataLength' | 'fileLength', value: number) =>
      header.writeBigUInt64LE(BigInt(value), partHeaderLayout[field].offset)
    header.writeUInt32LE(frames.length, partHeaderLayout.frameCount.offset)
    header.writeUInt32LE(index.length, partHeaderLayout.indexLength.offset)
    put('dataLength', from)
    put('fileLength', PART_HEADER_BYTES + from + index.length + 16 * (frames.length + 2))
  }
  return sealPart(header, frames, index, streamSecret).bytes
}
