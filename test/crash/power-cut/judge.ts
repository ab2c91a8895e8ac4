import { statSync } from 'node:fs'
import { sectorBytes } from '../../../src/block/units.js'
import type { WorkerCalls } from '../../../src/block/worker-calls.js'
import { readRecords } from '../../../src/journal/reader.js'
import { RegionMap } from '../../../src/journal/region-map.js'
import { checkPool } from '../../../src/pool/check.js'
import type { Shell } from '../../fixtures/shell.js'
import type { Random } from '../../pool/model/random.js'
import { type Recording, stampBlocks, volumes } from './recording.js'
import { Recovered, type RecoveredStream } from './recovered.js'
import { sectorIds } from './slot-host.js'

/** What one process has for all its cuts. */
export interface Workplace {
  /** A folder that no cut touches. */
  readonly run: string
  readonly shell: Shell
  readonly worker: WorkerCalls
  /** A judge is judged: the region record is worth nothing. */
  readonly forgetsRegions?: boolean
}

/** What is wrong with what the disk held after a cut, in words; nothing when all is well. Mounted. */
export async function judge(
  recording: Recording,
  position: number,
  clocks: readonly number[],
  random: Random,
  { run, shell, worker, forgetsRegions }: Workplace,
): Promise<string[]> {
  const wrong: string[] = []
  const { workload, logs, slots, snapshots, poolFile } = recording
  if (random.chance(0.3)) wrong.push(...(await checkOffline(poolFile, 'as the cut left it')))
  const recovered = await Recovered.open(recording, run, worker)
  const contents: Buffer[] = []
  try {
    const tornBlocks = workload.atomBytes < 4096
    for (const [at, kind] of volumes.entries()) {
      const powerCut = clocks[at]!
      await recovered.look(kind, async (path, bytes) => {
        const verdict = await shell.verify(path, logs[kind], { powerCut, tornBlocks, blocks: stampBlocks })
        if (!verdict.ok) wrong.push(`${kind}: ${JSON.stringify(verdict)}`)
        for (const text of slots[kind].judge(bytes, position, workload.atomBytes)) wrong.push(`${kind}: ${text}`)
        contents.push(bytes)
      })
    }
    const present = new Set(recovered.snapshots)
    for (const { name, madeAt } of snapshots) {
      if (madeAt <= position && !present.has(name)) wrong.push(`the snapshot ${name} is gone`)
    }
    if (recovered.stream) {
      const { caughtUp } = recovered.stream
      const none = forgetsRegions && caughtUp ? new RegionMap(caughtUp.layout) : caughtUp
      wrong.push(...judgeStream(recording, { ...recovered.stream, caughtUp: none }, contents, position))
    }
    wrong.push(...recovered.events.filter((text) => /damaged|failed|journal says/i.test(text)))
  } finally {
    await recovered.close()
  }
  wrong.push(...(await checkOffline(poolFile, 'recovered')))
  return wrong
}

async function checkOffline(poolFile: string, when: string): Promise<string[]> {
  const { clean, usable, findings } = await checkPool([poolFile])
  const texts = findings.map(({ severity, object, text }) => `pool ${when}: ${severity}: ${object}: ${text}`)
  if (texts.length === 0 && !(clean && usable)) texts.push(`pool ${when}: clean ${clean}, usable ${usable}`)
  return texts
}

/**
 * The far side holds what it has applied, or will get in the epochs that are cut; then what the journal holds behind them;
 * then the regions that are caught up. With all three it equals the volumes.
 */
function judgeStream(
  { stream }: Recording,
  { before, after, journal, journalFolder, caughtUp, endLsn, parts }: RecoveredStream,
  contents: readonly Buffer[],
  position: number,
): string[] {
  const wrong: string[] = []
  const { epochs } = stream!.far
  if (after.generation !== before.generation || after.phase !== 'running') wrong.push('the stream begins anew')
  if (after.catchUp?.untilEpoch !== 0 || !caughtUp) wrong.push('nothing is caught up')
  for (const { epoch, position: appliedAt } of epochs.values()) {
    if (appliedAt <= position && epoch > before.cutEpoch) wrong.push(`epoch ${epoch} was applied, and is forgotten`)
  }
  for (const { file, lengthBytes } of parts) {
    if (statSync(file, { throwIfNoEntry: false })?.size !== lengthBytes) wrong.push(`${file} is not whole`)
  }
  const base = epochs.get(before.cutEpoch)
  if (!base?.consistent || !caughtUp) return wrong
  const sectors = base.sectors.map((ids) => ids.slice())
  const { segmentBytes, id } = journal
  const from = BigInt(before.cutLsn) as typeof endLsn
  const range = { directory: journalFolder, journalId: id, segmentBytes, from, to: endLsn }
  for (const record of from < endLsn ? readRecords(range) : []) {
    if (record.type === 'marker') continue
    const ids = sectors[record.volume]!
    const first = record.offset / sectorBytes
    if (record.type === 'write') ids.set(sectorIds(record.payload), first)
    else ids.fill(0, first, first + record.lengthBytes / sectorBytes)
  }
  for (const { volume, offset, lengthBytes } of caughtUp.runs()) {
    const range = contents[volume]!.subarray(offset, offset + lengthBytes)
    sectors[volume]!.set(sectorIds(range), offset / sectorBytes)
  }
  for (const [volume, ids] of sectors.entries()) {
    const mine = sectorIds(contents[volume]!)
    const differ = ids.findIndex((value, at) => value !== mine[at])
    if (differ < 0) continue
    wrong.push(`volume ${volume}, offset ${differ * sectorBytes}: ${mine[differ]} here, ${ids[differ]} at the far side`)
  }
  return wrong
}
