import assert from 'node:assert/strict'
import { type LogSequence, pageBytes } from './geometry.js'
import { poolIdBytes, writerVersion } from './label.js'
import { readLong } from './log-record.js'
import { pageChecksum, soundPageChecksum } from './unit-page.js'

/** The root of a checkpoint; FORMAT.md says where each byte is. */

export const SUPERBLOCK_MAGIC = 'TMSB'
export const SUPERBLOCK_VERSION = 1
export const SUPERBLOCK_HEADER_BYTES = 88
export const bootIdBytes = 16

export const superblockFields = {
  magic: { offset: 0, size: 4 },
  crc: { offset: 4, size: 4 },
  version: { offset: 8, size: 2 },
  headerLength: { offset: 10, size: 2 },
  writerVersion: { offset: 12, size: 4 },
  poolId: { offset: 16, size: 16 },
  sequence: { offset: 32, size: 8 },
  logSequence: { offset: 40, size: 8 },
  bootId: { offset: 48, size: 16 },
  flags: { offset: 64, size: 4 },
  devices: { offset: 68, size: 4 },
  catalogSlot: { offset: 72, size: 4 },
  catalogCrc: { offset: 76, size: 4 },
  catalogLength: { offset: 80, size: 8 },
} as const

export const superblockFlags = { clean: 1 } as const

export interface Superblock {
  readonly poolId: Buffer
  /** Number of the checkpoint, from 1 on; it lies in slot `sequence % 2`, as does its catalog. */
  readonly sequence: number
  /** The first record of the log that is not in this checkpoint. */
  readonly logSequence: LogSequence
  /** Of the machine that wrote it: another one now means a power cut, or another machine. */
  readonly bootId: Buffer
  /** The pool was closed with this checkpoint, and nothing was written since. */
  readonly clean: boolean
  readonly devices: number
  readonly catalogCrc: number
  readonly catalogLength: number
}

export function slotOfCheckpoint(sequence: number): 0 | 1 {
  return (sequence % 2) as 0 | 1
}

export function encodeSuperblock(superblock: Superblock): Buffer {
  assert.equal(superblock.poolId.length, poolIdBytes)
  assert.equal(superblock.bootId.length, bootIdBytes)
  const bytes = Buffer.alloc(pageBytes)
  const f = superblockFields
  bytes.write(SUPERBLOCK_MAGIC, f.magic.offset, 'latin1')
  bytes.writeUInt16LE(SUPERBLOCK_VERSION, f.version.offset)
  bytes.writeUInt16LE(SUPERBLOCK_HEADER_BYTES, f.headerLength.offset)
  bytes.writeUInt32LE(writerVersion, f.writerVersion.offset)
  superblock.poolId.copy(bytes, f.poolId.offset)
  bytes.writeBigUInt64LE(BigInt(superblock.sequence), f.sequence.offset)
  bytes.writeBigUInt64LE(BigInt(superblock.logSequence), f.logSequence.offset)
  superblock.bootId.copy(bytes, f.bootId.offset)
  bytes.writeUInt32LE(superblock.clean ? superblockFlags.clean : 0, f.flags.offset)
  bytes.writeUInt32LE(superblock.devices, f.devices.offset)
  bytes.writeUInt32LE(slotOfCheckpoint(superblock.sequence), f.catalogSlot.offset)
  bytes.writeUInt32LE(superblock.catalogCrc, f.catalogCrc.offset)
  bytes.writeBigUInt64LE(BigInt(superblock.catalogLength), f.catalogLength.offset)
  bytes.writeUInt32LE(pageChecksum(bytes), f.crc.offset)
  return bytes
}

/** 'newer': written by a program that knows more; undefined: damaged, never written, or of another pool. */
export function decodeSuperblock(bytes: Buffer, poolId: Buffer, slot: number): Superblock | 'newer' | undefined {
  const f = superblockFields
  if (soundPageChecksum(bytes, SUPERBLOCK_MAGIC) === undefined) return undefined
  if (!bytes.subarray(f.poolId.offset, f.poolId.offset + poolIdBytes).equals(poolId)) return undefined
  if (bytes.readUInt16LE(f.version.offset) !== SUPERBLOCK_VERSION) return 'newer'
  const flags = bytes.readUInt32LE(f.flags.offset)
  const sequence = readLong(bytes, f.sequence.offset)
  const logSequence = readLong(bytes, f.logSequence.offset)
  if (!Number.isSafeInteger(sequence) || !Number.isSafeInteger(logSequence)) return undefined
  if (slotOfCheckpoint(sequence) !== slot || bytes.readUInt32LE(f.catalogSlot.offset) !== slot) return undefined
  return {
    poolId,
    sequence,
    logSequence: logSequence as LogSequence,
    bootId: Buffer.from(bytes.subarray(f.bootId.offset, f.bootId.offset + bootIdBytes)),
    clean: (flags & superblockFlags.clean) !== 0,
    devices: bytes.readUInt32LE(f.devices.offset),
    catalogCrc: bytes.readUInt32LE(f.catalogCrc.offset),
    catalogLength: readLong(bytes, f.catalogLength.offset),
  }
}
