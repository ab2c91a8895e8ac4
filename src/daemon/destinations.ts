import type { DestinationView } from '../api/agent-operations.js'
import { checkName } from '../block/names.js'
import { StorageError } from '../block/storage-error.js'
import type { SourceStream } from '../replication/source-stream.js'
import { openTransport } from '../transport/open-transport.js'
import { describeEndpoint, type Pairing } from '../transport/pairing.js'
import { formatPairing, parsePairing } from '../transport/pairing-string.js'
import type { Transport } from '../transport/transport.js'
import type { SecretFiles } from './secret-files.js'

export interface Destination {
  readonly name: string
  readonly pairing: Pairing
  readonly transport: Transport
}

/** The sites this agent sends to, by name. Their pairings are secrets, a file each. */
export class Destinations {
  readonly #secrets: SecretFiles
  readonly #destinations = new Map<string, Destination>()

  constructor(secrets: SecretFiles) {
    this.#secrets = secrets
  }

  async open(): Promise<void> {
    for (const [name, text] of await this.#secrets.readAll()) this.#admit(name, parsePairing(text))
  }

  get(name: string): Destination {
    const destination = this.#destinations.get(name)
    if (destination) return destination
    throw new StorageError('NO_SUCH_DESTINATION', {
      op: 'destination',
      object: name,
      hint: 'See: tidemark destination list',
    })
  }

  all(): Destination[] {
    return [...this.#destinations.values()].sort((a, b) => a.name.localeCompare(b.name))
  }

  async add(name: string, text: string): Promise<Destination> {
    checkName('destination', name)
    if (this.#destinations.has(name)) {
      throw new StorageError('ALREADY_EXISTS', {
        op: 'destination add',
        object: name,
        hint: 'A destination of this name exists. Choose another name, or remove that one first.',
      })
    }
    const pairing = parsePairing(text)
    await this.#secrets.write(name, formatPairing(pairing))
    return this.#admit(name, pairing)
  }

  async remove(name: string): Promise<void> {
    const { transport } = this.get(name)
    this.#destinations.delete(name)
    await this.#secrets.remove(name)
    await transport.close()
  }

  async close(): Promise<void> {
    for (const { transport } of this.#destinations.values()) await transport.close()
  }

  #admit(name: string, pairing: Pairing): Destination {
    const destination = { name, pairing, transport: openTransport(pairing) }
    this.#destinations.set(name, destination)
    return destination
  }
}

/** @param streams those that send there: they know whether transfers work */
export function destinationView({ name, pairing }: Destination, streams: readonly SourceStream[]): DestinationView {
  const down = streams.find(({ link }) => link !== null)?.link
  const state = down ? 'down' : streams.some(({ position }) => position.sentEpoch > 0) ? 'up' : 'unknown'
  const reason = {
    up: 'transfers work',
    down: down ? `${down.code}: ${down.hint}` : '',
    unknown: `nothing was sent yet; try: tidemark destination test ${name}`,
  }[state]
  return {
    name,
    kind: pairing.endpoint.kind,
    endpoint: describeEndpoint(pairing.endpoint),
    state,
    reason,
    streams: streams.map(({ definition }) => definition.name),
  }
}
