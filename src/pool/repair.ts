import type { Replayed } from './check-replay.js'
import { type LayerId, labelOffsets, logSequence } from './geometry.js'
import { encodeLabel } from './label.js'
import type { HoleExtents, MetadataStore } from './metadata-store.js'
import type { PoolDevices } from './pool-devices.js'
import type { UnitChange } from './unit-page.js'

/**
 * Write what a check reckoned: a checkpoint, twice, behind everything the log ever said, and labels. Durable when it
 * resolves; the pool is closed then. Cut short, the next repair begins where this one did.
 *
 * @param changes units as they are to be, each once
 */
export async function writeRepairs(
  devices: PoolDevices,
  store: MetadataStore,
  { state, end }: Replayed,
  changes: readonly UnitChange[],
): Promise<void> {
  const holes = new Map<LayerId, HoleExtents>()
  for (const [layer, set] of state.holes) if (set.extentCount > 0) holes.set(layer, set.toExtents())
  await store.checkpoint({
    catalog: state.catalog,
    holes,
    changes,
    // Records that did not count now, or that were given up, never will.
    logSequence: logSequence(end + state.geometry.head.logRecords),
    clean: true,
    twice: true,
  })
  for (const { file, label } of devices.byNumber.values()) {
    for (const offset of labelOffsets) await file.write(offset, encodeLabel(label))
    await file.sync()
  }
}
