import path from 'node:path'
import type { VolumeView } from '../../api/agent-operations.js'
import type { Command, Context } from '../command.js'
import { bytes, facts, table } from '../text.js'

const show = ({ terminal }: Context, volume: VolumeView, done: string) => terminal.result(volume, [done])

const where = (volume: VolumeView) => (volume.link ? `${volume.device} (${volume.link})` : String(volume.device))

export const volumeCommands: Command[] = [
  {
    name: 'volume adopt',
    arguments: ['NAME'],
    options: [{ flags: '--path PATH', summary: 'a block device or flat file', kind: 'required' }],
    usage: 'NAME --path PATH',
    summary: 'Make a volume of a device or file that exists; its data stay in place.',
    example: 'tidemark volume adopt db --path /dev/sdb1',
    run: async (context, typed) => {
      const volume = await context.agent.call<VolumeView>({
        method: 'POST',
        path: ['volumes', typed.argument('NAME'), 'adopt'],
        body: { path: path.resolve(typed.option('path')!) },
      })
      show(
        context,
        volume,
        `Volume ${volume.name} is ${volume.path}, ${bytes(volume.sizeBytes)}, data in place. Next: tidemark volume attach ${volume.name}`,
      )
    },
  },
  {
    name: 'volume create',
    arguments: ['NAME'],
    options: [
      { flags: '--path PATH', summary: 'the file to make, or a block device', kind: 'required' },
      { flags: '--size SIZE', summary: 'a multiple of 512 bytes, such as 1GiB', kind: 'required' },
      { flags: '--force', summary: 'overwrite what lies there' },
    ],
    usage: 'NAME --path PATH --size SIZE [--force]',
    summary: 'Make a new empty volume in a file or on a device.',
    example: 'tidemark volume create db --path /srv/db.img --size 1GiB',
    run: async (context, typed) => {
      const volume = await context.agent.call<VolumeView>({
        method: 'POST',
        path: ['volumes'],
        body: {
          name: typed.argument('NAME'),
          path: path.resolve(typed.option('path')!),
          size: typed.option('size'),
          ...(typed.flag('force') ? { force: true } : {}),
        },
      })
      show(
        context,
        volume,
        `Volume ${volume.name} is ${volume.path}, ${bytes(volume.sizeBytes)}, empty. Next: tidemark volume attach ${volume.name}`,
      )
    },
  },
  {
    name: 'volume attach',
    arguments: ['NAME'],
    options: [],
    usage: 'NAME',
    summary: 'Give the volume a block device, which programs use from now on.',
    example: 'tidemark volume attach db',
    run: async (context, typed) => {
      const volume = await context.agent.call<VolumeView>({
        method: 'POST',
        path: ['volumes', typed.argument('NAME'), 'attach'],
      })
      show(context, volume, `Volume ${volume.name} is attached as ${where(volume)}`)
    },
  },
  {
    name: 'volume detach',
    arguments: ['NAME'],
    options: [],
    usage: 'NAME',
    summary: "Take the volume's block device away, once nothing uses it.",
    example: 'tidemark volume detach db',
    run: async (context, typed) => {
      const volume = await context.agent.call<VolumeView>({
        method: 'POST',
        path: ['volumes', typed.argument('NAME'), 'detach'],
      })
      show(context, volume, `Volume ${volume.name} is detached; its data are in ${volume.path}`)
    },
  },
  {
    name: 'volume list',
    arguments: [],
    options: [],
    usage: '',
    summary: 'List the volumes.',
    example: 'tidemark volume list',
    run: async ({ agent, terminal }) => {
      const volumes = await agent.get<VolumeView[]>('volumes')
      const rows = volumes.map((volume) => [
        volume.name,
        bytes(volume.sizeBytes),
        volume.state,
        volume.device ?? '-',
        volume.stream ?? '-',
        volume.path,
      ])
      terminal.result(
        volumes,
        rows.length === 0
          ? ['There are no volumes. Make one: tidemark volume create NAME --path PATH --size SIZE']
          : table([['NAME', 'SIZE', 'STATE', 'DEVICE', 'STREAM', 'PATH'], ...rows]),
      )
    },
  },
  {
    name: 'volume show',
    arguments: ['NAME'],
    options: [],
    usage: 'NAME',
    summary: 'Show one volume with its counters.',
    example: 'tidemark volume show db',
    run: async ({ agent, terminal }, typed) => {
      const volume = await agent.get<VolumeView>('volumes', typed.argument('NAME'))
      const { counters } = volume
      terminal.result(
        volume,
        facts([
          ['Name', volume.name],
          ['State', `${volume.state}: ${volume.reason}`],
          ['Path', `${volume.path} (${volume.kind === 'raw' ? 'block device' : 'file'})`],
          ['Size', `${bytes(volume.sizeBytes)}, blocks of ${volume.logicalBlockBytes} B`],
          ['Device', volume.device === null ? 'none' : where(volume)],
          ['Stream', volume.stream ?? 'none'],
          ['Reads', `${counters.reads} (${bytes(counters.readBytes)})`],
          ['Writes', `${counters.writes} (${bytes(counters.writtenBytes)})`],
          ['Flushes, trims', `${counters.flushes}, ${counters.trims}`],
          ['Errors', String(counters.errors)],
        ]),
      )
    },
  },
  {
    name: 'volume remove',
    arguments: ['NAME'],
    options: [],
    usage: 'NAME',
    summary: 'Forget the volume; its data stay where they are.',
    example: 'tidemark volume remove db',
    run: async ({ agent, terminal }, typed) => {
      const name = typed.argument('NAME')
      await agent.call({ method: 'DELETE', path: ['volumes', name] })
      terminal.result({ name, removed: true }, [
        `Volume ${name} is forgotten. Its data stay where they are; tidemark volume adopt takes them in again.`,
      ])
    },
  },
]
