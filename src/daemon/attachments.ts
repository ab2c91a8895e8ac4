import { readdir } from 'node:fs/promises'
import path from 'node:path'
import type { ReportEvent } from '../block/event-log.js'
import { StorageError } from '../block/storage-error.js'
import type { Intercept } from '../intercept/addon.js'
import type { Streams } from './streams.js'
import type { Volumes } from './volumes.js'

/**
 * Take away what an earlier agent of this state left behind when it died: dead devices, of volumes too that are gone or in
 * other hands by now.
 */
export async function releaseLeftovers(
  runDirectory: string,
  intercept: Pick<Intercept, 'releaseStale'>,
  report: ReportEvent,
): Promise<void> {
  // Names alone: whoever looks at the files themselves asks front ends that are dead.
  for (const name of await readdir(runDirectory).catch(() => [])) {
    await intercept.releaseStale(path.join(runDirectory, name)).catch((error) => {
      report({ severity: 'warning', code: 'LEFTOVER_KEPT', object: name, text: textOf(error) })
    })
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
  for (const { name, readOnly } of volumes.wanted()) {
    const [volume = ''] = name.split('@')
    if (!concerns(volume)) continue
    try {
      if (streams.ofVolume(name)?.status().state === 'failed') throw new Error('its stream could not be recovered')
      await volumes.attach(volumes.named(name), readOnly)
    } catch (error) {
      report({ severity: 'error', code: 'ATTACH_FAILED', object: name, text: textOf(error) })
    }
  }
}

/** What a host still uses stays to the end: it is recorded to the last moment. */
export async function detachAll(volumes: Volumes, report: ReportEvent): Promise<void> {
  for (const volume of volumes.attached()) {
    try {
      await volume.detach()
    } catch (error) {
      report({
        severity: 'warning',
        code: 'STOPPED_IN_USE',
        object: volume.name,
        text: `${textOf(error)} Its host gets I/O errors until an agent is back and it is mounted again.`,
      })
    }
  }
}

function textOf(error: unknown): string {
  return error instanceof StorageError ? `${error.message}. ${error.hint}` : String(error)
}
