import { NO_RETRY, RETRY_LIMITS, type RetryLimits, withRetry } from './backoff.js'
import { asLinkDown, transferFault } from './faults.js'
import { HttpsClient, type HttpsTimeouts, type Reply } from './https-client.js'
import { CHECKSUM_HEADER, formatRange, OFFSET_HEADER, statusFault } from './https-protocol.js'
import { Lanes } from './lanes.js'
import { describeEndpoint, type HttpsEndpoint } from './pairing.js'
import { checkRemoteName, isRemoteName, NAME_LIMIT } from './remote-name.js'
import { SourceFile } from './source-file.js'
import { LIST_LIMIT, type RemoteFile, type TransferOptions, type Transport } from './transport.js'
import { testTransport } from './transport-test.js'

/** A shorter file is sent without asking first whether a part of it is there already. */
const RESUME_FROM_BYTES = 256 * 1024
/** Uploads at once, and other calls at once: an acknowledgement is not read behind a queue of uploads. */
const PARALLEL_PUTS = 4
const PARALLEL_CALLS = 4
const LISTING_LIMIT_BYTES = LIST_LIMIT * (NAME_LIMIT + 18)

export interface HttpsTransportOptions {
  readonly retry?: RetryLimits
  readonly timeouts?: Partial<HttpsTimeouts>
}

/** Straight to the far agent's receiver. Resumes an upload that was cut short, by range, after comparing its checksum. */
export function httpsTransport(
  endpoint: HttpsEndpoint,
  pairingId: Buffer,
  token: string,
  options: HttpsTransportOptions = {},
): Transport {
  const client = new HttpsClient(endpoint, pairingId.toString('hex'), token, options.timeouts)
  const lanes = { puts: new Lanes(PARALLEL_PUTS), calls: new Lanes(PARALLEL_CALLS) }
  const calls = callsOf(client, lanes, options.retry ?? RETRY_LIMITS)
  return {
    ...calls,
    test: (signal) => testTransport(callsOf(client, lanes, NO_RETRY), describeEndpoint(endpoint), signal),
    close: async () => client.close(),
  }
}

function callsOf(
  client: HttpsClient,
  lanes: { readonly puts: Lanes; readonly calls: Lanes },
  limits: RetryLimits,
): Omit<Transport, 'test' | 'close'> {
  async function call<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    try {
      return await lanes.calls.run(undefined, signal, () => withRetry(limits, signal, work))
    } catch (error) {
      throw asLinkDown(error)
    }
  }

  return {
    async put(folder, name, localPath, options) {
      checkRemoteName('put', folder, name)
      try {
        await lanes.puts.run(`${folder}/${name}`, options.signal, async () => {
          const source = await SourceFile.open(localPath)
          try {
            await upload(client, limits, folder, name, source, options)
          } finally {
            await source.close()
          }
        })
      } catch (error) {
        throw asLinkDown(error)
      }
    },

    async list(folder, signal) {
      checkRemoteName('list', folder)
      return call(signal, async () => {
        const reply = await client.request({ method: 'GET', folder, signal, limitBytes: LISTING_LIMIT_BYTES })
        expect(client, reply, 'list', folder, 200)
        return parseListing(reply.body, client.describe(folder))
      })
    },

    async read(folder, name, limitBytes, signal) {
      checkRemoteName('read', folder, name)
      return call(signal, async () => {
        const reply = await client.request({ method: 'GET', folder, name, signal, limitBytes })
        if (reply.status === 404) return undefined
        expect(client, reply, 'read', folder, 200)
        return reply.body
      })
    },

    async remove(folder, name, signal) {
      checkRemoteName('remove', folder, name)
      await call(signal, async () => {
        const reply = await client.request({ method: 'DELETE', folder, name, signal, limitBytes: 0 })
        expect(client, reply, 'remove', folder, 204)
      })
    },
  }
}

async function upload(
  client: HttpsClient,
  limits: RetryLimits,
  folder: string,
  name: string,
  source: SourceFile,
  { signal, onProgress }: TransferOptions,
): Promise<void> {
  const total = source.lengthBytes
  let reachedBytes = 0
  await withRetry(limits, signal, async (progress) => {
    // A refusal may be lost when it crosses a body; so who is not known to accept this pairing is asked first.
    const ask = total >= RESUME_FROM_BYTES || !client.accepted
    const start = ask ? await resumePoint(client, folder, name, source, signal) : 0
    // What only left this machine is no progress: a server that cuts every connection would be tried for ever.
    if (start > reachedBytes) progress()
    reachedBytes = Math.max(reachedBytes, start)
    const range = formatRange({ start, total })
    const headers = { 'content-length': total - start, ...(range && { 'content-range': range }) }
    const body = { source, start, onSent: (bytes: number) => onProgress?.(bytes) }
    const reply = await client.request({ method: 'PUT', folder, name, signal, limitBytes: 0, body, headers })
    expect(client, reply, 'put', `${folder}/${name}`, 201)
  })
}

/** How much of the file is there already, checked to be the same bytes. */
async function resumePoint(
  client: HttpsClient,
  folder: string,
  name: string,
  source: SourceFile,
  signal: AbortSignal,
): Promise<number> {
  const reply = await client.request({ method: 'HEAD', folder, name, signal, limitBytes: 0 })
  if (reply.status === 404) return 0
  expect(client, reply, 'put', `${folder}/${name}`, 200)
  const offset = Number(reply.headers[OFFSET_HEADER])
  const checksum = Number(reply.headers[CHECKSUM_HEADER])
  if (!Number.isSafeInteger(offset) || offset <= 0 || offset > source.lengthBytes) return 0
  return (await source.checksum(0, offset, signal)) === checksum ? offset : 0
}

function expect(client: HttpsClient, reply: Reply, op: string, object: string, status: number): void {
  if (reply.status === status) return
  throw transferFault(statusFault(reply.status), op, client.describe(object), `status ${reply.status}`)
}

/** @throws StorageError PROTOCOL_ERROR */
export function parseListing(body: Buffer, object: string): RemoteFile[] {
  const lines = body.toString('latin1').split('\n')
  if (lines.pop() !== '' || lines.length > LIST_LIMIT) throw transferFault('PROTOCOL_ERROR', 'list', object)
  return lines.map((line) => {
    const [length = '', name = ''] = line.split(' ')
    const lengthBytes = /^\d{1,15}$/.test(length) ? Number(length) : -1
    if (lengthBytes < 0 || !isRemoteName(name) || line !== `${length} ${name}`) {
      throw transferFault('PROTOCOL_ERROR', 'list', object)
    }
    return { name, lengthBytes }
  })
}
