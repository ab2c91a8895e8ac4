import { isIP } from 'node:net'
import { hostname, networkInterfaces } from 'node:os'
import path from 'node:path'
import type { CreatePairing } from '../api/agent-operations.js'
import type { ReportEvent } from '../block/event-log.js'
import { Pause } from '../block/pause.js'
import type { StateStore } from '../block/state-store.js'
import { StorageError } from '../block/storage-error.js'
import { InboxProcess } from '../destage/inbox-process.js'
import { type Certificate, fingerprintOf, makeCertificate } from '../transport/certificate.js'
import { parseFtpUrl } from '../transport/ftp-url.js'
import { type Receiver, startReceiver } from '../transport/https-receiver.js'
import { type Endpoint, newPairing, type Pairing } from '../transport/pairing.js'
import { bearerToken } from '../transport/pairing-keys.js'
import { formatPairing, parsePairing } from '../transport/pairing-string.js'
import type { InboundStreams } from './inbound-streams.js'
import type { SecretFiles } from './secret-files.js'
import { parseStoredCertificate, parseStoredPairing, type StoredPairing } from './stored-pairing.js'

const defaultPort = 7443
const certificateFile = 'certificate.json'
const listenKey = 'agent/listen'
const listenRetryMs = 5_000
/** A folder that has not answered by then hangs: a command waits. */
const folderAnswerMs = 10_000

export interface PairingsOptions {
  readonly store: StateStore
  readonly pairingSecrets: SecretFiles
  readonly ownSecrets: SecretFiles
  readonly inbound: InboundStreams
  /** Files of https pairings arrive here. */
  readonly inboxDirectory: string
  /** HOST:PORT of the configuration. */
  readonly listen: string | undefined
  readonly report: ReportEvent
}

/** The pairings this agent gave out, and the listener that serves those over https. */
export class Pairings {
  readonly #options: PairingsOptions
  readonly #tokens = new Map<string, string>()
  readonly #stop = new AbortController()
  #opening: Promise<void> | undefined
  #certificate: Promise<Certificate> | undefined
  #receiver: Receiver | undefined
  #address: { readonly host: string; readonly port: number } | undefined

  constructor(options: PairingsOptions) {
    this.#options = options
  }

  /** Where sources reach this agent, or null. */
  get listening(): string | null {
    return this.#address ? formatAddress(this.#address) : null
  }

  async open(): Promise<void> {
    const stored = (await this.#options.ownSecrets.readAll()).get(certificateFile)
    if (stored !== undefined) this.#certificate = Promise.resolve(parseStoredCertificate(stored, certificateFile))
    for (const [name, text] of await this.#options.pairingSecrets.readAll()) {
      const { pairing, inbox } = parseStoredPairing(text, `pairings/${name}`)
      this.#admit(parsePairing(pairing), inbox)
    }
    const listen = this.#options.listen ?? this.#options.store.get<string>(listenKey)
    if (listen === undefined) return
    await this.#ownCertificate()
    this.#opening = this.#listenWhenPossible(parseAddress(listen))
  }

  /** An address that is not there yet at boot, or a port still taken, must not keep volumes from their hosts. */
  async #listenWhenPossible(address: { host: string; port: number }): Promise<void> {
    let told = false
    while (!this.#stop.signal.aborted && !this.#address) {
      try {
        await this.#listen(address)
      } catch (error) {
        if (!(error instanceof StorageError)) throw error
        const text = `${error.message}. ${error.hint} It is tried again.`
        if (!told) this.#options.report({ severity: 'error', code: error.code, object: formatAddress(address), text })
        told = true
        await new Pause().wait(listenRetryMs, this.#stop.signal)
      }
    }
  }

  async create(request: CreatePairing): Promise<{ pairing: string }> {
    const { endpoint, root } = await this.#endpoint(request)
    const pairing = newPairing(endpoint)
    const id = pairing.id.toString('hex')
    const inbox = path.join(root, id)
    const text = formatPairing(pairing)
    await this.#options.pairingSecrets.write(id, JSON.stringify({ pairing: text, inbox } satisfies StoredPairing))
    this.#admit(pairing, inbox)
    this.#options.report({
      severity: 'info',
      code: 'PAIRING_CREATED',
      object: id.slice(0, 8),
      text: `over ${endpoint.kind}, arriving in ${inbox}`,
    })
    return { pairing: text }
  }

  async close(): Promise<void> {
    this.#stop.abort()
    await this.#opening
    await this.#receiver?.close()
  }

  async #endpoint(request: CreatePairing): Promise<{ endpoint: Endpoint; root: string }> {
    if (request.kind === 'folder') {
      await mustBeFolder(request.directory)
      return { endpoint: { kind: 'folder', directory: request.directory }, root: request.directory }
    }
    if (request.kind === 'ftp') {
      await mustBeFolder(request.inbox)
      return { endpoint: parseFtpUrl(request.url), root: request.inbox }
    }
    const wanted = request.listen ?? this.listening ?? `${reachableHost()}:${defaultPort}`
    const address = await this.#listen(parseAddress(wanted))
    const fingerprint = fingerprintOf((await this.#ownCertificate()).cert)
    return { endpoint: { kind: 'https', ...address, fingerprint }, root: this.#options.inboxDirectory }
  }

  #admit(pairing: Pairing, inbox: string): void {
    const id = pairing.id.toString('hex')
    const isOwn = pairing.endpoint.kind === 'https'
    if (isOwn) this.#tokens.set(id, bearerToken(pairing))
    this.#options.inbound.watch(id, pairing.secret, inbox, isOwn)
  }

  /** One listener an agent; asked for again at the same address it is the one that runs. */
  async #listen(wanted: { host: string; port: number }): Promise<{ host: string; port: number }> {
    if (this.#address) {
      const same = wanted.host === this.#address.host && (wanted.port === this.#address.port || wanted.port === 0)
      if (same) return this.#address
      throw new StorageError('ALREADY_LISTENING', {
        op: 'pairing create',
        object: formatAddress(wanted),
        hint: `This agent listens on ${this.listening} for all its pairings. Leave --listen out, or name that.`,
      })
    }
    const { inbound, inboxDirectory, report, store } = this.#options
    this.#receiver = await startReceiver({
      // A name stands for whatever address others find under it: listen on all of them.
      host: isIP(wanted.host) ? wanted.host : '::',
      port: wanted.port,
      certificate: await this.#ownCertificate(),
      inbox: inboxDirectory,
      authorize: (pairingId) => this.#tokens.get(pairingId),
      onArrival: (pairingId, folder) => inbound.arrived(pairingId, folder),
      report,
    })
    this.#address = { host: wanted.host, port: this.#receiver.port }
    await store.put({ [listenKey]: this.listening })
    return this.#address
  }

  /** Made when an agent is first to listen, and its own from then on: most sources never are. */
  #ownCertificate(): Promise<Certificate> {
    this.#certificate ??= this.#makeCertificate().catch((error) => {
      this.#certificate = undefined
      throw error
    })
    return this.#certificate
  }

  async #makeCertificate(): Promise<Certificate> {
    const certificate = await makeCertificate()
    await this.#options.ownSecrets.write(certificateFile, JSON.stringify(certificate))
    return certificate
  }
}

function formatAddress({ host, port }: { host: string; port: number }): string {
  return isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`
}

/** `host:port`, `[v6]:port`. @throws StorageError BAD_ADDRESS */
function parseAddress(text: string): { host: string; port: number } {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})$/.exec(text)
  const port = Number(match?.[3])
  if (match && port <= 65535) return { host: match[1] ?? match[2]!, port }
  throw new StorageError('BAD_ADDRESS', {
    op: 'pairing create',
    object: JSON.stringify(text.slice(0, 100)),
    hint: 'Give HOST:PORT as sources reach it, such as backup.example:7443 or 192.0.2.7:7443.',
  })
}

/** An address of this machine that others may reach. */
function reachableHost(): string {
  const addresses = Object.values(networkInterfaces()).flatMap((entries) => entries ?? [])
  return addresses.find(({ internal, family }) => !internal && family === 'IPv4')?.address ?? hostname()
}

/** @throws StorageError NOT_FOUND, INBOX_UNAVAILABLE */
async function mustBeFolder(directory: string): Promise<void> {
  const inbox = new InboxProcess(directory, () => undefined, { silenceMs: folderAnswerMs })
  try {
    if (await inbox.isFolder()) return
  } finally {
    inbox.close()
  }
  throw new StorageError('NOT_FOUND', {
    op: 'pairing create',
    object: directory,
    hint: 'There is no such folder on this machine. Make it first.',
  })
}
