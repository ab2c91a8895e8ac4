import type { InboundView } from '../../api/agent-operations.js'
import type { Command } from '../command.js'
import { bytes, facts, table } from '../text.js'

export const inboundCommands: Command[] = [
  {
    name: 'inbound list',
    arguments: [],
    options: [],
    usage: '',
    summary: 'At the destination: list the streams that arrive.',
    example: 'tidemark inbound list',
    run: async ({ agent, terminal }) => {
      const streams = await agent.get<InboundView[]>('inbound')
      const rows = streams.map((inbound) => [
        inbound.stream,
        inbound.state,
        String(inbound.appliedEpoch),
        inbound.appliedTime ?? '-',
        String(inbound.waitingFiles),
        inbound.volumes.map((volume) => volume.name).join(','),
        inbound.reason,
      ])
      terminal.result(
        streams,
        rows.length === 0
          ? ['Nothing arrives here yet. Let a source in: tidemark pairing create']
          : table([['STREAM', 'STATE', 'EPOCH', 'AS OF', 'FILES', 'VOLUMES', 'REASON'], ...rows]),
      )
    },
  },
  {
    name: 'inbound show',
    arguments: ['STREAM'],
    options: [],
    usage: 'STREAM',
    summary: 'At the destination: show where each arriving volume lies, and how far it is.',
    example: 'tidemark inbound show gold',
    run: async ({ agent, terminal }, typed) => {
      const inbound = await agent.get<InboundView>('inbound', typed.argument('STREAM'))
      terminal.result(inbound, [
        ...facts([
          ['Stream', `${inbound.stream} (${inbound.id})`],
          ['State', `${inbound.state}: ${inbound.reason}`],
          ['Applied', `epoch ${inbound.appliedEpoch}, LSN ${inbound.appliedLsn}, generation ${inbound.generation}`],
          ['As of', inbound.appliedTime ?? 'nothing yet'],
          ['Files waiting', String(inbound.waitingFiles)],
          ['Pairing', inbound.pairing],
        ]),
        '',
        ...table([
          ['VOLUME', 'SIZE', 'PATH'],
          ...inbound.volumes.map((volume) => [volume.name, bytes(volume.sizeBytes), volume.path]),
        ]),
      ])
    },
  },
  {
    name: 'inbound remove',
    arguments: ['STREAM'],
    options: [{ flags: '--yes', summary: 'the copy is lost' }],
    usage: 'STREAM [--yes]',
    summary: 'At the destination: forget a stream that arrives, and remove its copy.',
    example: 'tidemark inbound remove gold --yes',
    run: async ({ agent, terminal }, typed) => {
      const stream = typed.argument('STREAM')
      const query = typed.flag('yes') ? { yes: 'true' } : {}
      await agent.call({ method: 'DELETE', path: ['inbound', stream], query })
      terminal.result({ stream, removed: true }, [
        `Stream ${stream} is forgotten here, and its copy removed. At its source: tidemark stream remove ${stream}; to begin it again: tidemark stream initialize ${stream}`,
      ])
    },
  },
]
