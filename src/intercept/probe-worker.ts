import { DataType, isNullPointer, type JsExternal, load, open } from 'ffi-rs'
import { StorageError } from '../block/storage-error.js'
import { serveCalls } from '../block/worker-calls.js'
import type { Content } from './probe.js'

/** The process that asks libblkid: see probe(). */

const library = 'blkid'
const libc = 'c'
const longestValue = 256
/** blkid.h: BLKID_SUBLKS_LABEL, _UUID, _TYPE. */
const superblockFlags = (1 << 1) | (1 << 3) | (1 << 5)
/** blkid_do_safeprobe(). */
const nothing = 1
const ambivalent = -2

let opened = false

function openLibraries(): void {
  if (opened) return
  open({ library, path: 'libblkid.so.1' })
  open({ library: libc, path: 'libc.so.6' })
  opened = true
}

/** @throws StorageError PROBE_FAILED */
function probe(path: string): Content | undefined {
  try {
    openLibraries()
  } catch (cause) {
    throw failed(path, 'Install libblkid: apt-get install -y libblkid1', cause)
  }
  const handle = load({
    library,
    funcName: 'blkid_new_probe_from_filename',
    retType: DataType.External,
    paramsType: [DataType.String],
    paramsValue: [path],
  })
  if (isNullPointer(handle)) throw failed(path, 'Check the path and that it can be read.')
  try {
    number(handle, 'blkid_probe_enable_superblocks', 1)
    number(handle, 'blkid_probe_set_superblocks_flags', superblockFlags)
    number(handle, 'blkid_probe_enable_partitions', 1)
    const result = number(handle, 'blkid_do_safeprobe')
    if (result === nothing) return undefined
    if (result === ambivalent) return { description: 'signatures of several file systems or partition tables' }
    if (result < 0) throw failed(path, "It could not be read: look at the kernel's log (dmesg).")
    return content(handle)
  } finally {
    load({
      library,
      funcName: 'blkid_free_probe',
      retType: DataType.Void,
      paramsType: [DataType.External],
      paramsValue: [handle],
    })
  }
}

function content(handle: JsExternal): Content | undefined {
  const type = value(handle, 'TYPE')
  const partitionTable = value(handle, 'PTTYPE')
  const label = value(handle, 'LABEL')
  const uuid = value(handle, 'UUID')
  const parts = [
    type !== undefined && `${type} data`,
    partitionTable !== undefined && `a ${partitionTable} partition table`,
    label !== undefined && `the label ${JSON.stringify(label)}`,
  ].filter((part) => part !== false)
  if (type === undefined && partitionTable === undefined) return undefined
  return {
    ...(type !== undefined && { type }),
    ...(partitionTable !== undefined && { partitionTable }),
    ...(label !== undefined && { label }),
    ...(uuid !== undefined && { uuid }),
    description: parts.join(' and '),
  }
}

function number(handle: JsExternal, funcName: string, ...given: number[]): number {
  return load({
    library,
    funcName,
    retType: DataType.I32,
    paramsType: [DataType.External, ...given.map(() => DataType.I32)],
    paramsValue: [handle, ...given],
  })
}

/** A string the probe found. libblkid answers with a pointer into its own memory: copied before the probe is freed. */
function value(handle: JsExternal, name: string): string | undefined {
  const pointer = Buffer.alloc(8)
  const length = Buffer.alloc(8)
  const found = load({
    library,
    funcName: 'blkid_probe_lookup_value',
    retType: DataType.I32,
    paramsType: [DataType.External, DataType.String, DataType.U8Array, DataType.U8Array],
    paramsValue: [handle, name, pointer, length],
  })
  if (found !== 0 || pointer.readBigUInt64LE() === 0n) return undefined
  const text = Buffer.alloc(longestValue)
  const bytes = Number(length.readBigUInt64LE())
  load({
    library: libc,
    funcName: 'memcpy',
    retType: DataType.Void,
    paramsType: [DataType.U8Array, DataType.BigInt, DataType.BigInt],
    paramsValue: [text, pointer.readBigInt64LE(), BigInt(Math.min(bytes, longestValue))],
  })
  const end = text.indexOf(0)
  return text.toString('utf8', 0, end < 0 ? longestValue : end)
}

function failed(path: string, hint: string, cause?: unknown): StorageError {
  return new StorageError('PROBE_FAILED', { op: 'probe', object: path, hint, cause })
}

serveCalls({ probe })
