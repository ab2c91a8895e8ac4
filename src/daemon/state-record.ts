import { crc32c } from '../block/crc32c.js'
import { StorageError } from '../block/storage-error.js'

/** FORMAT.md in this folder. */
export const STATE_VERSION = 1
export const recordHeadBytes = 32
const magic = Buffer.from('TMST')
const copyMagic = Buffer.from('TMSC')
/** A copy begins at a multiple of this: no block of the disk has a part of both. */
const copyAlignBytes = 4096
const fields = { magic: 0, checksum: 4, generation: 8, sequence: 16, version: 24, textBytes: 28 } as const

/** Key and value as JSON; a key alone: it is gone. In order. */
export type StateChange = readonly [key: string, json: string] | readonly [key: string]

interface StateRecord {
  readonly generation: bigint
  readonly sequence: bigint
  readonly text: string
  readonly at: number
  readonly end: number
}

/** What a file of the state holds. */
export interface StateImage {
  /** Which of the files. */
  readonly file: number
  readonly generation: bigint
  /** Of the next record. */
  readonly sequence: bigint
  /** Where the next record goes. */
  readonly tail: number
  /** Values as JSON. */
  readonly entries: Map<string, string>
  /** Records that only a copy was left of: they belong there. */
  readonly mended: readonly { readonly at: number; readonly record: Buffer }[]
}

export function encodeStateRecord(generation: bigint, sequence: bigint, changes: Iterable<StateChange>): Buffer {
  const items = Array.from(changes, ([key, json]) => {
    const name = JSON.stringify(key)
    return json === undefined ? `[${name}]` : `[${name},${json}]`
  })
  const text = Buffer.from(`[${items.join(',')}]`)
  const record = Buffer.alloc(recordHeadBytes + text.length)
  magic.copy(record, fields.magic)
  record.writeBigUInt64LE(generation, fields.generation)
  record.writeBigUInt64LE(sequence, fields.sequence)
  record.writeUInt32LE(STATE_VERSION, fields.version)
  record.writeUInt32LE(text.length, fields.textBytes)
  text.copy(record, recordHeadBytes)
  record.writeUInt32LE(crc32c(record.subarray(fields.generation)), fields.checksum)
  return record
}

/** Where the copy of a record lies that ends there. */
export function placeOfCopy(end: number): number {
  return Math.ceil(end / copyAlignBytes) * copyAlignBytes
}

/** The same under a magic that is not looked for where records are. */
export function copyOfRecord(record: Buffer): Buffer {
  const copy = Buffer.from(record)
  copyMagic.copy(copy, fields.magic)
  return copy
}

/**
 * The state that the files hold, whatever moment a crash or a power cut left them at; undefined when nothing was ever
 * recorded in them.
 *
 * @throws StorageError STATE_DAMAGED: what was recorded later is there and what comes before it is not, so that an older
 *   state would be taken for the last one; STATE_TOO_NEW
 */
export function readState(files: readonly Buffer[], object: string): StateImage | undefined {
  let newest: { file: number; generation: bigint } | undefined
  for (const [file, bytes] of files.entries()) {
    for (const kind of [magic, copyMagic]) {
      for (const { generation } of recordsFrom(bytes, 0, object, kind))
        if (!newest || generation > newest.generation) newest = { file, generation }
    }
  }
  if (!newest) {
    if (files.some((bytes) => bytes.some((byte) => byte !== 0))) throw damaged(object)
    return undefined
  }
  const { file, generation } = newest
  const bytes = files[file]!
  const copies = [...recordsFrom(bytes, 0, object, copyMagic)].filter((copy) => copy.generation === generation)
  const entries = new Map<string, string>()
  const mended: { at: number; record: Buffer }[] = []
  let [tail, sequence] = [0, 0n]
  for (;;) {
    const found = recordAt(bytes, tail, object, magic)
    const isNext = found?.generation === generation && found.sequence === sequence
    const record = isNext ? found : copies.find((copy) => copy.sequence === sequence && isCopyOf(copy, tail))
    if (!record) break
    if (!isNext) mended.push({ at: tail, record: recordOfCopy(bytes.subarray(record.at, record.end)) })
    applyChanges(entries, changesOf(record.text, object))
    tail += record.end - record.at
    sequence += 1n
  }
  for (const later of recordsFrom(bytes, tail, object, magic))
    if (later.generation === generation) throw damaged(object)
  if (copies.some((copy) => copy.sequence >= sequence)) throw damaged(object)
  return { file, generation, sequence, tail, entries, mended }
}

/** Of a record that begins there. */
function isCopyOf({ at, end }: StateRecord, recordAt: number): boolean {
  return at === placeOfCopy(recordAt + end - at)
}

function recordOfCopy(copy: Buffer): Buffer {
  const record = Buffer.from(copy)
  magic.copy(record, fields.magic)
  return record
}

export function applyChanges(entries: Map<string, string>, changes: Iterable<StateChange>): void {
  for (const [key, json] of changes) {
    if (json === undefined) entries.delete(key)
    else entries.set(key, json)
  }
}

/** Whatever is whole, wherever it begins. */
function* recordsFrom(bytes: Buffer, from: number, object: string, kind: Buffer): Generator<StateRecord> {
  for (let at = bytes.indexOf(kind, from); at >= 0; at = bytes.indexOf(kind, from)) {
    const record = recordAt(bytes, at, object, kind)
    if (record) yield record
    from = record?.end ?? at + 1
  }
}

function recordAt(bytes: Buffer, at: number, object: string, kind: Buffer): StateRecord | undefined {
  if (at + recordHeadBytes > bytes.length || bytes.compare(kind, 0, kind.length, at, at + kind.length) !== 0) return
  const end = at + recordHeadBytes + bytes.readUInt32LE(at + fields.textBytes)
  if (end > bytes.length) return
  if (crc32c(bytes.subarray(at + fields.generation, end)) !== bytes.readUInt32LE(at + fields.checksum)) return
  const version = bytes.readUInt32LE(at + fields.version)
  if (version !== STATE_VERSION) {
    const hint = `It is of version ${version}, and this agent reads ${STATE_VERSION}. Run the newer agent.`
    throw new StorageError('STATE_TOO_NEW', { op: 'read', object, hint })
  }
  const generation = bytes.readBigUInt64LE(at + fields.generation)
  const sequence = bytes.readBigUInt64LE(at + fields.sequence)
  return { generation, sequence, text: bytes.toString('utf8', at + recordHeadBytes, end), at, end }
}

function changesOf(text: string, object: string): StateChange[] {
  let items: unknown
  try {
    items = JSON.parse(text)
  } catch {
    throw damaged(object)
  }
  if (!Array.isArray(items)) throw damaged(object)
  return items.map((item: unknown): StateChange => {
    if (!Array.isArray(item) || typeof item[0] !== 'string' || item.length > 2) throw damaged(object)
    return item.length === 1 ? [item[0]] : [item[0], JSON.stringify(item[1])]
  })
}

function damaged(object: string): StorageError {
  return new StorageError('STATE_DAMAGED', {
    op: 'read',
    object,
    hint: 'A part of what the agent recorded last is lost: its disk has changed it. Restore the state directory from a copy of now, or begin with an empty one: adopt the volumes again and initialise their streams.',
  })
}
