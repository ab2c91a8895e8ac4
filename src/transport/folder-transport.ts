import { HangingWorker } from '../block/hanging-worker.js'
import { asLinkDown, transferFault } from './faults.js'
import type { FolderCall } from './folder-worker.js'
import { Lanes } from './lanes.js'
import type { FolderEndpoint } from './pairing.js'
import { checkRemoteName } from './remote-name.js'
import type { RemoteFile, Transport } from './transport.js'
import { testTransport } from './transport-test.js'

/** Files copied at once; the others wait. */
const PARALLEL_PUTS = 4

export interface FolderTimes {
  readonly silenceMs?: number
}

/** A directory that is mounted here, as folder-files.ts has it: in a process of its own, for it may hang. */
export function folderTransport(
  { directory: base }: FolderEndpoint,
  pairingId: Buffer,
  { silenceMs }: FolderTimes = {},
): Transport {
  const pairing = pairingId.toString('hex')
  const lanes = new Lanes(PARALLEL_PUTS)
  const worker = new HangingWorker({
    script: new URL('./folder-worker.js', import.meta.url),
    hung: (method) => asLinkDown(transferFault('LINK_TIMEOUT', method, base, 'it does not answer')),
    silenceMs,
  })
  let calls = 0

  async function call<T>(
    method: 'put' | 'list' | 'read' | 'remove',
    given: Partial<FolderCall> & { readonly folder: string },
    signal: AbortSignal,
    onProgress?: (bytes: number) => void,
  ): Promise<T> {
    const number = calls++
    const onAbort = (): void => {
      worker.listen('abort', number).catch(() => undefined)
    }
    return worker.call<T>(
      method,
      { call: number, base, pairing, ...given },
      { signal, onAbort, onProgress: onProgress as ((bytes: unknown) => void) | undefined },
    )
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
      worker.close()
    },
  }
  return transport
}
