import { randomBytes } from 'node:crypto'
import { StorageError } from '../../src/block/storage-error.js'
import { epochNumber, lsn, volumeIndex } from '../../src/block/units.js'
import { deriveStreamSecret } from '../../src/replication-file/keys.js'
import type { PartHeader, PartRecord } from '../../src/replication-file/part.js'

/** Known to everybody: for tests only. */
export const pairingSecret = Buffer.alloc(32, 0x11)
export const streamId = Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex')
export const streamSecret = deriveStreamSecret(pairingSecret, streamId)

export const sampleHeader: PartHeader = {
  pairingId: Buffer.alloc(16, 0xa1),
  streamId,
  generation: 3,
  epoch: epochNumber(41),
  part: 1,
  partCount: 2,
  previousTag: Buffer.alloc(16, 0xb2),
  firstLsn: lsn(4096n),
  endLsn: lsn(2n ** 60n),
  firstTimeNs: 1_700_000_000_000_000_001n,
  lastTimeNs: 1_700_000_001_000_000_002n,
  initializing: false,
}

const timeNs = 1_700_000_000_500_000_000n

/** One of each kind, with payload that compresses and payload that does not look it. */
export const sampleRecords: readonly PartRecord[] = [
  { kind: 'volume', volume: volumeIndex(0), stream: 'mail', name: 'mail-data', sizeBytes: 2 ** 40 },
  write(0, Buffer.from('every write is one record. '.repeat(64)).subarray(0, 1536), 4096n),
  { kind: 'zero', volume: volumeIndex(0), offset: 8192, lengthBytes: 4096, lsn: lsn(5696n), timeNs },
  { kind: 'trim', volume: volumeIndex(2), offset: 2 ** 52, lengthBytes: 2 ** 50, lsn: lsn(5760n), timeNs },
  write(
    2 ** 53 - 1024,
    Buffer.from(Array.from({ length: 512 }, (_, index) => (index * index * 7) & 0xff)),
    2n ** 60n - 1n,
  ),
  { kind: 'marker', lsn: lsn(5824n), timeNs, payload: Buffer.from('{"name":"nightly"}') },
]

/** What version 2 brought: digests of a whole block and a piece of one, and a range of zeros. */
export const digestRecords: readonly PartRecord[] = [
  ...sampleRecords.slice(0, 3),
  {
    ...{ kind: 'digest', volume: volumeIndex(0), offset: 65_536, lengthBytes: 65_536 + 512, run: 7 },
    ...{ salt: Buffer.alloc(16, 0xc3), digests: Buffer.from(Array.from({ length: 32 }, (_, at) => at * 5)) },
  },
  {
    ...{ kind: 'digest', volume: volumeIndex(2), offset: 2 ** 40, lengthBytes: 2 ** 30, run: 7 },
    ...{ salt: Buffer.alloc(16, 0xc3), digests: Buffer.alloc(0) },
  },
]

export function write(offset: number, payload: Buffer, at = 4096n): PartRecord {
  return { kind: 'write', volume: volumeIndex(0), offset, lengthBytes: payload.length, lsn: lsn(at), timeNs, payload }
}

export const randomWrite = (offset: number, lengthBytes: number) => write(offset, randomBytes(lengthBytes))

/** The code of the StorageError that an action throws; anything else it throws is thrown again. */
export function codeOf(action: () => unknown): string {
  try {
    action()
  } catch (error) {
    if (error instanceof StorageError) return error.code
    throw error
  }
  return 'nothing thrown'
}
