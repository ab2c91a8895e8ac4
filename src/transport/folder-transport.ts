import { StorageError } from '../block/storage-error.js'
import { WorkerCalls } from '../block/worker-calls.js'
import { asLinkDown, transferFault } from './faults.js'
import type { FolderCall } from './folder-worker.js'
import { Lanes } from './lanes.js'
import type { FolderEndpoint } from './pairing.js'
import { checkRemoteName } from './remote-name.js'
import type { RemoteFile, Transport } from './transport.js'
import { testTransport } from './transport-test.js'

/** Files copied at once; the others wait. */
const PARALLEL_PUTS = 4
/** A call without any progress for so long hangs. */
const SILENCE_MS = 120_000
/** What was aborted ends in order within this time, or is left alone. */
const ABORT_MS = 1_000

export interface FolderTimes {
  readonly silenceMs?: number
}

/**
 * A directory that is mounted here, as folder-files.ts has it: in a process of its own, for a share whose server is gone
 * holds up whoever touches it, in the kernel and for ever. In the agent's own threads that would stop all that it does
 * with files, keep a stream from being removed, and a killed agent from ending.
 *
 * A process that hangs is killed; until it is gone every call fails at once, so that there is one at the most.
 */
export function folderTransport(
  { directory: base }: FolderEndpoint,
  pairingId: Buffer,
  { silenceMs = SILENCE_MS }: FolderTimes = {},
): Transport {
  const pairing = pairingId.toString('hex')
  const lanes = new Lanes(PARALLEL_PUTS)
  const worker = new WorkerCalls(new URL('./folder-worker.js', import.meta.url), { holdsLock: false })
  let calls = 0
  let hangs = false

  const hung = (method: string): unknown =>
    asLinkDown(transferFault('LINK_TIMEOUT', method, base, 'it does not answer'))

  function giveUp(): void {
    if (hangs) return
    hangs = true
    worker.abandon().then(() => {
      hangs = false
    })
  }

  async function call<T>(
    method: 'put' | 'list' | 'read' | 'remove',
    given: Partial<FolderCall> & { readonly folder: string },
    signal: AbortSignal,
    onProgress?: (bytes: number) => void,
  ): Promise<T> {
    signal.throwIfAborted()
    if (hangs) throw hung(method)
    const number = calls++
    let timer: NodeJS.Timeout | undefined
    let abort = (): void => undefined
    const over = new Promise<never>((_resolve, reject) => {
      const silent = (): void => {
        reject(hung(method))
        giveUp()
      }
      timer = setTimeout(silent, silenceMs)
      abort = () => {
        clearTimeout(timer)
        timer = setTimeout(() => reject(signal.reason), ABORT_MS)
        worker.call('abort', number).catch(() => undefined)
      }
    })
    signal.addEventListener('abort', abort, { once: true })
    const progress = (bytes: unknown): void => {
      if (!signal.aborted) timer?.refresh()
      onProgress?.(bytes as number)
    }
    try {
      return await Promise.race([worker.call<T>(method, { call: number, base, pairing, ...given }, progress), over])
    } catch (error) {
      signal.throwIfAborted()
      throw error instanceof StorageError && error.code === 'WORKER_ENDED' ? hung(method) : error
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', abort)
    }
  }

  const transport: Transport = {
    async put(folder, name, localPath, { signal, onProgress }) {
      checkRemoteName('put', folder, name)
      await lanes.run(`${folder}/${name}`, signal, () =>
        call<void>('put', { folder, name, localPath }, signal, onProgress),
      )
    },

    async list(folder, signal) {
      checkRemoteName('list', folder)
      return call<RemoteFile[]>('list', { folder }, signal)
    },

    async read(folder, name, limitBytes, signal) {
      checkRemoteName('read', folder, name)
      return call<Buffer | undefined>('read', { folder, name, limitBytes }, signal)
    },

    async remove(folder, name, signal) {
      checkRemoteName('remove', folder, name)
      await call<void>('remove', { folder, name }, signal)
    },

    test: (signal) => testTransport(transport, base, signal),
    async close() {
      giveUp()
    },
  }
  return transport
}
