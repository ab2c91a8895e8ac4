import type { AgentEvent } from '../../api/agent-operations.js'
import type { Command } from '../command.js'
import { UsageError } from '../failure.js'

export const eventsCommands: Command[] = [
  {
    name: 'events',
    arguments: [],
    options: [
      { flags: '--follow', summary: 'go on with each new one until Ctrl-C' },
      { flags: '--after N', summary: 'only those numbered higher' },
    ],
    usage: '[--follow] [--after N]',
    summary: 'Print what happened, oldest first; with --json one document a line.',
    example: 'tidemark events --follow',
    run: async ({ agent, terminal }, typed) => {
      const after = typed.option('after') ?? '0'
      if (!/^\d{1,15}$/.test(after)) throw new UsageError('--after takes the number of an event')
      const print = (event: AgentEvent) =>
        terminal.json ? terminal.jsonLine(event) : terminal.lines([eventLine(event)])
      if (typed.flag('follow')) {
        for await (const event of agent.lines<AgentEvent>({
          method: 'GET',
          path: ['events'],
          query: { after, follow: 'true' },
        })) {
          print(event)
        }
        return
      }
      let cursor = Number(after)
      for (;;) {
        const events = await agent.call<AgentEvent[]>({
          method: 'GET',
          path: ['events'],
          query: { after: String(cursor) },
        })
        const next = events.filter((event) => event.number > cursor)
        for (const event of next) {
          print(event)
          cursor = event.number
        }
        if (next.length === 0) return
      }
    },
  },
]

function eventLine({ number, time, severity, code, object, text }: AgentEvent): string {
  return `${number}  ${time}  ${severity.padEnd(7)}  ${code}  ${object}  ${text}`
}
