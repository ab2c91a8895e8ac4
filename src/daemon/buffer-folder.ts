import { readdir, stat, statfs } from 'node:fs/promises'
import path from 'node:path'
import { errnoOf, StorageError } from '../block/storage-error.js'
import type { StreamDefinition } from '../replication/stream-state.js'
import { checkOwnFolder } from './own-folder.js'
import type { Placement } from './placement.js'

/** A folder that a stream of this agent has below a buffer directory; several streams may share the directory. */
const streamFolder = /-[0-9a-f]{8}$/
/** A file system that was just made has it. */
const foundByFsck = 'lost+found'
const op = 'buffer move'

/** Of a stream, below a buffer directory. */
export function folderName({ name, id }: StreamDefinition): string {
  return `${name}-${id.slice(0, 8)}`
}

export interface BufferFolderRequest {
  /** What the operator named: used as `buffer.directory` is. */
  readonly directory: string
  /** The stream's own folder below it. */
  readonly name: string
  /** Where the files are now. */
  readonly current: string
  /** What has to have room. */
  readonly usedBytes: number
  readonly placement: Placement
}

/**
 * Where a stream's replication files go when its buffer moves to a directory. Nothing is made yet.
 *
 * @throws StorageError BAD_DIRECTORY, BUFFER_IN_USE, ON_OWN_VOLUME, UNSAFE_FOLDER, DIRECTORY_NOT_EMPTY, BUFFER_DISK_FULL
 */
export async function newBufferFolder(request: BufferFolderRequest): Promise<string> {
  const { directory, name, current, usedBytes, placement } = request
  const files = path.join(directory, name, 'files')
  if (files === current) throw refuse('BUFFER_IN_USE', directory, 'The buffer of the stream is there already.')
  if (`${files}/`.startsWith(`${current}/`) || `${current}/`.startsWith(`${files}/`)) {
    throw refuse('BAD_DIRECTORY', directory, `It lies in the buffer itself, ${current}. Name another.`)
  }
  await placement.check(op, 'source buffer', directory)
  await checkOwnFolder(op, directory)
  try {
    const others = (await entries(directory)).filter((entry) => entry !== foundByFsck && !streamFolder.test(entry))
    if (others.length > 0 || (await entries(files)).length > 0) {
      throw refuse('DIRECTORY_NOT_EMPTY', directory, 'Name an empty directory, or one that is not there yet.')
    }
    await checkRoom(directory, current, usedBytes)
  } catch (cause) {
    if (cause instanceof StorageError) throw cause
    throw new StorageError('BAD_DIRECTORY', {
      op,
      object: directory,
      cause,
      hint: 'Name a directory that the agent can read and write.',
    })
  }
  return files
}

async function checkRoom(directory: string, current: string, usedBytes: number): Promise<void> {
  let above = directory
  while (!(await exists(above))) above = path.dirname(above)
  // On the same file system a file only gets another name.
  const { dev } = await stat(above)
  if ((await exists(current)) && (await stat(current)).dev === dev) return
  const { bavail, bsize } = await statfs(above)
  if (bavail * bsize >= usedBytes) return
  throw refuse('BUFFER_DISK_FULL', directory, 'It has less room than the buffer holds now. Name one on a larger disk.')
}

async function entries(directory: string): Promise<string[]> {
  try {
    return await readdir(directory)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return []
    throw error
  }
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  )
}

function refuse(code: string, object: string, hint: string): StorageError {
  return new StorageError(code, { op, object, hint })
}
