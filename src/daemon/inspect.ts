import { open } from 'node:fs/promises'
import path from 'node:path'
import { StorageError } from '../block/storage-error.js'
import { readArrival } from '../destage/arrival-file.js'
import { inspectSegment } from '../journal/inspect.js'
import { formatInspected, inspectPart } from '../replication-file/inspect-part.js'
import { deriveStreamSecret, keyId } from '../replication-file/keys.js'
import { peekHeader } from '../replication-file/part-header.js'
import { parsePairing } from '../transport/pairing-string.js'
import { SecretFiles } from './secret-files.js'
import { parseStoredPairing } from './stored-pairing.js'

const defaultState = '/var/lib/tidemark'

export interface InspectOptions {
  readonly file: string
  /** Where the keys are; needs no running agent. */
  readonly stateDirectory: string | undefined
  readonly json: boolean
  readonly write: (text: string) => void
}

/**
 * Print every record of a journal segment or replication file, by its first bytes.
 *
 * @throws StorageError NOT_FOUND, NOT_A_TIDEMARK_FILE, and what the decoders say of damage
 */
export async function inspectFile(options: InspectOptions): Promise<void> {
  const { file, json, write } = options
  const magic = await readMagic(file)
  if (magic === 'TMSG') {
    for (const item of inspectSegment(file)) write(`${json ? JSON.stringify(item) : item.text}\n`)
    return
  }
  if (magic !== 'TMRF') {
    throw new StorageError('NOT_A_TIDEMARK_FILE', {
      op: 'inspect',
      object: file,
      hint: 'Give a journal segment (.seg) or a replication file (.tmr).',
    })
  }
  const bytes = readArrival(path.resolve(file))
  const secret = await findSecret(bytes, options.stateDirectory)
  for (const item of inspectPart(bytes, secret, file)) {
    write(
      `${json ? JSON.stringify(item, (_key, value) => (typeof value === 'bigint' ? value.toString() : value)) : formatInspected(item)}\n`,
    )
  }
}

async function readMagic(file: string): Promise<string> {
  try {
    const handle = await open(file, 'r')
    try {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(4), 0, 4, 0)
      return buffer.toString('latin1', 0, bytesRead)
    } finally {
      await handle.close()
    }
  } catch (cause) {
    throw new StorageError('NOT_FOUND', { op: 'inspect', object: file, cause, hint: 'Check the path.' })
  }
}

/** The stream's secret, from whichever pairing of this agent it belongs to. */
async function findSecret(bytes: Buffer, stateDirectory = defaultState): Promise<Buffer | undefined> {
  const header = peekHeader(bytes)
  const given = await new SecretFiles(path.join(stateDirectory, 'pairings'))
    .readAll()
    .catch(() => new Map<string, string>())
  const taken = await new SecretFiles(path.join(stateDirectory, 'destinations'))
    .readAll()
    .catch(() => new Map<string, string>())
  const texts = [...[...given].map(([name, text]) => parseStoredPairing(text, name).pairing), ...taken.values()]
  return texts
    .map((text) => deriveStreamSecret(parsePairing(text).secret, header.streamId))
    .find((secret) => keyId(secret).equals(header.keyId))
}
