import { resolve } from 'node:path'
import type { StreamView } from '../../api/agent-operations.js'
import type { Command } from '../command.js'
import { waitForBuffer } from '../wait.js'

export const bufferCommands: Command[] = [
  {
    name: 'buffer move',
    arguments: ['STREAM', 'DIR'],
    options: [{ flags: '--wait', summary: 'return when everything is moved' }],
    usage: 'STREAM DIR [--wait]',
    summary:
      "Move a stream's waiting replication files to an empty directory, while it is in use; the journal stays where it is.",
    example: 'tidemark buffer move gold /srv/buffer2 --wait',
    run: async (context, typed) => {
      const started = await context.agent.call<StreamView>({
        method: 'POST',
        path: ['streams', typed.argument('STREAM'), 'buffer', 'move'],
        body: { directory: resolve(typed.argument('DIR')) },
      })
      const stream = typed.flag('wait') ? await waitForBuffer(context, started) : started
      context.terminal.result(stream, moved(stream))
    },
  },
  {
    name: 'buffer abort',
    arguments: ['STREAM'],
    options: [{ flags: '--wait', summary: 'return when everything is back' }],
    usage: 'STREAM [--wait]',
    summary: 'Call off a move of the buffer: what was moved goes back.',
    example: 'tidemark buffer abort gold --wait',
    run: async (context, typed) => {
      const started = await context.agent.call<StreamView>({
        method: 'POST',
        path: ['streams', typed.argument('STREAM'), 'buffer', 'abort'],
      })
      const stream = typed.flag('wait') ? await waitForBuffer(context, started) : started
      context.terminal.result(stream, moved(stream))
    },
  },
]

function moved({ name, buffer: { directory, move } }: StreamView): string[] {
  if (move === null) return [`The buffer of stream ${name} is in ${directory}`]
  return [
    `The buffer of stream ${name} moves from ${move.from} to ${directory}. Follow it: tidemark stream status ${name}`,
  ]
}
