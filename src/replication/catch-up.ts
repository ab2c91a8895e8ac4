import type { Lsn } from '../block/units.js'
import type { RegionMap } from '../journal/region-map.js'
import type { CopyPlan } from './copy-planner.js'
import { type CopyPiece, EPOCH_COPY_LIMIT } from './pack-job.js'
import type { RegionKeeper } from './region-keeper.js'
import {
  type CopyCursor,
  isAfresh,
  type PositionChange,
  type StreamPosition,
  type StreamState,
} from './stream-state.js'
import type { VolumeFile } from './volume-file.js'

export interface CatchUpBegin {
  readonly regions: RegionMap
  readonly reason: string
  /** The journal's end: what it holds is older than what the volumes do. */
  readonly afterLsn: Lsn
  /** What was sent there before is not believed to be there. */
  readonly afresh?: boolean
}

/**
 * Regions that are sent again as they are now, in epochs of which only the last one is a state: the far side shows them
 * at once. The map lies in a file, where the copy stands in it is recorded with each epoch.
 */
export class CatchUp {
  readonly #keeper: RegionKeeper
  #map: RegionMap | undefined

  constructor(keeper: RegionKeeper) {
    this.#keeper = keeper
  }

  /** While there are regions to be copied. @returns whether the map can be had */
  async load({ copy, catchUp }: StreamPosition): Promise<boolean> {
    this.#map = copy && catchUp ? await this.#keeper.loadCatchUp() : undefined
    return !copy || !catchUp || this.#map !== undefined
  }

  /**
   * Copy these regions, and what an earlier copy had not come to. The map is durable before the position says so, so a
   * crash between the two repeats it; `change` is recorded with the position.
   */
  async begin(
    state: StreamState,
    { regions, reason, afterLsn, afresh }: CatchUpBegin,
    change: PositionChange = {},
  ): Promise<void> {
    const { position } = state
    const map = this.#keeper.fresh()
    map.addAll(regions)
    if (position.copy) map.addAll(await this.#left(position, position.copy))
    await this.#keeper.saveCatchUp(map)
    const totalBytes = map.bytes()
    await state.move((now) => ({
      ...(typeof change === 'function' ? change(now) : change),
      copy: { slot: 0, offset: 0 },
      catchUp: {
        ...{ reason, totalBytes, untilEpoch: 0, afterLsn: afterLsn.toString() },
        afresh: afresh === true || (now.copy !== null && isAfresh(now)),
      },
    }))
    this.#map = map
  }

  /** The next pieces of a catch-up; null while an initialisation copies. */
  plan(volumes: readonly VolumeFile[], cursor: CopyCursor): CopyPlan | null {
    return this.#map ? planRegions(volumes, cursor, this.#map) : null
  }

  doneBytes(cursor: CopyCursor): number {
    return this.#map?.bytes({ volume: cursor.slot, offset: cursor.offset }) ?? 0
  }

  async #left({ catchUp }: StreamPosition, cursor: CopyCursor): Promise<RegionMap> {
    if (catchUp) return (await this.#keeper.loadCatchUp()) ?? this.#keeper.everything()
    const rest = this.#keeper.fresh()
    rest.layout.volumeBytes.forEach((bytes, volume) => {
      const from = volume < cursor.slot ? bytes : volume === cursor.slot ? cursor.offset : 0
      rest.add(volume, from, bytes - from)
    })
    return rest
  }
}

/** At most one epoch's worth of the regions in the map, from the cursor on, zeros and all. */
export function planRegions(volumes: readonly VolumeFile[], cursor: CopyCursor, map: RegionMap): CopyPlan {
  const pieces: CopyPiece[] = []
  let { slot, offset } = cursor
  let room = EPOCH_COPY_LIMIT
  while (slot < volumes.length) {
    const volume = volumes[slot]!
    const run = map.next(volume.index, offset)
    if (!run) {
      slot += 1
      offset = 0
      continue
    }
    if (room === 0) return { pieces, next: { slot, offset } }
    const lengthBytes = Math.min(room, run.lengthBytes)
    pieces.push({ volume: volume.index, path: volume.path, offset: run.offset, lengthBytes })
    room -= lengthBytes
    offset = run.offset + lengthBytes
  }
  return { pieces, next: null }
}
