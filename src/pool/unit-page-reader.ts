import { StorageError } from '../block/storage-error.js'
import type { DeviceFile } from './device-file.js'
import { type Geometry, noLayer, pageBytes, type UnitIndex } from './geometry.js'
import { other, unitPageOffset } from './tree-reader.js'
import type { UnitMap } from './unit-map.js'
import { decodeUnitPage, freeSlot, soundPageChecksum, UNIT_PAGE_MAGIC, type UnitPage } from './unit-page.js'

/** Pages read with one call, and calls under way at once. */
const runPages = 256
const readsAtOnce = 4

/** Units whose pages lie one behind the other. */
interface Run {
  readonly device: number
  readonly copy: 0 | 1
  readonly onDevice: number
  readonly indices: UnitIndex[]
}

/**
 * Read the pages of used units and hand them over in the order given, which should be ascending.
 *
 * @throws StorageError POOL_DAMAGED naming the first unit whose page has no sound copy
 */
export async function readUnitPages(
  devices: readonly DeviceFile[],
  geometry: Geometry,
  units: UnitMap,
  indices: Iterable<UnitIndex>,
  visit: (page: UnitPage, index: UnitIndex) => void,
): Promise<void> {
  const read = async (run: Run): Promise<UnitPage[]> => {
    const layout = geometry.devices[run.device]!
    const device = devices[run.device]!
    const offset = unitPageOffset(layout, run.copy, run.onDevice)
    const bytes = await device.read(offset, run.indices.length * pageBytes)
    const pages: UnitPage[] = []
    for (const [at, index] of run.indices.entries()) {
      const page = soundPage(geometry, units, index, bytes.subarray(at * pageBytes, (at + 1) * pageBytes))
      pages.push(page ?? (await readUnitPage(devices, geometry, units, index)))
    }
    return pages
  }
  const waiting: { run: Run; pages: Promise<UnitPage[]> }[] = []
  const next = async (): Promise<void> => {
    const { run, pages } = waiting.shift()!
    for (const [at, page] of (await pages).entries()) visit(page, run.indices[at]!)
  }
  try {
    for (const run of runsOf(geometry, units, indices)) {
      waiting.push({ run, pages: read(run) })
      if (waiting.length === readsAtOnce) await next()
    }
    while (waiting.length > 0) await next()
  } finally {
    await Promise.allSettled(waiting.map(({ pages }) => pages))
  }
}

/** Attempts while checkpoints go by: each gives the page another place. */
const attempts = 4

/** One page, from its named copy or from the other when that is the same. @throws StorageError POOL_DAMAGED */
export async function readUnitPage(
  devices: readonly DeviceFile[],
  geometry: Geometry,
  units: UnitMap,
  index: UnitIndex,
): Promise<UnitPage> {
  const device = geometry.deviceAt(index)
  const layout = geometry.devices[device]!
  const onDevice = index - geometry.baseOf(device)
  for (let attempt = 0; attempt < attempts; attempt += 1) {
    const named = units.copy[index] as 0 | 1
    const crc = units.pageCrc[index]
    for (const copy of [named, other(named)]) {
      const bytes = await devices[device]!.read(unitPageOffset(layout, copy, onDevice), pageBytes)
      const page = soundPage(geometry, units, index, bytes)
      if (page) return page
    }
    if (units.copy[index] === named && units.pageCrc[index] === crc) break
  }
  throw new StorageError('POOL_DAMAGED', {
    op: 'pool metadata',
    object: geometry.describeUnit(geometry.unitAt(index)),
    cause: new Error(`the page of a unit of layer ${units.layer[index]} is damaged`),
    hint: 'Its volumes cannot be used. Close the pool and run: tidemark pool check --repair',
  })
}

/** The page when it is the one that the unit map names; an empty one when it names none. */
function soundPage(geometry: Geometry, units: UnitMap, index: UnitIndex, bytes: Buffer): UnitPage | undefined {
  if (units.layer[index] === noLayer) {
    const blocks = new Float64Array(geometry.blocksPerUnit).fill(freeSlot)
    return { unit: geometry.unitAt(index), layer: noLayer, checkpoint: 0, blocks }
  }
  if (soundPageChecksum(bytes, UNIT_PAGE_MAGIC) !== units.pageCrc[index]) return undefined
  return decodeUnitPage(bytes, geometry.unitAt(index), geometry.blocksPerUnit)
}

function* runsOf(geometry: Geometry, units: UnitMap, indices: Iterable<UnitIndex>): Generator<Run> {
  let run: Run | undefined
  for (const index of indices) {
    const copy = units.copy[index] as 0 | 1
    const device = geometry.deviceAt(index)
    const onDevice = index - geometry.baseOf(device)
    if (
      run &&
      run.device === device &&
      run.copy === copy &&
      run.onDevice + run.indices.length === onDevice &&
      run.indices.length < runPages
    ) {
      run.indices.push(index)
      continue
    }
    if (run) yield run
    run = { device, copy, onDevice, indices: [index] }
  }
  if (run) yield run
}
