/**
 * A unix socket that nobody else can have opened, replaced or prepared.
 *
 * Invariant: the socket is mode 0600 before it has a name that anybody knows. It is bound in a fresh private folder,
 * restricted there, and only then linked to its name; link(2) fails when the name is taken, so two agents that start
 * at once cannot both have it.
 */
import { chmod, link, lstat, mkdtemp, rm, stat, unlink } from 'node:fs/promises'
import net from 'node:net'
import path from 'node:path'
import { errnoOf, StorageError } from '../block/storage-error.js'
import { whyStrangersMayReplace } from '../block/strangers.js'

/** sun_path has 108 bytes; the private name is one byte longer than `agent.sock` and a zero ends it. */
const PATH_LIMIT_BYTES = 106
const PROBE_LIMIT_MS = 2000

export interface PrivateSocket {
  /** Remove the name, if it is still this socket's. */
  remove(): Promise<void>
}

/**
 * @param bind listens on the given path
 * @throws StorageError AGENT_RUNNING, UNSAFE_SOCKET, SOCKET_PATH_TOO_LONG, SOCKET_FAILED; nothing is left behind
 */
export async function claimSocket(
  socketPath: string,
  bind: (path: string) => Promise<unknown>,
): Promise<PrivateSocket> {
  const folder = path.dirname(path.resolve(socketPath))
  const privatePrefix = path.join(folder, '.a-')
  if (Math.max(Buffer.byteLength(privatePrefix) + 8, Buffer.byteLength(socketPath)) > PATH_LIMIT_BYTES) {
    throw refusal(
      'SOCKET_PATH_TOO_LONG',
      socketPath,
      `Put it in a folder with a shorter path, ${PATH_LIMIT_BYTES} bytes in all.`,
    )
  }
  try {
    await checkFolder(folder)
    await clearStale(socketPath)
    const privateFolder = await mkdtemp(privatePrefix)
    try {
      const privateSocket = path.join(privateFolder, 's')
      await bind(privateSocket)
      await chmod(privateSocket, 0o600)
      await link(privateSocket, socketPath)
    } finally {
      await rm(privateFolder, { recursive: true, force: true })
    }
    const { dev, ino } = await lstat(socketPath)
    return { remove: () => removeOwn(socketPath, dev, ino) }
  } catch (error) {
    if (error instanceof StorageError) throw error
    if (errnoOf(error) === 'EEXIST') throw running(socketPath)
    throw refusal(
      'SOCKET_FAILED',
      socketPath,
      'Check that the folder exists and that this user may write to it.',
      error,
    )
  }
}

/** In a folder others may rename in, the name would not stay ours. */
async function checkFolder(folder: string): Promise<void> {
  if (whyStrangersMayReplace(await stat(folder)) === undefined) return
  throw refusal(
    'UNSAFE_SOCKET',
    folder,
    `Others may replace files in it. Use a folder of your own: chmod go-w ${folder}`,
  )
}

async function clearStale(socketPath: string): Promise<void> {
  const found = await lstat(socketPath).catch((error) => {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  })
  if (!found) return
  if (!found.isSocket()) {
    throw refusal('UNSAFE_SOCKET', socketPath, 'It is there and is no socket. Remove it, or choose another place.')
  }
  if (found.uid !== process.geteuid?.()) {
    throw refusal('UNSAFE_SOCKET', socketPath, 'It belongs to another user. Remove it, or choose another place.')
  }
  if (await answers(socketPath)) throw running(socketPath)
  await removeOwn(socketPath, found.dev, found.ino)
}

/** A socket whose process is dead refuses; one that is busy or does not answer in time counts as alive. */
function answers(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = net.connect(socketPath)
    const settle = (alive: boolean) => {
      probe.destroy()
      resolve(alive)
    }
    probe.setTimeout(PROBE_LIMIT_MS, () => settle(true))
    probe.once('connect', () => settle(true))
    probe.once('error', (error) => settle(!['ECONNREFUSED', 'ENOENT'].includes(errnoOf(error) ?? '')))
  })
}

async function removeOwn(socketPath: string, dev: number, ino: number): Promise<void> {
  const found = await lstat(socketPath).catch(() => undefined)
  if (found && found.dev === dev && found.ino === ino) await unlink(socketPath).catch(() => undefined)
}

function running(socketPath: string): StorageError {
  return refusal(
    'AGENT_RUNNING',
    socketPath,
    'Another agent serves this socket. Stop it first, or use another --state folder.',
  )
}

function refusal(code: string, object: string, hint: string, cause?: unknown): StorageError {
  return new StorageError(code, { op: 'agent socket', object, hint, ...(cause === undefined ? {} : { cause }) })
}
