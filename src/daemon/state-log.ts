import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import path from 'node:path'
import { assertCommitted, syncDirectory } from '../block/durable-file.js'
import type { StateStore } from '../block/state-store.js'
import { StorageError } from '../block/storage-error.js'
import { KiB, MiB } from '../block/units.js'
import {
  applyChanges,
  copyOfRecord,
  encodeStateRecord,
  placeOfCopy,
  readState,
  type StateChange,
  type StateImage,
} from './state-record.js'

const names = ['state.0', 'state.1'] as const
/** Of each file, at the least: a power of two. */
const leastRoomBytes = 1 * MiB
/** A file has room for so many times what is in it when it is begun. */
const roomFactor = 4
const zeros = Buffer.alloc(256 * KiB)
/** Neither is the end of anything: there will be room. */
const fullCodes: readonly unknown[] = ['ENOSPC', 'EDQUOT']

interface Waiting {
  readonly changes: readonly StateChange[]
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

/**
 * The agent's own state: in memory, and as a log in two files that take turns. The one in use is appended to; when it is
 * full everything is written to the other one, which is in use from then on. Both have their room in advance, so
 * that a full disk keeps nothing from being recorded as long as the state itself does not grow by much.
 *
 * What put() and remove() throw is a StorageError STATE_UNAVAILABLE, to be tried again later: nothing has changed then, nor will
 * it after a crash. Where that cannot be said, after any other error and any failed sync, they never answer, and
 * STATE_FAILED is thrown where nobody catches it: what is on the disk decides, and the next agent reads it.
 */
export class StateLog implements StateStore {
  readonly #directory: string
  readonly #files: readonly FileHandle[]
  /** Of each file. */
  readonly #roomBytes: number[]
  readonly #entries: Map<string, string>
  #file: number
  #generation: bigint
  #sequence: bigint
  #tail: number
  #waiting: Waiting[] = []
  #committing: Promise<void> | undefined

  /** @throws StorageError STATE_DAMAGED, STATE_TOO_NEW, STATE_UNAVAILABLE, and what the disk says */
  static async open(directory: string): Promise<StateLog> {
    const files: FileHandle[] = []
    try {
      const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants
      for (const name of names) {
        files.push(await open(path.join(directory, name), O_RDWR | O_CREAT | O_NOFOLLOW, 0o600))
      }
      const contents = await Promise.all(files.map((file) => file.readFile()))
      const image = readState(contents, directory)
      const roomBytes = contents.map(({ length }) => length)
      const log = new StateLog(directory, files, roomBytes, image)
      if (image) {
        for (const { at, record } of image.mended) await writeWhole(files[image.file]!, record, at)
        // An agent that was killed may have left in the page cache alone what is relied on from here.
        await files[image.file]!.datasync()
        await assertCommitted(files[image.file]!, directory)
        await log.#grow(1 - image.file, roomBytes[image.file]!)
      } else {
        await log.#begin(0, [])
        await syncDirectory(directory)
      }
      return log
    } catch (error) {
      for (const file of files) await file.close()
      throw error instanceof StorageError ? error : unavailable(directory, error)
    }
  }

  private constructor(
    directory: string,
    files: readonly FileHandle[],
    roomBytes: number[],
    image: StateImage | undefined,
  ) {
    this.#directory = directory
    this.#files = files
    this.#roomBytes = roomBytes
    this.#entries = image?.entries ?? new Map()
    this.#file = image?.file ?? 0
    this.#generation = image?.generation ?? 0n
    this.#sequence = image?.sequence ?? 0n
    this.#tail = image?.tail ?? 0
  }

  get<T>(key: string): T | undefined {
    const json = this.#entries.get(key)
    return json === undefined ? undefined : (JSON.parse(json) as T)
  }

  list<T>(prefix: string): { key: string; value: T }[] {
    return [...this.#entries]
      .filter(([key]) => key.startsWith(prefix))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, json]) => ({ key, value: JSON.parse(json) as T }))
  }

  put(entries: Record<string, unknown>): Promise<void> {
    return this.#change(Object.entries(entries).map(([key, value]) => [key, JSON.stringify(value)]))
  }

  remove(keys: readonly string[]): Promise<void> {
    return this.#change(keys.map((key) => [key]))
  }

  /** After what is under way. */
  async close(): Promise<void> {
    await this.#committing
    for (const file of this.#files) await file.close()
  }

  /** What comes while a commit is under way makes the next one together. */
  #change(changes: readonly StateChange[]): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ changes, resolve, reject })
      this.#committing ??= this.#commitAll()
    })
  }

  async #commitAll(): Promise<void> {
    while (this.#waiting.length > 0) {
      const all = this.#waiting
      this.#waiting = []
      const changes = all.flatMap((each) => each.changes)
      const error = await this.#commit(changes).then(() => undefined, failureOf)
      if (!error) applyChanges(this.#entries, changes)
      for (const { resolve, reject } of all) error ? reject(unavailable(this.#directory, error)) : resolve()
    }
    this.#committing = undefined
  }

  async #commit(changes: readonly StateChange[]): Promise<void> {
    const record = encodeStateRecord(this.#generation, this.#sequence, changes)
    const copyEnd = placeOfCopy(this.#tail + record.length) + record.length
    if (copyEnd > this.#roomBytes[this.#file]!) return this.#begin(1 - this.#file, changes)
    await this.#write(this.#file, record, this.#tail)
    this.#tail += record.length
    this.#sequence += 1n
  }

  /** Everything, and these changes, in this file. Until it is durable the other one counts. */
  async #begin(file: number, changes: readonly StateChange[]): Promise<void> {
    const entries = new Map(this.#entries)
    applyChanges(entries, changes)
    const record = encodeStateRecord(this.#generation + 1n, 0n, entries)
    const roomBytes = Math.max(leastRoomBytes, powerOfTwoFrom(record.length * roomFactor))
    const lacking = await this.#grow(file, roomBytes)
    if (lacking && record.length > this.#roomBytes[file]!) throw lacking
    // For its turn: the disk may be full by then.
    await this.#grow(1 - file, roomBytes)
    await this.#write(file, record, 0)
    await assertCommitted(this.#files[file]!, this.#directory).catch(neverAnswer)
    this.#file = file
    this.#generation += 1n
    this.#tail = record.length
    this.#sequence = 1n
  }

  /** @returns why it has less than that, if it has */
  async #grow(file: number, toBytes: number): Promise<unknown> {
    try {
      for (let at = this.#roomBytes[file]!; at < toBytes; at = this.#roomBytes[file]!) {
        const length = Math.min(zeros.length, toBytes - at)
        await writeWhole(this.#files[file]!, zeros.subarray(0, length), at)
        this.#roomBytes[file] = at + length
      }
      return undefined
    } catch (error) {
      return failureOf(error)
    }
  }

  /**
   * Durably, and with a copy where there is room. What fails before the sync is no whole record, and the next one takes its
   * place; so the copy comes second, and when there is no space for it, this one has none.
   */
  async #write(file: number, record: Buffer, at: number): Promise<void> {
    await writeWhole(this.#files[file]!, record, at)
    const copyAt = placeOfCopy(at + record.length)
    if (copyAt + record.length <= this.#roomBytes[file]!)
      await writeWhole(this.#files[file]!, copyOfRecord(record), copyAt).catch(failureOf)
    await this.#files[file]!.datasync().catch(neverAnswer)
  }
}

async function writeWhole(file: FileHandle, bytes: Buffer, at: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, at + done)
    done += bytesWritten
  }
}

/** @returns the error, when it is one that passes */
function failureOf(error: unknown): unknown {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return fullCodes.includes(code) ? error : neverAnswer(error)
}

function neverAnswer(cause: unknown): Promise<never> {
  setImmediate(() => {
    throw new StorageError('STATE_FAILED', {
      op: 'record',
      object: 'the state of the agent',
      cause,
      hint: 'Nothing that was to be recorded counts. Mend the file system of the state directory (see dmesg); the next agent goes on from what is there.',
    })
  })
  return new Promise(() => undefined)
}

function powerOfTwoFrom(bytes: number): number {
  return 2 ** Math.ceil(Math.log2(bytes))
}

function unavailable(directory: string, cause: unknown): StorageError {
  return new StorageError('STATE_UNAVAILABLE', {
    op: 'record',
    object: directory,
    cause,
    retry: 'later',
    hint: 'Free space on the file system of the state directory, and check it; this is tried again.',
  })
}
