import path from 'node:path'
import type { Command, Context, Typed } from '../command.js'
import { bytes, table } from '../text.js'

const stateOption = { flags: '--state DIR', summary: "the agent's folder (default: that of its socket)" } as const

/** The keeper is asked by way of the agent's folder: it may be alone there. */
const folderOf = ({ agent }: Context, typed: Typed) => path.resolve(typed.option('state') ?? agent.directory)

export const keeperCommands: Command[] = [
  {
    name: 'keeper list',
    arguments: [],
    options: [stateOption],
    usage: '[--state DIR]',
    summary: 'List the devices that outlive their agent, and whose hosts wait for the next; needs no running agent.',
    example: 'tidemark keeper list',
    run: async (context, typed) => {
      const devices = await context.local.listKept(folderOf(context, typed))
      const rows = devices.map(({ name, device, sizeBytes, readOnly, state }) => [
        name,
        device,
        bytes(sizeBytes),
        readOnly ? 'read-only' : 'read-write',
        state,
      ])
      const lines =
        rows.length === 0 ? ['No device is held.'] : table([['NAME', 'DEVICE', 'SIZE', 'ACCESS', 'STATE'], ...rows])
      context.terminal.result(devices, lines)
    },
  },
  {
    name: 'keeper abort',
    arguments: ['NAME'],
    options: [stateOption],
    usage: 'NAME|VOLUME@SNAPSHOT [--state DIR]',
    summary: 'Let go of a host that waits although no agent comes: it gets I/O errors; needs no running agent.',
    example: 'tidemark keeper abort db',
    run: async (context, typed) => {
      const name = typed.argument('NAME')
      await context.local.abortKept(folderOf(context, typed), name)
      context.terminal.result({ name, aborted: true }, [
        `The device of ${name} has ended: its host gets I/O errors. Unmount it; the next agent attaches ${name} again.`,
      ])
    },
  },
]
