import { readdir } from 'node:fs/promises'
import path from 'node:path'
import { eachOf } from '../block/each.js'
import type { ReportEvent } from '../block/event-log.js'
import { StorageError } from '../block/storage-error.js'
import type { Intercept, KeeperEvent } from '../intercept/addon.js'
import { removeStaleLink } from '../volume/device-link.js'
import { servedFolder } from '../volume/front-end.js'
import type { Streams } from './streams.js'
import type { Volumes } from './volumes.js'

/** Volumes that are attached, or detached, at once. */
const atOnce = 8
/** A keeper lives that holds devices, and cannot be spoken to. */
const unreachable = new Set(['KEEPER_OTHER_VERSION', 'KEEPER_SILENT'])

/**
 * Devices that the keeper has held since an earlier agent ended: their hosts wait. Each is served on when its volume is
 * attached. @returns their mount points
 * @throws StorageError KEEPER_OTHER_VERSION, KEEPER_SILENT: their hosts would get errors if this agent went on without them
 */
export async function takeBackDevices(
  stateDirectory: string,
  intercept: Pick<Intercept, 'openKeeper'>,
  report: ReportEvent,
): Promise<readonly string[]> {
  const say = (severity: 'info' | 'warning' | 'error', code: string, text: string): void =>
    report({ severity, code, object: stateDirectory, text })
  const onEvent = ({ kind, message }: KeeperEvent): void =>
    kind === 'failed' ? say('error', 'KEEPER_FAILED', message) : say('warning', 'KEEPER_REPLACED', message)
  try {
    const mountPoints = await intercept.openKeeper({ directory: stateDirectory, onEvent })
    const names = mountPoints.map((file) => path.basename(file)).join(', ')
    if (names !== '') say('info', 'DEVICES_TAKEN_OVER', `Of an earlier agent, and served on once recovered: ${names}`)
    return mountPoints
  } catch (error) {
    if (error instanceof StorageError && unreachable.has(error.code)) {
      say('error', error.code, textOf(error))
      throw error
    }
    // Hosts are served all the same, as long as this agent lives.
    say('error', 'KEEPER_FAILED', textOf(error))
    return []
  }
}

/**
 * Devices that were taken back and not attached. That of a volume which shall be attached is left to its host, which
 * waits, until that succeeds or an operator ends it; any other has no volume: its host gets errors.
 */
export async function settleTakenBack(
  mountPoints: readonly string[],
  volumes: Pick<Volumes, 'wanted' | 'attached'>,
  intercept: Pick<Intercept, 'giveUpKept'>,
  report: ReportEvent,
): Promise<void> {
  const attached = new Set(volumes.attached().map(({ name }) => name))
  const wanted = new Set(volumes.wanted().map(({ name }) => name))
  for (const file of mountPoints) {
    const name = path.basename(file)
    if (attached.has(name)) continue
    if (wanted.has(name)) {
      const text = `Its host waits. Mend what keeps it, then: tidemark volume attach ${name}; or give up: tidemark keeper abort ${name}`
      report({ severity: 'warning', code: 'HOST_WAITS', object: name, text })
      continue
    }
    await intercept
      .giveUpKept(file)
      .then(() => removeStaleLink(name))
      .catch((error) => report({ severity: 'warning', code: 'LEFTOVER_KEPT', object: name, text: textOf(error) }))
  }
}

/**
 * Take away what an earlier agent of this state left behind when it died: dead devices and their links, of volumes too
 * that are gone or in other hands by now. Not what was taken back.
 */
export async function releaseLeftovers(
  runDirectory: string,
  intercept: Pick<Intercept, 'releaseStale'>,
  report: ReportEvent,
): Promise<void> {
  // Names alone: whoever looks at the files themselves asks front ends that are dead.
  for (const folder of [runDirectory, path.join(runDirectory, servedFolder)]) {
    for (const name of await readdir(folder).catch(() => [])) {
      await intercept
        .releaseStale(path.join(folder, name))
        .then(() => removeStaleLink(name))
        .catch((error) => report({ severity: 'warning', code: 'LEFTOVER_KEPT', object: name, text: textOf(error) }))
    }
  }
}

/**
 * Give hosts back what they had when the agent stopped. One volume that cannot be attached keeps no other from its host.
 *
 * @param concerns the volumes whose pool has just appeared; absent: all
 */
export async function attachWanted(
  volumes: Volumes,
  streams: Streams,
  report: ReportEvent,
  concerns: (volume: string) => boolean = () => true,
): Promise<void> {
  await eachOf(volumes.wanted(), atOnce, async ({ name, readOnly }) => {
    const [volume = ''] = name.split('@')
    if (!concerns(volume)) return
    try {
      if (streams.ofVolume(name)?.status().state === 'failed') throw new Error('its stream could not be recovered')
      // One that could not even be admitted has a journal all the same.
      await streams.ready(name)
      await volumes.attach(volumes.named(name), readOnly)
    } catch (error) {
      report({ severity: 'error', code: 'ATTACH_FAILED', object: name, text: textOf(error) })
    }
  })
}

/** What a host still uses stays to the end, recorded to the last moment, and is left to the keeper and the next agent. */
export async function detachAll(volumes: Volumes, report: ReportEvent): Promise<void> {
  await eachOf(volumes.attached(), atOnce, async (volume) => {
    try {
      await volume.detach()
    } catch (error) {
      report({
        severity: 'warning',
        code: 'STOPPED_IN_USE',
        object: volume.name,
        text: `${textOf(error)} Its host waits for the next agent; without one: tidemark keeper abort ${volume.name}`,
      })
    }
  })
}

function textOf(error: unknown): string {
  return error instanceof StorageError ? `${error.message}. ${error.hint}` : String(error)
}
