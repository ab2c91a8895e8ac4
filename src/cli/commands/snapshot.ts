import type { SnapshotView, VolumeView } from '../../api/agent-operations.js'
import type { Command } from '../command.js'
import { bytes, table } from '../text.js'

export const snapshotCommands: Command[] = [
  {
    name: 'snapshot create',
    arguments: ['VOLUME', 'NAME'],
    options: [],
    usage: 'VOLUME NAME',
    summary: 'Keep the volume as it is at this moment, while it is in use.',
    example: 'tidemark snapshot create db monday',
    run: async ({ agent, terminal }, typed) => {
      const snapshot = await agent.call<SnapshotView>({
        method: 'POST',
        path: ['volumes', typed.argument('VOLUME'), 'snapshots'],
        body: { name: typed.argument('NAME') },
      })
      terminal.result(snapshot, [
        `Snapshot ${snapshot.volume}@${snapshot.name} is made. To use it: tidemark volume attach ${snapshot.volume}@${snapshot.name}, or with --read-only`,
      ])
    },
  },
  {
    name: 'snapshot list',
    arguments: ['VOLUME'],
    options: [],
    usage: 'VOLUME',
    summary: "List a volume's snapshots, oldest first.",
    example: 'tidemark snapshot list db',
    run: async ({ agent, terminal }, typed) => {
      const volume = typed.argument('VOLUME')
      const snapshots = await agent.get<SnapshotView[]>('volumes', volume, 'snapshots')
      const rows = snapshots.map((snapshot) => [
        snapshot.name,
        snapshot.createdAt,
        bytes(snapshot.sizeBytes),
        bytes(snapshot.allocatedBytes),
        snapshot.writtenBytes === null ? '-' : bytes(snapshot.writtenBytes),
        snapshot.state === 'attached' && snapshot.readOnly ? 'attached read-only' : snapshot.state,
        snapshot.link ?? '-',
      ])
      terminal.result(
        snapshots,
        rows.length === 0
          ? [`${volume} has no snapshots. Make one: tidemark snapshot create ${volume} NAME`]
          : table([['NAME', 'CREATED', 'SIZE', 'OWN SPACE', 'WRITTEN', 'STATE', 'DEVICE'], ...rows]),
      )
    },
  },
  {
    name: 'snapshot remove',
    arguments: ['VOLUME', 'NAME'],
    options: [],
    usage: 'VOLUME NAME',
    summary: 'Give the snapshot up, with what was written to it; its space comes back in the background.',
    example: 'tidemark snapshot remove db monday',
    run: async ({ agent, terminal }, typed) => {
      const volume = typed.argument('VOLUME')
      const name = typed.argument('NAME')
      await agent.call({ method: 'DELETE', path: ['volumes', volume, 'snapshots', name] })
      terminal.result({ volume, name, removed: true }, [
        `Snapshot ${volume}@${name} is removed. What only it held comes back in the background: tidemark pool list`,
      ])
    },
  },
  {
    name: 'snapshot discard',
    arguments: ['VOLUME', 'NAME'],
    options: [{ flags: '--yes', summary: 'what was written to it is lost' }],
    usage: 'VOLUME NAME [--yes]',
    summary: 'Make a detached snapshot that was written to what it was when it was taken.',
    example: 'tidemark snapshot discard db monday --yes',
    run: async ({ agent, terminal }, typed) => {
      const name = typed.argument('NAME')
      const snapshot = await agent.call<SnapshotView>({
        method: 'POST',
        path: ['volumes', typed.argument('VOLUME'), 'snapshots', name, 'discard'],
        query: typed.flag('yes') ? { yes: 'true' } : {},
      })
      terminal.result(snapshot, [
        `Snapshot ${snapshot.volume}@${snapshot.name} is as it was taken. The space of what was written to it comes back in the background.`,
      ])
    },
  },
  {
    name: 'snapshot rollback',
    arguments: ['VOLUME', 'NAME'],
    options: [{ flags: '--yes', summary: 'what was written since is lost' }],
    usage: 'VOLUME NAME [--yes]',
    summary: 'Make a detached volume what it was at the snapshot; newer snapshots stay.',
    example: 'tidemark snapshot rollback db monday --yes',
    run: async ({ agent, terminal }, typed) => {
      const name = typed.argument('NAME')
      const volume = await agent.call<VolumeView>({
        method: 'POST',
        path: ['volumes', typed.argument('VOLUME'), 'snapshots', name, 'rollback'],
        query: typed.flag('yes') ? { yes: 'true' } : {},
      })
      terminal.result(volume, [
        `Volume ${volume.name} is as it was at ${name}. Next: tidemark volume attach ${volume.name}`,
      ])
    },
  },
]
