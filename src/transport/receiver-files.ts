/**
 * The files behind the https receiver: `<inbox>/<pairing>/<folder>/<name>`. Whoever calls has been authenticated and the
 * path has been checked; a link in the inbox is never followed all the same.
 */
import type { FileHandle } from 'node:fs/promises'
import { crc32c } from '../block/crc32c.js'
import { errnoOf } from '../block/storage-error.js'
import { type AnchoredFolder, inFolder } from './anchored-folder.js'
import type { ResourcePath, UploadRange } from './https-protocol.js'
import { TEST_FOLDER } from './remote-name.js'
import { type RemoteFile, TEMPORARY_SUFFIX } from './transport.js'

const GATHER_BYTES = 512 * 1024
const CHECKSUM_CHUNK_BYTES = 1024 * 1024

/** The request is answered by this status and nothing was changed that a later request would not mend. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message)
  }
}

export interface FilePath extends ResourcePath {
  readonly name: string
}

export class ReceiverFiles {
  readonly #inbox: string

  constructor(inbox: string) {
    this.#inbox = inbox
  }

  async list(path: ResourcePath): Promise<RemoteFile[]> {
    return (await this.#in(path, false, (folder) => folder.list())) ?? []
  }

  async open({ name, ...path }: FilePath): Promise<{ handle: FileHandle; lengthBytes: number } | undefined> {
    return this.#in(path, false, (folder) => folder.openFile(name, 'read'))
  }

  async remove({ name, ...path }: FilePath): Promise<void> {
    await this.#in(path, false, async (folder, pair) => {
      await folder.remove(name)
      if (path.folder === TEST_FOLDER) await pair.removeFolder(path.folder)
    })
  }

  /** What an interrupted upload left. */
  async partial({ name, ...path }: FilePath): Promise<{ lengthBytes: number; checksum: number } | undefined> {
    return this.#in(path, false, async (folder) => {
      const file = await folder.openFile(name + TEMPORARY_SUFFIX, 'read')
      if (!file) return undefined
      try {
        return { lengthBytes: file.lengthBytes, checksum: await checksum(file.handle, file.lengthBytes) }
      } finally {
        await file.handle.close()
      }
    })
  }

  /**
   * Take the body of a PUT. Its file is durable under its name when this resolves. When it rejects, what arrived stays
   * as a partial file for the next try, except on a full disk.
   *
   * @param onChunk called for each chunk that was written
   */
  async store(path: FilePath, range: UploadRange, body: AsyncIterable<Buffer>, onChunk: () => void): Promise<void> {
    const { name, ...parent } = path
    const temporary = name + TEMPORARY_SUFFIX
    await this.#in(parent, true, async (folder) => {
      const target = range.start === 0 ? await folder.createFile(temporary) : await resumable(folder, temporary, range)
      try {
        const end = await receive(target, range.start, body, onChunk)
        if (end !== range.total) throw new Refusal(400, `the body ended at ${end} of ${range.total} bytes`)
        await target.sync()
      } catch (error) {
        if (['ENOSPC', 'EDQUOT'].includes(errnoOf(error) ?? '')) await folder.remove(temporary).catch(() => undefined)
        throw error
      } finally {
        await target.close()
      }
      await folder.rename(temporary, name)
      await folder.sync()
    })
  }

  #in<T>(path: ResourcePath, create: boolean, work: (folder: AnchoredFolder, pair: AnchoredFolder) => Promise<T>) {
    return inFolder(this.#inbox, path.pairing, path.folder, create, work)
  }
}

async function resumable(folder: AnchoredFolder, name: string, range: UploadRange): Promise<FileHandle> {
  const file = await folder.openFile(name, 'write')
  if (file?.lengthBytes === range.start) return file.handle
  await file?.handle.close()
  throw new Refusal(409, `there are ${file?.lengthBytes ?? 0} bytes, not ${range.start}`)
}

/** Write the body from `start` on; resolves to where it ended. What came before an error is written too. */
async function receive(target: FileHandle, start: number, body: AsyncIterable<Buffer>, onChunk: () => void) {
  let offset = start
  let gathered: Buffer[] = []
  let gatheredBytes = 0
  const flush = async (): Promise<void> => {
    let rest = gathered
    gathered = []
    gatheredBytes = 0
    while (rest.length > 0) {
      const { bytesWritten } = await target.writev(rest, offset)
      offset += bytesWritten
      const lengthBytes = rest.reduce((sum, chunk) => sum + chunk.length, 0)
      rest = bytesWritten < lengthBytes ? [Buffer.concat(rest).subarray(bytesWritten)] : []
    }
  }
  try {
    // A TLS record is 16 KiB at the most; a write for each would be most of the work.
    for await (const chunk of body) {
      gathered.push(chunk)
      gatheredBytes += chunk.length
      if (gatheredBytes >= GATHER_BYTES) await flush()
      onChunk()
    }
  } finally {
    await flush()
  }
  return offset
}

async function checksum(handle: FileHandle, lengthBytes: number): Promise<number> {
  const chunk = Buffer.allocUnsafe(Math.min(CHECKSUM_CHUNK_BYTES, lengthBytes))
  let sum = 0
  for (let offset = 0; offset < lengthBytes; ) {
    const { bytesRead } = await handle.read(chunk, 0, Math.min(chunk.length, lengthBytes - offset), offset)
    if (bytesRead === 0) break
    sum = crc32c(chunk.subarray(0, bytesRead), sum)
    offset += bytesRead
  }
  return sum
}
