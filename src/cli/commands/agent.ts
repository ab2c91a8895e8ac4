import path from 'node:path'
import type { AgentView } from '../../api/agent-operations.js'
import type { Command } from '../command.js'
import { facts } from '../text.js'

const DEFAULT_STATE = '/var/lib/tidemark'

export const agentCommands: Command[] = [
  {
    name: 'agent',
    arguments: [],
    options: [
      {
        flags: '--state DIR',
        summary: `where it keeps everything; its socket is DIR/agent.sock (default: ${DEFAULT_STATE})`,
      },
      { flags: '--config FILE', summary: 'its configuration, YAML' },
    ],
    usage: '[--state DIR] [--config FILE]',
    summary: 'Run the agent in the foreground until it is stopped with SIGTERM or Ctrl-C.',
    example: 'tidemark agent --state /var/lib/tidemark',
    run: async ({ local }, typed) => {
      const config = typed.option('config')
      await local.runAgent({
        stateDirectory: path.resolve(typed.option('state') ?? DEFAULT_STATE),
        configFile: config === undefined ? undefined : path.resolve(config),
      })
    },
  },
  {
    name: 'agent show',
    arguments: [],
    options: [],
    usage: '',
    summary: 'Show the running agent: version, process, state, address.',
    example: 'tidemark agent show',
    run: async ({ agent, terminal }) => {
      const view = await agent.get<AgentView>('agent')
      terminal.result(
        view,
        facts([
          ['Version', view.version],
          ['Process', String(view.pid)],
          ['State', view.state],
          ['Listens on', view.listen ?? 'nothing'],
          ['JavaScript calls', String(view.javascriptCalls)],
        ]),
      )
    },
  },
]
