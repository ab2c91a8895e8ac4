import { chmod, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { FtpServer } from '../../../test/fixtures/ftp-servers/ftp-server.js'
import { startVsftpd } from '../../../test/fixtures/ftp-servers/vsftpd.js'
import { BenchAgent, until } from '../agents.js'
import { applied, cut, mirror, type Pair, startPair } from '../streams.js'
import { makePooledVolume, poolName, type VolumeKind } from '../volumes.js'
import type { Workload } from '../workloads.js'
import { type OpenRow, type Row, type RowSetting, takesAnyVolume } from './row.js'

const GiB = 2 ** 30
const stream = 'bench'
/** While the link is down: sent and applied, unmeasured, before this much has collected. */
const backlogLimitBytes = 2 * GiB
/** The agent's own limit of journal and source buffer of one stream, and what is free of them never. */
const journalLimitBytes = 4 * GiB
const backgroundLimitMs = 600_000

type Streaming = 'none' | 'up' | 'down'

function agentOptions({ mode }: RowSetting): { config: Record<string, boolean> } {
  return { config: { 'volume.direct': mode === 'direct' } }
}

async function openAlone(kind: VolumeKind, setting: RowSetting): Promise<OpenRow> {
  const agent = await BenchAgent.start(setting.folder, 'agent', agentOptions(setting))
  try {
    const { name, device } = await makePooledVolume(agent, kind, setting.folder, setting.volumeBytes)
    return {
      target: { device },
      ...(kind === 'thin' ? { snapshot: snapshots(agent, name) } : {}),
      close: () => agent.stop(),
    }
  } catch (error) {
    await agent.stop()
    throw error
  }
}

/** Each call: the snapshot before is gone, what it held is given back, and a new one is there. */
function snapshots(agent: BenchAgent, volume: string): () => Promise<void> {
  let taken = false
  return async () => {
    if (taken) await agent.cli('snapshot', 'remove', volume, 'bench')
    await until(
      () => agent.api.get<{ readonly background: string | null }>('pools', poolName),
      ({ background }) => background === null,
      backgroundLimitMs,
    )
    await agent.cli('snapshot', 'create', volume, 'bench')
    taken = true
  }
}

async function openStreaming(kind: VolumeKind, up: boolean, setting: RowSetting): Promise<OpenRow> {
  const server = await startFtp(setting.folder)
  let sites: Pair | undefined
  const close = async (): Promise<void> => {
    await sites?.stop()
    await server.stop()
  }
  try {
    const link = { via: 'ftp', url: server.url, inbox: server.inbox } as const
    sites = await startPair(setting.folder, link, agentOptions(setting))
    const { source } = sites
    const { name, device } = await makePooledVolume(source, kind, setting.folder, setting.volumeBytes)
    return {
      target: { device },
      begin: async () => {
        await mirror(source, stream, name)
        if (!up) await server.kill()
      },
      settle: () => (up ? applied(source, stream).then(() => undefined) : drain(source, server)),
      ...(kind === 'thin' && up ? { snapshot: snapshots(source, name) } : {}),
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

/** The link stays down: epochs are only cut. Before the backlog meets a limit the link is up for a while. */
async function drain(source: BenchAgent, server: FtpServer): Promise<void> {
  await cut(source, stream)
  const { state, reason, waitingBytes } = await source.stream(stream)
  if (state === 'failed' || state === 'diverged') throw new Error(`${stream}: ${state}, ${reason}`)
  if (waitingBytes < backlogLimitBytes) return
  await server.start()
  await applied(source, stream)
  await server.kill()
}

async function startFtp(folder: string): Promise<FtpServer> {
  const root = join(folder, 'ftp')
  await mkdir(root)
  // Its sessions run as another user.
  await chmod(folder, 0o755)
  return startVsftpd({ root })
}

function volumeRow(kind: VolumeKind, streaming: Streaming): Row {
  const tail = { none: '', up: '-stream', down: '-stream-down' }[streaming]
  const words = { none: '', up: ' + stream', down: ' + stream, link down' }[streaming]
  const snapshots = kind === 'thin' && streaming !== 'down'
  return {
    id: `${kind}${tail}`,
    title: `${kind} volume${words}`,
    group: 'tidemark',
    modes: streaming === 'down' ? ['page-cache'] : ['page-cache', 'direct'],
    quick: kind === 'thin' ? streaming !== 'down' : streaming === 'none',
    needsPools: kind === 'thin',
    takes: (workload: Workload) => {
      if (workload.afterSnapshot) return snapshots
      // A link that is down changes nothing for readers.
      return takesAnyVolume(workload) && !(streaming === 'down' && workload.reads)
    },
    diskBytes: (volumeBytes) =>
      (kind === 'thin' ? 2 : 1) * volumeBytes +
      (streaming === 'none' ? 0 : 2 * volumeBytes + journalLimitBytes + (streaming === 'down' ? backlogLimitBytes : 0)),
    open: (setting) =>
      streaming === 'none' ? openAlone(kind, setting) : openStreaming(kind, streaming === 'up', setting),
  }
}

const streamings: readonly Streaming[] = ['none', 'up', 'down']

export const volumeRows: readonly Row[] = (['linear', 'thin'] as const).flatMap((kind) =>
  streamings.map((streaming) => volumeRow(kind, streaming)),
)
