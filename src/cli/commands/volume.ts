import path from 'node:path'
import type { SnapshotView, VolumeView } from '../../api/agent-operations.js'
import type { Command, Context, Typed } from '../command.js'
import { UsageError } from '../failure.js'
import { parseTarget, targetPath } from '../target.js'
import { bytes, facts, percent, table } from '../text.js'
import { diffCommand } from './volume-diff.js'

const show = ({ terminal }: Context, volume: VolumeView, done: string) => terminal.result(volume, [done])

const where = ({ device, link }: VolumeView | SnapshotView) => (link ? `${device} (${link})` : String(device))

const place = (volume: VolumeView) => volume.path ?? `the pool ${volume.pool}`

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
      { flags: '--path PATH', summary: 'the file to make, or a block device' },
      { flags: '--pool POOL', summary: 'thin: space comes from this pool as it is written' },
      { flags: '--size SIZE', summary: 'a multiple of 512 bytes, such as 1GiB', kind: 'required' },
      { flags: '--force', summary: 'with --path: overwrite what lies there' },
    ],
    usage: 'NAME --path PATH --size SIZE [--force] | NAME --pool POOL --size SIZE',
    summary: 'Make a new empty volume in a file, on a device, or thin in a pool.',
    example: 'tidemark volume create db --pool fast --size 300GiB',
    run: createVolume,
  },
  {
    name: 'volume attach',
    arguments: ['NAME'],
    options: [{ flags: '--read-only', summary: 'its device refuses writes; of a snapshot: what was taken' }],
    usage: 'NAME|VOLUME@SNAPSHOT [--read-only]',
    summary: 'Give the volume or snapshot a block device, which programs use from now on.',
    example: 'tidemark volume attach db',
    run: async ({ agent, terminal }, typed) => {
      const target = parseTarget(typed.argument('NAME'))
      const attached = await agent.call<VolumeView | SnapshotView>({
        method: 'POST',
        path: [...targetPath(target), 'attach'],
        query: typed.flag('read-only') ? { readOnly: 'true' } : {},
      })
      terminal.result(attached, [
        'volume' in attached
          ? snapshotAttached(attached)
          : `Volume ${attached.name} is attached ${attached.readOnly ? 'read-only ' : ''}as ${where(attached)}${attached.role === 'inbound' ? `: ${attached.reason}` : ''}`,
      ])
    },
  },
  {
    name: 'volume detach',
    arguments: ['NAME'],
    options: [],
    usage: 'NAME|VOLUME@SNAPSHOT',
    summary: 'Take the block device away, once nothing uses it.',
    example: 'tidemark volume detach db',
    run: async ({ agent, terminal }, typed) => {
      const target = parseTarget(typed.argument('NAME'))
      const detached = await agent.call<VolumeView | SnapshotView>({
        method: 'POST',
        path: [...targetPath(target), 'detach'],
      })
      terminal.result(detached, [
        'volume' in detached
          ? `Snapshot ${detached.volume}@${detached.name} is detached`
          : `Volume ${detached.name} is detached; its data are in ${place(detached)}`,
      ])
    },
  },
  {
    name: 'volume resize',
    arguments: ['NAME'],
    options: [
      { flags: '--size SIZE', summary: 'the new size', kind: 'required' },
      { flags: '--force', summary: 'also make it smaller: what lies beyond the new end is lost' },
    ],
    usage: 'NAME --size SIZE [--force]',
    summary: 'Make a thin volume larger, also while it is in use; smaller only with --force.',
    example: 'tidemark volume resize db --size 500GiB',
    run: async (context, typed) => {
      const volume = await context.agent.call<VolumeView>({
        method: 'POST',
        path: ['volumes', typed.argument('NAME'), 'resize'],
        body: { size: typed.option('size'), ...(typed.flag('force') ? { force: true } : {}) },
      })
      show(context, volume, `Volume ${volume.name} has ${bytes(volume.sizeBytes)}. Next: enlarge what lies on it.`)
    },
  },
  diffCommand,
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
        volume.path ?? `pool ${volume.pool}`,
      ])
      terminal.result(
        volumes,
        rows.length === 0
          ? ['There are no volumes. Make one: tidemark volume create NAME --pool POOL --size SIZE']
          : table([['NAME', 'SIZE', 'STATE', 'DEVICE', 'STREAM', 'WHERE'], ...rows]),
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
          ...placeFacts(volume),
          ['Size', sizeOf(volume)],
          ['Device', volume.device === null ? 'none' : `${where(volume)}${volume.readOnly ? ', read-only' : ''}`],
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
    options: [{ flags: '--yes', summary: "destroy a thin volume's data" }],
    usage: 'NAME [--yes]',
    summary: 'Forget a volume with a path, whose data stay; destroy a thin one.',
    example: 'tidemark volume remove db',
    run: async ({ agent, terminal }, typed) => {
      const name = typed.argument('NAME')
      const yes = typed.flag('yes')
      await agent.call({ method: 'DELETE', path: ['volumes', name], query: yes ? { yes: 'true' } : {} })
      terminal.result({ name, removed: true }, [
        `Volume ${name} is gone from here. What lies at a path stays there, and tidemark volume adopt takes it in again; the space of a thin volume comes back.`,
      ])
    },
  },
]

function snapshotAttached(snapshot: SnapshotView): string {
  const { volume, name, readOnly } = snapshot
  if (readOnly) return `Snapshot ${volume}@${name} is attached read-only, as it was taken, as ${where(snapshot)}`
  return `Snapshot ${volume}@${name} is attached as ${where(snapshot)}. What is written to it is kept apart; to have it as it was taken again: tidemark snapshot discard ${volume} ${name}`
}

async function createVolume(context: Context, typed: Typed): Promise<void> {
  const file = typed.option('path')
  const pool = typed.option('pool')
  if ((file === undefined) === (pool === undefined)) throw new UsageError('give --path or --pool')
  if (pool !== undefined && typed.flag('force')) throw new UsageError('--force goes with --path')
  const volume = await context.agent.call<VolumeView>({
    method: 'POST',
    path: ['volumes'],
    body: {
      name: typed.argument('NAME'),
      ...(file === undefined ? { pool } : { path: path.resolve(file) }),
      size: typed.option('size'),
      ...(typed.flag('force') ? { force: true } : {}),
    },
  })
  show(
    context,
    volume,
    `Volume ${volume.name} is ${volume.path ?? `thin in ${place(volume)}`}, ${bytes(volume.sizeBytes)}, empty. Next: tidemark volume attach ${volume.name}`,
  )
}

function sizeOf({ sizeBytes, logicalBlockBytes }: VolumeView): string {
  // Known while it is attached.
  return logicalBlockBytes > 0 ? `${bytes(sizeBytes)}, blocks of ${logicalBlockBytes} B` : bytes(sizeBytes)
}

/** Where it lies, and of a thin one what it takes and where it comes from. */
function placeFacts(volume: VolumeView): [string, string][] {
  const { kind, pool, allocatedBytes, snapshots, origin, image, role } = volume
  if (kind !== 'thin') return [['Path', `${volume.path} (${kind === 'raw' ? 'block device' : 'file'})`]]
  const lines: [string, string][] = [
    ['Pool', `${pool}, ${bytes(allocatedBytes ?? 0)} allocated to it and its snapshots`],
    ['Snapshots', String(snapshots)],
  ]
  if (role === 'inbound') lines.push(['Role', 'arrives from a source'])
  if (origin !== null) lines.push(['Clone of', origin])
  if (image === null) return lines
  const { progress } = image
  const done = progress ? `, ${percent(progress.doneBytes, progress.totalBytes)} copied` : ''
  return [...lines, ['Complete image', `of ${image.volume}: ${image.reason}${done}`]]
}
