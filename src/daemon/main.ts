import { readFileSync } from 'node:fs'
import path from 'node:path'
import { pino } from 'pino'
import { startApi } from '../api/server.js'
import { makeFolder } from '../block/durable-file.js'
import { errnoOf, StorageError } from '../block/storage-error.js'
import { WorkerCalls } from '../block/worker-calls.js'
import { intercept } from '../intercept/intercept.js'
import { Agent } from './agent.js'
import { readConfig } from './config.js'
import { Destinations } from './destinations.js'
import { EventJournal } from './event-journal.js'
import { InboundStreams } from './inbound-streams.js'
import { LmdbStore } from './lmdb-store.js'
import { Pairings } from './pairings.js'
import { SecretFiles } from './secret-files.js'
import { lockState } from './state-lock.js'
import { Streams } from './streams.js'
import { Volumes } from './volumes.js'

export interface AgentOptions {
  readonly stateDirectory: string
  readonly configFile: string | undefined
}

/**
 * Run the agent until SIGTERM or SIGINT; resolves when it has stopped in order.
 *
 * Order of the start: recover the streams' journals, then attach volumes (no host may write before its journal is
 * ready), then let others in. The stop is the reverse.
 */
export async function runAgent(options: AgentOptions): Promise<void> {
  const stopping = new Promise<string>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => resolve(signal))
  })
  const stateDirectory = path.resolve(options.stateDirectory)
  await makeState(stateDirectory)
  const unlock = lockState(stateDirectory)
  const config = await readConfig(options.configFile, stateDirectory)
  const log = pino({ base: null }, pino.destination({ dest: 2, sync: true }))
  const events = new EventJournal(path.join(stateDirectory, 'events.ndjson'))
  events.listen(({ severity, code, object, text }) => {
    log[severity === 'warning' ? 'warn' : severity]({ code, object }, text)
  })
  const { report } = events
  const store = new LmdbStore(path.join(stateDirectory, 'state.lmdb'))
  const packer = new WorkerCalls(new URL('../replication/pack-worker.js', import.meta.url))
  const destager = new WorkerCalls(new URL('../destage/destage-worker.js', import.meta.url))
  const secrets = (name: string): SecretFiles => new SecretFiles(path.join(stateDirectory, name))

  const volumes = new Volumes({ store, intercept, stateDirectory, config, report })
  const destinations = new Destinations(secrets('destinations'))
  await destinations.open()
  const streams = new Streams({ store, intercept, config, volumes, destinations, packer, report })
  await streams.open()
  await attachWanted(volumes, streams, report)
  const inbound = new InboundStreams({ store, directory: config.inboundDirectory, worker: destager, report })
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
  const operations = new Agent({ version, intercept, volumes, destinations, streams, inbound, pairings, events })
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
  await inbound.stop()
  await detachAll(volumes, report)
  await streams.stop()
  await destinations.close()
  await packer.close()
  await destager.close()
  report({ severity: 'info', code: 'AGENT_STOPPED', object: stateDirectory, text: `by ${signal}` })
  await store.close()
  unlock()
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

/** One volume that cannot be attached keeps no other from its host. */
async function attachWanted(volumes: Volumes, streams: Streams, report: EventJournal['report']): Promise<void> {
  for (const { name } of volumes.all()) {
    if (!volumes.wantsAttached(name)) continue
    try {
      if (streams.ofVolume(name)?.status().state === 'failed') throw new Error('its stream could not be recovered')
      await volumes.attach(name)
    } catch (error) {
      const text = error instanceof StorageError ? `${error.message}. ${error.hint}` : String(error)
      report({ severity: 'error', code: 'ATTACH_FAILED', object: name, text })
    }
  }
}

/** What a host still uses stays to the end: it is recorded to the last moment. */
async function detachAll(volumes: Volumes, report: EventJournal['report']): Promise<void> {
  for (const volume of volumes.all()) {
    try {
      await volume.detach()
    } catch (error) {
      const text = error instanceof StorageError ? `${error.message}. ${error.hint}` : String(error)
      report({
        severity: 'warning',
        code: 'STOPPED_IN_USE',
        object: volume.name,
        text: `${text} Its host gets I/O errors until an agent is back and it is mounted again.`,
      })
    }
  }
}

function readVersion(): string {
  const manifest = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'))
  return String(manifest.version)
}
