import { closeSync, constants, fstatSync, openSync, readdirSync, readSync } from 'node:fs'
import path from 'node:path'
import { errnoOf, StorageError } from '../block/storage-error.js'
import { type Lsn, lsn, safeNumber } from '../block/units.js'
import { decodeSegmentHeader, SEGMENT_HEADER_BYTES, SEGMENT_VERSION, type SegmentHeader } from './format.js'

export interface SegmentName {
  readonly path: string
  readonly baseLsn: Lsn
}

/** The segments of a journal in LSN order; spares and half-made ones are none. @throws StorageError JOURNAL_MISSING */
export function journalSegments(directory: string): SegmentName[] {
  let names: string[]
  try {
    names = readdirSync(directory)
  } catch (cause) {
    throw unreadable(directory, cause)
  }
  return names
    .filter((name) => /^[0-9a-f]{16}\.seg$/.test(name))
    .sort()
    .map((name) => ({ path: path.join(directory, name), baseLsn: lsn(BigInt(`0x${name.slice(0, 16)}`)) }))
}

export function segmentPath(directory: string, baseLsn: number): string {
  return path.join(directory, `${baseLsn.toString(16).padStart(16, '0')}.seg`)
}

/** One open segment whose header was found sound. */
export class SegmentFile {
  private constructor(
    readonly path: string,
    readonly fd: number,
    readonly header: SegmentHeader,
    readonly baseLsn: number,
    readonly segmentBytes: number,
  ) {}

  /**
   * Any segment file, whatever journal it belongs to. It may be shorter than its header says; what is missing is then
   * missed by read().
   *
   * @throws StorageError NOT_FOUND, NOT_A_SEGMENT, JOURNAL_UNREADABLE
   */
  static openAny(file: string): SegmentFile {
    const opened = open(file, false)
    if (!opened) {
      throw new StorageError('NOT_FOUND', { op: 'inspect', object: file, hint: 'Check the path.' })
    }
    if (!opened.header || !isPossible(opened.header)) {
      closeSync(opened.fd)
      throw new StorageError('NOT_A_SEGMENT', {
        op: 'inspect',
        object: file,
        hint: 'The file has no valid journal segment header: it is something else, or its first bytes are damaged.',
      })
    }
    return SegmentFile.#of(file, opened.fd, opened.header)
  }

  /**
   * A segment of this journal; undefined when there is no such file.
   *
   * @throws StorageError JOURNAL_DAMAGED (no header, another length), FOREIGN_SEGMENT (another journal, place, size or
   * version), JOURNAL_UNREADABLE
   */
  static open(
    directory: string,
    baseLsn: number,
    expected: { journalId: Uint8Array; segmentBytes: number; writable?: boolean },
  ): SegmentFile | undefined {
    const file = segmentPath(directory, baseLsn)
    const opened = open(file, expected.writable ?? false)
    if (!opened) return undefined
    try {
      const { header, lengthBytes } = opened
      if (!header) throw damaged(file, 'the segment has no valid header')
      const own =
        header.version === SEGMENT_VERSION &&
        header.headerLength === SEGMENT_HEADER_BYTES &&
        header.baseLsn === BigInt(baseLsn) &&
        header.journalId.equals(expected.journalId) &&
        header.segmentBytes === BigInt(expected.segmentBytes)
      if (!own) {
        throw new StorageError('FOREIGN_SEGMENT', {
          op: 'journal read',
          object: file,
          hint: 'The segment belongs to another journal, place or version. Put the journal’s own files back.',
        })
      }
      if (lengthBytes !== expected.segmentBytes) throw damaged(file, `the segment has ${lengthBytes} bytes`)
      return SegmentFile.#of(file, opened.fd, header)
    } catch (error) {
      closeSync(opened.fd)
      throw error
    }
  }

  static #of(file: string, fd: number, header: SegmentHeader): SegmentFile {
    return new SegmentFile(file, fd, header, safeNumber(header.baseLsn), safeNumber(header.segmentBytes))
  }

  /** Fill `target` from `position`; the bytes that were there, fewer only at the end of a cut file. */
  read(position: number, target: Buffer): number {
    try {
      let done = 0
      while (done < target.length) {
        const got = readSync(this.fd, target, done, target.length - done, position + done)
        if (got === 0) break
        done += got
      }
      return done
    } catch (cause) {
      throw unreadable(this.path, cause)
    }
  }

  close(): void {
    closeSync(this.fd)
  }
}

/** Whoever writes a header can write its checksum: only of a segment that some journal could have. */
function isPossible({ baseLsn, segmentBytes }: SegmentHeader): boolean {
  const end = baseLsn + segmentBytes
  return segmentBytes >= SEGMENT_HEADER_BYTES && end <= Number.MAX_SAFE_INTEGER && baseLsn % segmentBytes === 0n
}

function open(
  file: string,
  writable: boolean,
): { fd: number; header: SegmentHeader | undefined; lengthBytes: number } | undefined {
  let fd: number
  try {
    fd = openSync(file, (writable ? constants.O_RDWR : constants.O_RDONLY) | constants.O_NOFOLLOW)
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return undefined
    throw unreadable(file, cause)
  }
  try {
    const lengthBytes = fstatSync(fd).size
    const bytes = Buffer.alloc(SEGMENT_HEADER_BYTES)
    readSync(fd, bytes, 0, bytes.length, 0)
    return { fd, header: decodeSegmentHeader(bytes), lengthBytes }
  } catch (cause) {
    closeSync(fd)
    throw unreadable(file, cause)
  }
}

export function damaged(object: string, what: string): StorageError {
  return new StorageError('JOURNAL_DAMAGED', {
    op: 'journal read',
    object,
    cause: what,
    hint: 'The disk gave back other bytes than were written, or somebody changed the file. Check the disk; then initialize the stream again.',
  })
}

export function missing(object: string): StorageError {
  return new StorageError('JOURNAL_MISSING', {
    op: 'journal read',
    object,
    hint: 'A segment the journal needs is gone. Put it back, or mount the disk it lies on; then: tidemark stream resume NAME.',
  })
}

function unreadable(object: string, cause: unknown): StorageError {
  if (errnoOf(cause) === 'ENOENT') return missing(object)
  return new StorageError('JOURNAL_UNREADABLE', {
    op: 'journal read',
    object,
    cause,
    retry: 'later',
    hint: 'The journal’s disk cannot be read now. Check the disk and the rights of the folder.',
  })
}
