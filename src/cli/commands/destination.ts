import type { DestinationTestView, DestinationView } from '../../api/agent-operations.js'
import type { Command } from '../command.js'
import { readSecret } from '../secret-input.js'
import { table } from '../text.js'

export const destinationCommands: Command[] = [
  {
    name: 'destination add',
    arguments: ['NAME'],
    options: [
      {
        flags: '--pairing STRING',
        summary: 'what pairing create printed; - reads stdin, @FILE a file',
        kind: 'required',
      },
    ],
    usage: 'NAME --pairing STRING',
    summary: 'Take in a pairing string from the other site under a name.',
    example: 'tidemark destination add backup --pairing @pairing.txt',
    run: async ({ agent, terminal, local }, typed) => {
      const given = typed.option('pairing')!
      const source = given === '-' ? '-' : given.startsWith('@') ? given.slice(1) : undefined
      const pairing =
        source === undefined ? given : await readSecret({ agent, terminal, local }, 'destination add', source)
      const destination = await agent.call<DestinationView>({
        method: 'POST',
        path: ['destinations'],
        body: { name: typed.argument('NAME'), pairing: pairing.trim() },
      })
      terminal.result(destination, [
        `Destination ${destination.name} is ${destination.endpoint} (${destination.kind}). Try it: tidemark destination test ${destination.name}`,
      ])
    },
  },
  {
    name: 'destination list',
    arguments: [],
    options: [],
    usage: '',
    summary: 'List the destinations and whether they answer.',
    example: 'tidemark destination list',
    run: async ({ agent, terminal }) => {
      const destinations = await agent.get<DestinationView[]>('destinations')
      const rows = destinations.map((destination) => [
        destination.name,
        destination.kind,
        destination.state,
        destination.endpoint,
        destination.streams.join(',') || '-',
        destination.reason,
      ])
      terminal.result(
        destinations,
        rows.length === 0
          ? ['There are no destinations. Add one: tidemark destination add NAME --pairing STRING']
          : table([['NAME', 'KIND', 'STATE', 'ENDPOINT', 'STREAMS', 'REASON'], ...rows]),
      )
    },
  },
  {
    name: 'destination test',
    arguments: ['NAME'],
    options: [],
    usage: 'NAME',
    summary: 'Connect, write, read back and remove a small file there; names the exact fault.',
    example: 'tidemark destination test backup',
    run: async ({ agent, terminal }, typed) => {
      const name = typed.argument('NAME')
      const test = await agent.call<DestinationTestView>({ method: 'POST', path: ['destinations', name, 'test'] })
      terminal.result(test, [
        `Destination ${test.name} works: ${test.endpoint}, ${test.roundTripMs.toFixed(1)} ms round trip`,
      ])
    },
  },
  {
    name: 'destination remove',
    arguments: ['NAME'],
    options: [],
    usage: 'NAME',
    summary: 'Forget a destination that no stream uses; what lies there stays.',
    example: 'tidemark destination remove backup',
    run: async ({ agent, terminal }, typed) => {
      const name = typed.argument('NAME')
      await agent.call({ method: 'DELETE', path: ['destinations', name] })
      terminal.result({ name, removed: true }, [`Destination ${name} is forgotten. What was sent there stays there.`])
    },
  },
]
