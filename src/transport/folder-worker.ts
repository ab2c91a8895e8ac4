import { serveCalls } from '../block/worker-calls.js'
import { folderFiles } from './folder-files.js'
import type { RemoteFile } from './transport.js'

/** One call of a transport; `call` is what `abort` names it by. */
export interface FolderCall {
  readonly call: number
  readonly base: string
  readonly pairing: string
  readonly folder: string
  readonly name: string
  readonly localPath: string
  readonly limitBytes: number
}

type Tell = (bytes: number) => void

const underWay = new Map<number, AbortController>()

/** @param work one method; what is not given to it means nothing to it */
function abortable<T>(work: (given: FolderCall, signal: AbortSignal, tell: Tell) => Promise<T>) {
  return async (given: FolderCall, tell: Tell): Promise<T> => {
    const abort = new AbortController()
    underWay.set(given.call, abort)
    try {
      return await work(given, abort.signal, tell)
    } finally {
      underWay.delete(given.call)
    }
  }
}

const filesOf = ({ base, pairing }: FolderCall) => folderFiles(base, pairing)

serveCalls(
  {},
  {
    put: abortable<void>((given, signal, onProgress) =>
      filesOf(given).put(given.folder, given.name, given.localPath, { signal, onProgress }),
    ),
    list: abortable<RemoteFile[]>((given, signal) => filesOf(given).list(given.folder, signal)),
    read: abortable<Buffer | undefined>((given, signal) =>
      filesOf(given).read(given.folder, given.name, given.limitBytes, signal),
    ),
    remove: abortable<void>((given, signal) => filesOf(given).remove(given.folder, given.name, signal)),
    abort: (call: number) => underWay.get(call)?.abort(),
  },
)
