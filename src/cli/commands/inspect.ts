import path from 'node:path'
import type { Command } from '../command.js'

export const inspectCommands: Command[] = [
  {
    name: 'inspect',
    arguments: ['FILE'],
    options: [{ flags: '--state DIR', summary: "an agent's folder, for the keys of a sealed replication file" }],
    usage: 'FILE [--state DIR]',
    summary: 'Print every record of a journal segment or replication file; needs no running agent.',
    example: 'tidemark inspect 000000000041.tmr --state /var/lib/tidemark',
    run: async ({ local, terminal }, typed) => {
      const state = typed.option('state')
      await local.inspectFile({
        file: path.resolve(typed.argument('FILE')),
        stateDirectory: state === undefined ? undefined : path.resolve(state),
        json: terminal.json,
        write: (text) => terminal.text(text),
      })
    },
  },
]
