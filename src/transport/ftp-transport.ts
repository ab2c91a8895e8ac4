import { Readable } from 'node:stream'
import { NO_RETRY, RETRY_LIMITS, type RetryLimits } from './backoff.js'
import { asLinkDown, transferFault } from './faults.js'
import { FtpRefusal } from './ftp-faults.js'
import { FTP_TIMEOUTS, FtpPool, type FtpTimeouts } from './ftp-pool.js'
import type { FtpSession } from './ftp-session.js'
import { describeEndpoint, type FtpEndpoint } from './pairing.js'
import { checkRemoteName, TEST_FOLDER } from './remote-name.js'
import { SourceFile } from './source-file.js'
import { TEMPORARY_SUFFIX, type TransferOptions, type Transport } from './transport.js'
import { testTransport } from './transport-test.js'

/** A shorter file is sent without asking first whether a part of it is there already. */
const RESUME_FROM_BYTES = 256 * 1024
/** The end of a part is read back and compared before it is gone on with. */
const TAIL_BYTES = 64 * 1024
/**
 * A server that cannot write closes the data connection, and its reason is lost with it. So when a try got no further
 * than the one before, so little is sent first that the server has read it all before it fails: then its reply arrives.
 */
const PIECE_BYTES = 8192
const KNOWN_FOLDER_LIMIT = 4096

export interface FtpTransportOptions {
  readonly retry?: RetryLimits
  readonly timeouts?: Partial<FtpTimeouts>
}

/** How far the tries of one put have come. */
interface Reach {
  bytes: number
  attempts: number
}

/** Files in a directory of an FTP server. The directory itself is never made; what is inside is. */
export function ftpTransport(endpoint: FtpEndpoint, pairingId: Buffer, options: FtpTransportOptions = {}): Transport {
  const pairing = pairingId.toString('hex')
  const timeouts = { ...FTP_TIMEOUTS, ...options.timeouts }
  const pool = new FtpPool(endpoint, options.retry ?? RETRY_LIMITS, timeouts)
  return {
    ...callsOf(pool, pairing),
    async test(signal) {
      // Connections of its own: one that was lost unnoticed must not be the answer.
      const trial = new FtpPool(endpoint, NO_RETRY, timeouts)
      try {
        return await testTransport(callsOf(trial, pairing), describeEndpoint(endpoint), signal)
      } finally {
        trial.close()
      }
    },
    close: async () => pool.close(),
  }
}

function callsOf(pool: FtpPool, pairing: string): Omit<Transport, 'test' | 'close'> {
  const known = new Set<string>()
  const placeOf = (session: FtpSession, folder: string): string => `${session.base}/${pairing}/${folder}`

  async function run<T>(
    op: string,
    object: string,
    key: string | undefined,
    signal: AbortSignal,
    work: (session: FtpSession, progress: () => void) => Promise<T>,
  ): Promise<T> {
    try {
      return await pool.run(op, `${pairing}/${object}`, key, signal, work)
    } catch (error) {
      throw asLinkDown(error)
    }
  }

  return {
    async put(folder, name, localPath, options) {
      checkRemoteName('put', folder, name)
      const source = await SourceFile.open(localPath)
      const reach: Reach = { bytes: 0, attempts: 0 }
      try {
        await run('put', `${folder}/${name}`, `${folder}/${name}`, options.signal, async (session, progress) => {
          const place = placeOf(session, folder)
          try {
            if (!known.has(folder)) await makePlace(session, pairing, folder, pool, options.signal)
            if (known.size >= KNOWN_FOLDER_LIMIT) known.clear()
            known.add(folder)
            await upload(session, `${place}/${name}`, source, options, reach, progress)
          } catch (error) {
            // A refused upload may look like a lost connection; making the folder again tells what is wrong.
            known.delete(folder)
            throw error
          }
        })
      } finally {
        await source.close()
      }
    },

    async list(folder, signal) {
      checkRemoteName('list', folder)
      return run('list', folder, undefined, signal, async (session) => {
        return (await unlessRefused(session.list(placeOf(session, folder), signal))) ?? []
      })
    },

    async read(folder, name, limitBytes, signal) {
      checkRemoteName('read', folder, name)
      return run('read', `${folder}/${name}`, undefined, signal, async (session) => {
        const file = `${placeOf(session, folder)}/${name}`
        const size = await session.size(file, signal)
        if (size === undefined) return undefined
        if (size > limitBytes) throw transferFault('REMOTE_FILE_TOO_LARGE', 'read', pool.describe(name))
        return session.download(file, 0, limitBytes, signal)
      })
    },

    async remove(folder, name, signal) {
      checkRemoteName('remove', folder, name)
      await run('remove', `${folder}/${name}`, undefined, signal, async (session) => {
        const place = placeOf(session, folder)
        try {
          await session.remove(`${place}/${name}`, signal)
        } catch (error) {
          if (!(error instanceof FtpRefusal) || (await session.size(`${place}/${name}`, signal)) !== undefined)
            throw error
        }
        if (folder !== TEST_FOLDER) return
        known.delete(folder)
        await unlessRefused(session.removeDirectory(place, signal))
      })
    },
  }
}

async function makePlace(
  session: FtpSession,
  pairing: string,
  folder: string,
  pool: FtpPool,
  signal: AbortSignal,
): Promise<void> {
  try {
    await session.enter(session.base, signal)
  } catch (error) {
    if (!(error instanceof FtpRefusal)) throw error
    throw transferFault('NOT_FOUND', 'enter', pool.describe(''), error)
  }
  for (const place of [`${session.base}/${pairing}`, `${session.base}/${pairing}/${folder}`]) {
    try {
      await session.enter(place, signal)
    } catch (missing) {
      if (!(missing instanceof FtpRefusal)) throw missing
      await session.makeDirectory(place, signal).catch(async (refused: unknown) => {
        // Another upload may have made it in between.
        if (refused instanceof FtpRefusal) await session.enter(place, signal).catch(() => Promise.reject(refused))
        else throw refused
      })
    }
  }
}

/**
 * 1. find what is there of it already; 2. send the rest; 3. ask the length, since a server may say done and hold less;
 * 4. rename. Without 3 a short file would get the name of a whole one.
 */
async function upload(
  session: FtpSession,
  file: string,
  source: SourceFile,
  { signal, onProgress }: TransferOptions,
  reach: Reach,
  progress: () => void,
): Promise<void> {
  const total = source.lengthBytes
  const temporary = file + TEMPORARY_SUFFIX
  const start = total >= RESUME_FROM_BYTES ? await resumePoint(session, temporary, source, signal) : 0
  const isStuck = reach.attempts > 0 && start <= reach.bytes
  if (start > reach.bytes) progress()
  reach.bytes = Math.max(reach.bytes, start)
  reach.attempts++
  const send = (from: number, to: number): Promise<void> => {
    const counted = countedBytes(source.read(from, to, signal), onProgress)
    return session.upload(temporary, Readable.from(counted, { objectMode: false, highWaterMark: 1 }), from, signal)
  }
  try {
    let from = start
    if (isStuck && total - start > PIECE_BYTES) {
      await send(start, start + PIECE_BYTES)
      from = start + PIECE_BYTES
    }
    if (from < total || total === 0) {
      // A server without REST for uploads gets the whole file.
      await send(from, total).catch((error: unknown) =>
        isUnknownCommand(error) ? send(0, total) : Promise.reject(error),
      )
    }
  } catch (error) {
    if (error instanceof FtpRefusal && error.code === 451) throw transferFault('REMOTE_FULL', 'put', file, error)
    throw error
  }
  const arrived = await session.size(temporary, signal)
  if (arrived !== total) {
    throw transferFault('LINK_DOWN', 'put', file, `${arrived ?? 'none'} of ${total} bytes arrived`)
  }
  await replace(session, temporary, file, signal)
}

async function resumePoint(
  session: FtpSession,
  temporary: string,
  source: SourceFile,
  signal: AbortSignal,
): Promise<number> {
  const there = (await session.size(temporary, signal)) ?? 0
  if (there === 0 || there > source.lengthBytes) return 0
  const from = Math.max(0, there - TAIL_BYTES)
  // It may still grow: the server may not have noticed yet that the connection before this one was cut.
  const tail = await unlessRefused(session.download(temporary, from, source.lengthBytes, signal))
  const own: Buffer[] = []
  for await (const chunk of source.read(from, there, signal)) own.push(chunk)
  return tail && Buffer.concat(own).equals(tail.subarray(0, there - from)) ? there : 0
}

async function replace(session: FtpSession, from: string, to: string, signal: AbortSignal): Promise<void> {
  try {
    await session.rename(from, to, signal)
  } catch (error) {
    if (!(error instanceof FtpRefusal) || (await session.size(to, signal)) === undefined) throw error
    // This server does not rename over a file. For a moment there is none of that name, which readers can bear.
    await session.remove(to, signal)
    await session.rename(from, to, signal)
  }
}

async function* countedBytes(
  chunks: AsyncIterable<Buffer>,
  onProgress?: (bytes: number) => void,
): AsyncGenerator<Buffer> {
  for await (const chunk of chunks) {
    yield chunk
    onProgress?.(chunk.length)
  }
}

async function unlessRefused<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work
  } catch (error) {
    if (error instanceof FtpRefusal) return undefined
    throw error
  }
}

function isUnknownCommand(error: unknown): boolean {
  return error instanceof FtpRefusal && [500, 501, 502, 503, 504].includes(error.code)
}
