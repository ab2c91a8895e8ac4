import { bootId } from './boot-id.js'
import { type Catalog, isWritten } from './catalog.js'
import { catalogFaults, showingLayers } from './check-catalog.js'
import { Findings, listed, type PoolFinding } from './check-findings.js'
import { dropStrayHoles, examineLayers, freedUnit, settleLost } from './check-layers.js'
import { examineMapCopies, examineUnitPages, type PageReport } from './check-pages.js'
import { type CheckProgress, CountedPages } from './check-progress.js'
import { type LostUnit, type Replayed, replayLog, SavedPages, saveFromLog } from './check-replay.js'
import type { DeviceFile } from './device-file.js'
import type { LayerId, UnitIndex } from './geometry.js'
import { findLogEnd, type LogRing } from './log-reader.js'
import {
  type CheckpointStep,
  type FoundCheckpoint,
  type FoundTree,
  logSeed,
  MetadataStore,
  readCheckpoints,
} from './metadata-store.js'
import { openDevices, type PoolDevices } from './pool-devices.js'
import { writeRepairs } from './repair.js'

export interface PoolCheck {
  readonly name: string
  /** Hexadecimal. */
  readonly id: string
  /** By device number. */
  readonly devices: readonly string[]
  /** Nothing is wrong, or nothing any more. */
  readonly clean: boolean
  /** The pool can be opened, although something was found. */
  readonly usable: boolean
  readonly findings: readonly PoolFinding[]
  readonly volumes: number
  /** Without hidden ones. */
  readonly snapshots: number
  /** Of units that can hold data, of those that belong to a layer, and of blocks that hold data. */
  readonly sizeBytes: number
  readonly allocatedBytes: number
  readonly mappedBytes: number
}

export interface CheckOptions {
  readonly repair?: boolean
  /** As of OpenMetadataOptions. */
  readonly afterFailure?: boolean
  /** Called now and then: pages of units read, of so many that are to be read. A repair reads all of them again. */
  readonly onProgress?: (progress: CheckProgress) => void
  /** For tests: where the checkpoint of a repair may be cut short. */
  readonly onStep?: (step: CheckpointStep) => void
}

/**
 * Read all metadata of a pool that nobody has open, and say what is not as it was written. With `repair` save what can be
 * saved: copies are brought up, what the older checkpoint and the log still tell is used, space that belongs to nothing is
 * freed, and what is lost is named. Data are never touched. The pool is closed and clean then, durably.
 *
 * @throws StorageError as of MetadataStore.open(), but not POOL_DAMAGED: that is a finding
 */
export async function checkPool(paths: readonly string[], options: CheckOptions = {}): Promise<PoolCheck> {
  const found = await checkOnce(paths, options)
  if (!found.findings.some(({ repaired }) => repaired)) return found
  const left = await checkOnce(paths, options.onProgress ? { onProgress: options.onProgress } : {})
  return { ...left, findings: [...found.findings.filter(({ repaired }) => repaired), ...left.findings] }
}

async function checkOnce(paths: readonly string[], options: CheckOptions): Promise<PoolCheck> {
  const devices = await openDevices(paths, options.repair ? 'write' : 'read', true)
  try {
    return await checkDevices(devices, options)
  } finally {
    for (const { file } of devices.byNumber.values()) await file.close()
  }
}

async function checkDevices(
  devices: PoolDevices,
  { repair = false, afterFailure = false, onStep, onProgress }: CheckOptions,
): Promise<PoolCheck> {
  const progress = new CountedPages(onProgress)
  const findings = new Findings()
  findings.addDamage(devices.damage, 'warning', true)
  const { superblockDamage, checkpoints, lastBoot } = await readCheckpoints(devices, false)
  const boot = await bootId()
  const whole = checkpoints.flatMap(({ found }) => found ?? [])
  const isClosed = whole[0]?.tree.superblock.clean ?? true
  const [newest, older] = checkpoints
  if (newest) findings.addDamage(newest.damage, whole.length > 0 ? 'warning' : 'error', whole.length > 0)
  // Of a pool that was not closed, copies that a next checkpoint was about to replace may be half written; with a power
  // cut, one superblock too.
  if (isClosed || (boot.equals(lastBoot) && !afterFailure))
    findings.addDamage(superblockDamage, 'warning', whole.length > 0)
  if (older && (isClosed || !newest?.found)) findings.addDamage(older.damage, 'warning', whole.length > 0)
  const [first] = whole
  for (const text of first ? catalogFaults(first.tree.catalog) : ['no checkpoint is whole']) {
    findings.add({ severity: 'error', object: 'catalog', text, volumes: [], repairable: false })
  }
  if (!first || catalogFaults(first.tree.catalog).length > 0) return unusable(devices, first, findings)

  const ring = { file: devices.byNumber.get(0)!.file, layout: first.geometry.head, seed: logSeed(devices.poolId) }
  const base = await chooseTree(devices, whole, ring, progress)
  const { tree, geometry } = base.found
  const files = filesOf(devices, base.found)
  // What a next checkpoint began to write, or has written, over older copies is no damage; it is written again all the same.
  const isStrict = isClosed && base.found === newest?.found
  const mapDamage = await examineMapCopies(files, geometry, tree)
  if (isStrict) findings.addDamage(mapDamage, 'warning', true)
  noteCopies(base, isStrict, findings)
  const lost = await lostUnits(base, checkpoints, ring)
  const unreadable = layersOfLost(base.insteadOf ?? base)
  const options = { lock: true, readOnly: !repair, afterFailure, ...(onStep && { onStep }) }
  const store = MetadataStore.from(base.found, { devices, damage: [], boot, lastBoot, options })
  const lostRecords = await store.findLostRecords(await findLogEnd(ring, store.logSequence))
  const replayed = await replayLog(store, new SavedPages(store, lost), lost)
  for (const text of [lostRecords, replayed.misfit]) {
    if (text === undefined) continue
    const volumes = [...store.catalog.volumes.values()].filter((each) => !isWritten(each)).map(({ name }) => name)
    findings.add({ severity: 'error', object: 'log', text, volumes, repairable: true })
  }
  for (const { layer, blocks } of replayed.displaced) {
    const text = `blocks have lost their place to others: ${listed(blocks)}`
    const volumes = showingLayers(store.catalog).get(layer) ?? []
    findings.add({ severity: 'error', object: `layer ${layer}`, text, volumes, repairable: true })
  }
  const rewrite = new Set([...base.pages.misfit, ...lost.keys()])
  const corrections = await examineLayers(replayed, rewrite, findings, progress)
  await settleLost(replayed, lost, findings)
  dropStrayHoles(replayed, findings)

  const writes = repair && findings.isRepairable
  if (writes) await writeRepairs(devices, store, replayed, allChanges(replayed, lost, corrections))
  return {
    ...factsOf(devices, replayed.state.catalog, replayed),
    clean: findings.isEmpty,
    usable:
      lostRecords === undefined &&
      replayed.misfit === undefined &&
      !unreadable.some((layer) => replayed.needed.has(layer)),
    findings: findings.list(writes),
  }
}

interface Base {
  readonly found: FoundTree
  readonly pages: PageReport
  /** The newer one, which has lost more. */
  readonly insteadOf?: Base
}

/**
 * The newest checkpoint whose unit pages are all there, else the one with the fewest lost. The older one will do as well
 * as the newer when the log is whole from there on: the same records give the same state.
 */
async function chooseTree(
  devices: PoolDevices,
  whole: readonly FoundTree[],
  ring: LogRing,
  progress: CountedPages,
): Promise<Base> {
  const bases: Base[] = []
  for (const found of whole) {
    progress.expect(found.geometry.unitCount, found.tree.units.layer)
    const pages = await examineUnitPages(filesOf(devices, found), found.geometry, found.tree, progress)
    bases.push({ found, pages })
    if (pages.lost.size === 0) break
  }
  const [newest, older] = bases as [Base, Base | undefined]
  if (!older || older.pages.lost.size >= newest.pages.lost.size) return newest
  const ends = await Promise.all(
    [newest, older].map(({ found }) => findLogEnd(ring, found.tree.superblock.logSequence)),
  )
  return ends[0]!.end === ends[1]!.end ? { ...older, insteadOf: newest } : newest
}

/** Copies of unit pages that are damaged while the other is there: the store is to use that, and to bring them up. */
function noteCopies(base: Base, isStrict: boolean, findings: Findings): void {
  const { found, pages, insteadOf } = base
  const { geometry } = found
  const { units } = found.tree
  for (const index of insteadOf?.pages.lost.keys() ?? []) {
    const object = geometry.describeUnit(geometry.unitAt(index))
    const text = 'its page is damaged; the checkpoint before and the log say the same'
    findings.add({ severity: 'warning', object, text, volumes: [], repairable: true })
  }
  const note = (index: UnitIndex, which: string): void => {
    const object = geometry.describeUnit(geometry.unitAt(index))
    const text = `${which} copy of its page is damaged; the other is the same`
    findings.add({ severity: 'warning', object, text, volumes: [], repairable: true })
  }
  for (const index of pages.first) {
    note(index, 'the first')
    units.copy[index] = 1 - units.copy[index]!
    units.older[index] = 1
  }
  for (const index of pages.second) {
    if (isStrict) note(index, 'the second')
    units.older[index] = 1
  }
  for (const index of pages.misfit) {
    const object = geometry.describeUnit(geometry.unitAt(index))
    const text = 'its page and the unit map do not agree on its layer or count'
    findings.add({ severity: 'warning', object, text, volumes: [], repairable: true })
  }
}

function layersOfLost({ found, pages }: Base): LayerId[] {
  return [...pages.lost.keys()].map((index) => found.tree.units.layer[index] as LayerId)
}

async function lostUnits(
  { found: { tree, geometry }, pages }: Base,
  checkpoints: readonly FoundCheckpoint[],
  ring: LogRing,
): Promise<Map<UnitIndex, LostUnit>> {
  const indices = new Set(pages.lost.keys())
  const { sequence, logSequence } = tree.superblock
  const before = checkpoints.find(({ superblock }) => superblock.sequence < sequence)?.superblock
  const range = before && { from: before.logSequence, to: logSequence }
  const saved =
    range && indices.size > 0
      ? await saveFromLog(ring, geometry, range, tree.units, indices)
      : new Map<UnitIndex, Float64Array>()
  const lost = new Map<UnitIndex, LostUnit>()
  for (const [index, older] of pages.lost) {
    const layer = tree.units.layer[index] as LayerId
    lost.set(index, { index, layer, used: tree.units.used[index]!, saved: saved.get(index), older })
  }
  return lost
}

/** What the log changed, what was lost, and what was wrong: the last that is said of a unit counts. */
function allChanges(
  { state }: Replayed,
  lost: ReadonlyMap<UnitIndex, LostUnit>,
  corrections: readonly ReturnType<typeof freedUnit>[],
): ReturnType<typeof freedUnit>[] {
  const changes = new Map([...lost.keys()].map((index) => [index, freedUnit(index)]))
  for (const change of state.freezeChanges().list()) changes.set(change.index, change)
  for (const change of corrections) changes.set(change.index, change)
  return [...changes.values()]
}

function filesOf({ byNumber }: PoolDevices, { geometry }: FoundTree): DeviceFile[] {
  return geometry.devices.map(({ index }) => byNumber.get(index)!.file)
}

function unusable(devices: PoolDevices, found: FoundTree | undefined, findings: Findings): PoolCheck {
  const facts = factsOf(devices, found?.tree.catalog, undefined)
  return { ...facts, clean: false, usable: false, findings: findings.list(false) }
}

function factsOf(devices: PoolDevices, catalog: Catalog | undefined, replayed: Replayed | undefined) {
  const id = devices.poolId.toString('hex')
  const volumes = [...(catalog?.volumes.values() ?? [])].filter((volume) => !isWritten(volume))
  const { geometry, units } = replayed?.state ?? {}
  const unitBytes = geometry?.unitBytes ?? 0
  return {
    name: catalog?.name ?? id,
    id,
    devices: [...devices.byNumber].sort(([a], [b]) => a - b).map(([, { file }]) => file.path),
    volumes: volumes.length,
    snapshots: volumes.flatMap(({ snapshots }) => snapshots).filter(({ hidden }) => !hidden).length,
    sizeBytes: (geometry?.unitCount ?? 0) * unitBytes,
    allocatedBytes: (units?.ownedUnits ?? 0) * unitBytes,
    mappedBytes: (units?.usedSlots ?? 0) * (geometry?.blockBytes ?? 0),
  }
}
