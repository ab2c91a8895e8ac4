import type { Command } from './command.js'
import { agentCommands } from './commands/agent.js'
import { bufferCommands } from './commands/buffer.js'
import { cloneCommands } from './commands/clone.js'
import { destinationCommands } from './commands/destination.js'
import { eventsCommands } from './commands/events.js'
import { inboundCommands } from './commands/inbound.js'
import { inspectCommands } from './commands/inspect.js'
import { keeperCommands } from './commands/keeper.js'
import { pairingCommands } from './commands/pairing.js'
import { poolCommands } from './commands/pool.js'
import { snapshotCommands } from './commands/snapshot.js'
import { streamCommands } from './commands/stream.js'
import { volumeCommands } from './commands/volume.js'

/** What a group of commands is about. */
export const groups: Readonly<Record<string, string>> = {
  pool: 'Space that thin volumes share.',
  volume: 'Block volumes of this machine.',
  keeper: 'Devices whose agent is gone.',
  snapshot: 'Moments of a thin volume.',
  clone: 'Volumes made from a snapshot.',
  pairing: 'At the destination: let a source in.',
  destination: 'At the source: where streams go.',
  stream: 'Mirroring of one or more volumes to a destination.',
  buffer: 'At the source: where a stream keeps what waits for the destination.',
  inbound: 'At the destination: what arrives.',
}

export const commands: readonly Command[] = [
  ...agentCommands,
  ...poolCommands,
  ...volumeCommands,
  ...keeperCommands,
  ...snapshotCommands,
  ...cloneCommands,
  ...pairingCommands,
  ...destinationCommands,
  ...streamCommands,
  ...bufferCommands,
  ...inboundCommands,
  ...inspectCommands,
  ...eventsCommands,
]
