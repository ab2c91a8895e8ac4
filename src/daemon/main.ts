import { readFileSync } from 'node:fs'
import { realpath } from 'node:fs/promises'
import path from 'node:path'
import { pino } from 'pino'
import { startApi } from '../api/server.js'
import { makeFolder } from '../block/durable-file.js'
import { errnoOf, StorageError } from '../block/storage-error.js'
import { WorkerCalls } from '../block/worker-calls.js'
import { intercept } from '../intercept/intercept.js'
import { PackWorkers } from '../replication/pack-workers.js'
import type { FrontEndOptions } from '../volume/front-end.js'
import { ImageCopies } from '../volume/image-copies.js'
import { ThinVolumes } from '../volume/thin-volumes.js'
import { Agent } from './agent.js'
import { attachWanted, detachAll, releaseLeftovers, settleTakenBack, takeBackDevices } from './attachments.js'
import { readConfig } from './config.js'
import { Destinations } from './destinations.js'
import { EventJournal } from './event-journal.js'
import { InboundStreams } from './inbound-streams.js'
import { checkOwnFolder, checkStateDirectory } from './own-folder.js'
import { Pairings } from './pairings.js'
import { PathVolumes } from './path-volumes.js'
import { Placement } from './placement.js'
import { nameKept, streamUsing, usersOf } from './pool-users.js'
import { Pools } from './pools.js'
import { reportUnprotected } from './process-memory.js'
import { SecretFiles } from './secret-files.js'
import { lockState } from './state-lock.js'
import { StateLog } from './state-log.js'
import { Streams } from './streams.js'
import { endOnUncaught } from './sudden-end.js'
import { ThinOperations } from './thin-operations.js'
import { thinPoolEngine } from './thin-pool-engine.js'
import { Volumes } from './volumes.js'

export interface AgentOptions {
  readonly stateDirectory: string
  readonly configFile: string | undefined
}

/**
 * Run the agent until SIGTERM or SIGINT; resolves when it has stopped in order.
 *
 * Order of the start: take back the devices that an earlier agent has left with hosts, serving none; open the pools,
 * recover the streams' journals onto the volumes, then attach these (no host may write before its journal is ready, and
 * those that wait write at once), go on with copies, then let others in. The stop is the reverse; a device that is in use
 * is left to the next agent. See native/keeper/DESIGN.md.
 */
export async function runAgent(options: AgentOptions): Promise<void> {
  const stopping = new Promise<string>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => resolve(signal))
  })
  const stateDirectory = path.resolve(options.stateDirectory)
  // Nothing that is made from here on can be written by others, whatever this was started from.
  process.umask(process.umask() | 0o022)
  await makeState(stateDirectory)
  await checkStateDirectory('agent', stateDirectory)
  const unlock = await lockState(stateDirectory)
  const config = await readConfig(options.configFile, stateDirectory)
  for (const folder of [config.bufferDirectory, config.inboundDirectory]) await checkOwnFolder('agent', folder)
  const log = pino({ base: null }, pino.destination({ dest: 2, sync: true }))
  const events = new EventJournal(path.join(stateDirectory, 'events.ndjson'))
  events.listen(({ severity, code, object, text }) => {
    log[severity === 'warning' ? 'warn' : severity]({ code, object }, text)
  })
  const { report } = events
  endOnUncaught(stateDirectory, report)
  reportUnprotected(stateDirectory, report)
  const store = await StateLog.open(stateDirectory)
  const packers = new PackWorkers()
  const destager = new WorkerCalls(new URL('../destage/destage-worker.js', import.meta.url))
  const secrets = (name: string): SecretFiles => new SecretFiles(path.join(stateDirectory, name))

  const frontEnd: FrontEndOptions = {
    intercept,
    runDirectory: path.join(stateDirectory, 'run'),
    threads: config.threads,
    onLost: ({ name }, message) => {
      const text = `${message}. Hosts get errors. Run: tidemark volume attach ${name}`
      report({ severity: 'error', code: 'DEVICE_LOST', object: name, text })
    },
    onNotKept: ({ name }) => {
      const text =
        'This kernel cannot hand its device to another agent (Linux 6.9 can): its host gets I/O errors when this one ends.'
      report({ severity: 'warning', code: 'DEVICE_NOT_KEPT', object: name, text })
    },
  }
  const forbidden = [stateDirectory, config.bufferDirectory, config.inboundDirectory]
  const placement: Placement = new Placement({
    runDirectory: path.join(await realpath(stateDirectory), 'run'),
    backingOf: (name) => {
      const [volume = name] = name.split('@')
      const backing = paths.find(volume)?.definition.path
      return backing === undefined
        ? (pools.ofVolume(volume)?.facts().devices ?? []).map((device) => device.path)
        : [backing]
    },
    folders: () => [
      { what: 'state directory', path: stateDirectory },
      { what: 'buffer directory', path: config.bufferDirectory },
      { what: 'inbound directory', path: config.inboundDirectory },
      ...streams.movedBuffers().map((folder) => ({ what: 'source buffer', path: folder })),
    ],
  })
  const engine = thinPoolEngine({ config, report })
  const paths: PathVolumes = new PathVolumes({
    store,
    frontEnd,
    direct: config.direct,
    forbidden,
    poolAt: (file) => pools.at(file),
    checkPlace: (op, file) => placement.checkNewVolume(op, file),
    identify: engine.identify,
  })
  const pools: Pools = new Pools({
    store,
    engine,
    report,
    forbidden,
    marks: config.poolMarks,
    volumeAt: (file) => paths.at(file),
    nameTaken: (name, poolId) =>
      paths.find(name) ? 'this agent has one outside of every pool' : nameKept(name, poolId, streams),
    users: (pool) => usersOf(pool, { thin: thinVolumes, streams, images, inbound }),
    onClose: (pool, names) => volumes.forgetPool(pool, names),
  })
  const thinVolumes = new ThinVolumes(frontEnd)
  const volumes: Volumes = new Volumes({
    ...{ store, paths, pools, thin: thinVolumes },
    isIncoming: (name) => inbound.isMaking(name),
    whyNoState: (name) => inbound.whyNoState(name),
    streamOf: (name) => streams.ofVolume(name)?.definition.name,
  })
  const destinations = new Destinations(secrets('destinations'))
  const attachAgain = (names: readonly string[]): void =>
    void attachWanted(volumes, streams, report, (name) => names.includes(name))
  const streams: Streams = new Streams({
    ...{ store, intercept, config, volumes, destinations, placement, packers, report, attachAgain },
    poolOf: (volume) => pools.ofVolume(volume),
  })
  const inbound = new InboundStreams({
    store,
    directory: config.inboundDirectory,
    worker: destager,
    report,
    pool: {
      name: config.inboundPool,
      find: () => (config.inboundPool === undefined ? undefined : pools.find(config.inboundPool)),
      ofId: (id) => pools.all().find((pool) => pool.id === id),
      volumes: thinVolumes,
      isTaken: (name) => pools.ofVolume(name)?.name !== config.inboundPool && volumes.find(name) !== undefined,
    },
  })
  const atBoundary = <T>(volume: string, action: () => Promise<T>): Promise<T> =>
    inbound.atEpochBoundary(volume, action)
  const images = new ImageCopies({
    volumes: thinVolumes,
    atBoundary,
    holdEpoch: (volume) => streams.holdEpoch(volume),
    isRecorded: (volume) => streams.ofVolume(volume) !== undefined,
    report,
  })
  const streamOf = (volume: string): string | undefined => streamUsing(volume, pools.ofVolume(volume), streams, inbound)
  const thin = new ThinOperations({ pools, volumes, images, atBoundary, streamOf, report })

  const takenBack = await takeBackDevices(stateDirectory, intercept, report)
  await releaseLeftovers(frontEnd.runDirectory, intercept, report)
  await pools.open()
  if (config.inboundPool !== undefined && !pools.find(config.inboundPool)) {
    const text = 'It is not open: what arrives waits for it. See: tidemark pool list'
    report({ severity: 'warning', code: 'INBOUND_POOL_MISSING', object: config.inboundPool, text })
  }
  await destinations.open()
  await streams.open()
  await attachWanted(volumes, streams, report)
  await settleTakenBack(takenBack, volumes, intercept, report)
  for (const pool of pools.all()) await images.resume(pool)
  const pairings = new Pairings({
    store,
    pairingSecrets: secrets('pairings'),
    ownSecrets: secrets('own'),
    inbound,
    inboxDirectory: path.join(stateDirectory, 'inbox'),
    listen: config.listen,
    report,
  })
  await pairings.open()
  const version = readVersion()
  const parts = {
    version,
    intercept,
    pools,
    paths,
    volumes,
    thin,
    images,
    destinations,
    streams,
    inbound,
    pairings,
    events,
  }
  const operations = new Agent(parts)
  const socketPath = path.join(stateDirectory, 'agent.sock')
  const api = await startApi({ operations, socketPath, log })
  report({
    severity: 'info',
    code: 'AGENT_STARTED',
    object: stateDirectory,
    text: `version ${version}, pid ${process.pid}`,
  })

  const signal = await stopping
  await api.close()
  await pairings.close()
  await images.stop()
  await inbound.stop()
  await detachAll(volumes, report)
  await streams.stop()
  await pools.close()
  await destinations.close()
  await packers.close()
  await destager.close()
  report({ severity: 'info', code: 'AGENT_STOPPED', object: stateDirectory, text: `by ${signal}` })
  await store.close()
  // What is in use is served, and recorded, to the end of the process: nobody else may begin before the kernel unlocks.
  if (volumes.attached().length === 0) unlock()
}

async function makeState(directory: string): Promise<void> {
  try {
    await makeFolder(directory)
  } catch (cause) {
    throw new StorageError('STATE_UNAVAILABLE', {
      op: 'agent',
      object: directory,
      cause,
      hint: errnoOf(cause) === 'EACCES' ? 'Run the agent as root.' : 'Give --state a folder that can be made.',
    })
  }
}

function readVersion(): string {
  const manifest = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'))
  return String(manifest.version)
}
