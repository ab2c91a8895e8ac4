import { layerLimits, showingLayers } from './check-catalog.js'
import { type Findings, listed } from './check-findings.js'
import type { CountedPages } from './check-progress.js'
import type { LostUnit, Replayed } from './check-replay.js'
import { type BlockIndex, type LayerId, noLayer, type UnitIndex, unitIndex } from './geometry.js'
import { HoleSet } from './hole-set.js'
import { freeSlot, type UnitChange, usedSlots } from './unit-page.js'

/**
 * Look at what every unit holds, layer by layer, and reckon what it should hold.
 *
 * Found: units of layers that do not exist, wrong counts, blocks that a layer has twice, blocks beyond the end of what
 * shows them. Needs memory for the blocks of one layer.
 *
 * @param rewrite units that are written anew in any case
 * @returns what is to be written of units that are not as they should be
 */
export async function examineLayers(
  { state, loader }: Replayed,
  rewrite: ReadonlySet<UnitIndex>,
  findings: Findings,
  progress: CountedPages,
): Promise<UnitChange[]> {
  const { catalog, units, geometry } = state
  const corrections: UnitChange[] = []
  const limits = layerLimits(catalog, geometry.blockBytes)
  const showing = showingLayers(catalog)
  for (const [layer, owned] of unitsByLayer(state)) {
    if (!catalog.layers.has(layer)) {
      for (const index of owned) corrections.push(freedUnit(index))
      const object = geometry.describeUnit(geometry.unitAt(owned[0]!))
      const text = `${owned.length} units, this one first, belong to layer ${layer}, which does not exist: orphaned space`
      findings.add({ severity: 'warning', object, text, volumes: [], repairable: true })
      continue
    }
    const volumes = showing.get(layer) ?? []
    const twice = await blocksTwice({ state, loader }, owned, progress)
    const limit = limits.get(layer) ?? Number.POSITIVE_INFINITY
    const seen = new Set<number>()
    const again: number[] = []
    const beyond: number[] = []
    await loader.readUnits(owned, (index, blocks) => {
      progress.add(1)
      let isWrong = rewrite.has(index)
      if (units.used(index) !== usedSlots(blocks)) {
        const object = geometry.describeUnit(geometry.unitAt(index))
        const text = `${usedSlots(blocks)} slots are in use, ${units.used(index)} are counted`
        findings.add({ severity: 'warning', object, text, volumes, repairable: true })
        isWrong = true
      }
      for (let slot = 0; slot < blocks.length; slot += 1) {
        const block = blocks[slot]!
        if (block === freeSlot) continue
        const wrong = seen.has(block) ? again : block >= limit ? beyond : undefined
        if (twice.has(block)) seen.add(block)
        if (!wrong) continue
        wrong.push(block)
        blocks[slot] = freeSlot
        isWrong = true
      }
      if (isWrong) corrections.push(wholeUnit(index, layer, blocks))
    })
    const object = `layer ${layer}`
    if (again.length > 0) {
      const text = `blocks lie in two places, one of which is given up: ${listed(again)}`
      findings.add({ severity: 'error', object, text, volumes, repairable: true })
    }
    if (beyond.length > 0) {
      const text = `blocks beyond the end of the volume take space: ${listed(beyond)}`
      findings.add({ severity: 'warning', object, text, volumes: [], repairable: true })
    }
  }
  return corrections
}

/**
 * Say what is lost with units whose page is. Blocks of which an older copy of the page knew become holes: they read as
 * zeros, not as what a snapshot below has.
 */
export async function settleLost(
  { state, loader }: Replayed,
  lost: ReadonlyMap<UnitIndex, LostUnit>,
  findings: Findings,
): Promise<void> {
  const { catalog, geometry } = state
  const showing = showingLayers(catalog)
  for (const { index, layer, used, saved, older } of lost.values()) {
    const object = geometry.describeUnit(geometry.unitAt(index))
    const parent = catalog.layers.get(layer)
    if (parent === undefined) {
      const text = 'its page is damaged; what it held was removed since'
      findings.add({ severity: 'warning', object, text, volumes: [], repairable: true })
      continue
    }
    await loader.loadLayer(layer)
    const map = state.maps.get(layer)!
    const gone = [...(older ?? [])].filter((block) => block !== freeSlot && !map.has(block as BlockIndex))
    if (parent !== noLayer && gone.length > 0) {
      const holes = state.holes.get(layer) ?? new HoleSet()
      for (const block of gone) holes.add(block as BlockIndex, 1)
      state.holes.set(layer, holes)
    }
    const count = used - (saved ? usedSlots(saved) : 0)
    const known = gone.length > 0 ? `: ${listed(gone.sort((a, b) => a - b))}, which read as zeros` : ''
    const unknown = parent === noLayer ? 'zeros' : 'zeros or as in the snapshot below'
    const rest = gone.length < count ? `; ${count - gone.length} are not known by number and read as ${unknown}` : ''
    const text = `its page is damaged; up to ${count} blocks of ${geometry.blockBytes} bytes are lost${known}${rest}`
    findings.add({ severity: 'error', object, text, volumes: showing.get(layer) ?? [], repairable: true })
  }
  state.maps.clear()
}

/** Holes of layers that do not exist. */
export function dropStrayHoles({ state }: Replayed, findings: Findings): void {
  for (const layer of [...state.holes.keys()]) {
    if (state.catalog.layers.has(layer)) continue
    state.holes.delete(layer)
    const text = 'it does not exist and has holes'
    findings.add({ severity: 'warning', object: `layer ${layer}`, text, volumes: [], repairable: true })
  }
}

export function freedUnit(index: UnitIndex): UnitChange {
  return { index, layer: noLayer, whole: true, slots: [], blocks: [], used: 0 }
}

function wholeUnit(index: UnitIndex, layer: LayerId, blocks: Float64Array): UnitChange {
  const used = usedSlots(blocks)
  if (used === 0) return freedUnit(index)
  return { index, layer, whole: true, slots: blocks.map((_, slot) => slot), blocks: blocks.slice(), used }
}

/** Of layers that exist, and of others. */
function unitsByLayer({ units }: Replayed['state']): Map<LayerId, UnitIndex[]> {
  const byLayer = new Map<LayerId, UnitIndex[]>()
  for (let at = 0; at < units.length; at += 1) {
    const layer = units.owner(unitIndex(at))
    if (layer === noLayer) continue
    const owned = byLayer.get(layer)
    if (owned) owned.push(unitIndex(at))
    else byLayer.set(layer, [unitIndex(at)])
  }
  return byLayer
}

/** Blocks that more than one slot of these units has. */
async function blocksTwice(
  { state, loader }: Pick<Replayed, 'state' | 'loader'>,
  owned: readonly UnitIndex[],
  progress: CountedPages,
): Promise<Set<number>> {
  const all = new Float64Array(owned.length * state.geometry.blocksPerUnit)
  let count = 0
  await loader.readUnits(owned, (_, blocks) => {
    progress.add(1)
    for (const block of blocks) if (block !== freeSlot) all[count++] = block
  })
  const sorted = all.subarray(0, count).sort()
  const twice = new Set<number>()
  for (let at = 1; at < count; at += 1) if (sorted[at] === sorted[at - 1]) twice.add(sorted[at]!)
  return twice
}
