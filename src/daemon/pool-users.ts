import { incomingName } from '../destage/pool-images.js'
import type { ThinPool } from '../pool/thin-pool.js'
import type { ImageCopies } from '../volume/image-copies.js'
import type { ThinVolumes } from '../volume/thin-volumes.js'
import type { InboundStreams } from './inbound-streams.js'
import type { Streams } from './streams.js'

/** What keeps a pool from being closed, each as a sentence that says what to do. */
export function usersOf(
  pool: ThinPool,
  by: {
    readonly thin: ThinVolumes
    readonly streams: Streams
    readonly inbound: InboundStreams
    readonly images: ImageCopies
  },
): string[] {
  const attached = by.thin
    .known()
    .filter((volume) => volume.pool === pool && volume.device !== null)
    .map(({ name }) => `${name} is attached: tidemark volume detach ${name}.`)
  const names = pool.volumes().map(({ name }) => name)
  const recorded = names.flatMap((name) => streamUsing(name, pool, by.streams, by.inbound) ?? [])
  const copied = names
    .filter((name) => by.images.progress(name) !== null)
    .map((name) => `${name} is being copied: tidemark volume show ${name}.`)
  return [...attached, ...recorded, ...copied]
}

/**
 * The stream that records a volume, or brings it here, as a sentence; or undefined.
 * @param pool that has it, if any does
 */
export function streamUsing(
  volume: string,
  pool: ThinPool | undefined,
  streams: Pick<Streams, 'ofVolume'>,
  inbound: Pick<InboundStreams, 'list'>,
): string | undefined {
  const records = streams.ofVolume(volume)?.definition.name
  if (records !== undefined) return `The stream ${records} records ${volume}.`
  // What an operator made under the name of an arriving volume is his.
  if (pool?.volume(volume).role !== 'inbound') return undefined
  const brings = inbound
    .list()
    .find(({ volumes }) =>
      volumes.some(
        (arriving) => arriving.volume !== null && [arriving.volume, incomingName(arriving.volume)].includes(volume),
      ),
    )
  return brings && `${volume} arrives with the stream ${brings.stream}, as long as this agent runs.`
}

/** Why a volume of this pool cannot have this name, if a stream has a journal for another one: as a half-sentence. */
export function nameKept(volume: string, poolId: string, streams: Pick<Streams, 'ofVolume'>): string | undefined {
  const { name, volumes } = streams.ofVolume(volume)?.definition ?? {}
  const kept = volumes?.find((recorded) => recorded.name === volume)?.pool
  return kept === undefined || kept === poolId ? undefined : `the stream ${name} has a journal for that of another pool`
}
