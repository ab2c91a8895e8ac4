import { readFileSync, statSync } from 'node:fs'
import type { LentWorker } from '../../../src/block/lent-worker.js'
import { sectorBytes } from '../../../src/block/units.js'
import { type JournalRecord, readRecords } from '../../../src/journal/reader.js'
import { RegionMap } from '../../../src/journal/region-map.js'
import { checkPool } from '../../../src/pool/check.js'
import type { Shell } from '../../fixtures/shell.js'
import type { Random } from '../../pool/model/random.js'
import { type Recording, stampBlocks, type VolumeKind, volumes } from './recording.js'
import { Recovered, type RecoveredJournal, type RecoveredStream, readAll } from './recovered.js'
import { sectorIds } from './slot-host.js'

/** What one process has for all its cuts. */
export interface Workplace {
  /** In how many cuts a stream was found like this. */
  readonly found: Map<string, number>
  /** A folder that no cut touches. */
  readonly run: string
  readonly shell: Shell
  readonly recoverer: LentWorker
  /** A judge is judged: the region record is worth nothing. */
  readonly forgetsRegions?: boolean
  /** This cut came into the recovery from another one. */
  readonly inRecovery?: boolean
}

/** How it is said that a raw device, as the cut left it, lacks what its host was told is there. */
export const aloneText = 'linear, the device alone'

/** What is wrong with what the disk held after a cut, in words; nothing when all is well. Mounted. */
export async function judge(
  recording: Recording,
  position: number,
  clocks: readonly number[],
  random: Random,
  { run, shell, recoverer, found, forgetsRegions, inRecovery }: Workplace,
): Promise<string[]> {
  const wrong: string[] = []
  const { workload, logs, slots, snapshots, poolFile } = recording
  const judgeVolume = async (kind: VolumeKind, path: string, bytes: Buffer, what: string): Promise<void> => {
    const powerCut = clocks[volumes.indexOf(kind)]!
    // What hosts write in smaller pieces may be mixed where no flush covers it: src/replication/DESIGN.md, Catching up.
    const tornBlocks = workload.atomBytes < 4096 || Number.parseInt(workload[kind].sizes ?? '4096', 10) < 4096
    const verdict = await shell.verify(path, logs[kind], { powerCut, tornBlocks, blocks: stampBlocks })
    if (!verdict.ok) wrong.push(`${what}: ${JSON.stringify(verdict)}`)
    for (const text of slots[kind].judge(bytes, position, workload.atomBytes)) wrong.push(`${what}: ${text}`)
  }
  if (random.chance(0.3)) wrong.push(...(await checkOffline(poolFile, 'as the cut left it')))
  if (workload.secondDisk === 'volume' && !inRecovery) {
    // Whoever takes such a device away has no journal to replay. In the middle of a replay it may show what was there before.
    const { device } = recording.device.second!
    await judgeVolume('linear', device, await readAll(device, 'linear', workload.linearBytes), aloneText)
  }
  const recovered = await Recovered.open(recording, run, recoverer, random)
  const contents: Buffer[] = []
  try {
    for (const kind of volumes) {
      await recovered.look(kind, async (path, bytes) => {
        await judgeVolume(kind, path, bytes, kind)
        contents.push(bytes)
      })
    }
    const present = new Set(recovered.snapshots)
    for (const { name, madeAt } of snapshots) {
      if (madeAt <= position && !present.has(name)) wrong.push(`the snapshot ${name} is gone`)
    }
    if (recovered.stream) {
      const { caughtUp } = recovered.stream
      for (const state of statesOf(recovered.stream)) found.set(state, (found.get(state) ?? 0) + 1)
      const none = forgetsRegions && caughtUp ? new RegionMap(caughtUp.layout) : caughtUp
      wrong.push(...judgeStream(recording, { ...recovered.stream, caughtUp: none }, contents, position))
    }
    if (recording.stream && !recovered.stream) found.set('diverged', (found.get('diverged') ?? 0) + 1)
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
  recovered: RecoveredStream,
  contents: readonly Buffer[],
  position: number,
): string[] {
  const { before, after, journal, caughtUp, volumeBytes } = recovered
  const { far, initialisations } = stream!
  const wrong = far.reused.map((text) => `the far side: ${text}`)
  const acknowledged = initialisations.filter(({ acknowledgedAt }) => acknowledgedAt <= position).length
  if (before.phase === 'new' || before.phase === 'diverged') {
    // It has to be initialized again: honest only while that was under way.
    const begun = initialisations.filter(({ begunAt }) => begunAt <= position).length
    if (acknowledged === begun && begun > 0) wrong.push(`the stream is ${before.phase}: ${before.divergedReason}`)
    return wrong
  }
  wrong.push(...judgeBuffer(recovered))
  if (before.generation < acknowledged) wrong.push('an initialisation is forgotten')
  if (after.generation !== before.generation || after.phase !== 'running') wrong.push('the stream begins anew')
  if (after.cutEpoch !== before.cutEpoch || after.lastTag !== before.lastTag) wrong.push('epochs are forgotten')
  if (after.catchUp?.untilEpoch !== 0 || !caughtUp) wrong.push('nothing is caught up')
  for (const { generation, epoch, tag, position: appliedAt } of far.epochs) {
    if (generation === before.generation && epoch === before.cutEpoch && tag !== before.lastTag)
      wrong.push(`epoch ${epoch} is another at the far side`)
    if (appliedAt > position || generation < before.generation) continue
    if (generation > before.generation || epoch > before.cutEpoch)
      wrong.push(`epoch ${epoch} of generation ${generation} was applied, and is forgotten`)
  }
  const sent = new Map(recovered.epochs.map(({ epoch, parts }) => [epoch, parts]))
  const base = far.after(before.generation, before.cutEpoch, volumeBytes, (epoch) =>
    sent.get(epoch)?.map(({ file }) => readFileSync(file)),
  )
  if (!base)
    wrong.push(
      `of generation ${before.generation} an epoch up to ${before.cutEpoch} is neither at the far side (${far.known(before.generation)}) nor in the source buffer (${[...sent.keys()].join(', ')}); applied ${before.appliedEpoch}`,
    )
  if (!base || !caughtUp) return wrong
  if (base.tag !== undefined && base.tag !== before.lastTag) wrong.push('the chain of tags does not go on')
  const { sectors } = base
  for (const record of journal ? recordsFrom(journal, BigInt(before.cutLsn)) : []) {
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

function recordsFrom({ journal, directory, endLsn }: RecoveredJournal, cutLsn: bigint): Iterable<JournalRecord> {
  const from = cutLsn as typeof endLsn
  const { segmentBytes, id: journalId } = journal
  return from < endLsn ? readRecords({ directory, journalId, segmentBytes, from, to: endLsn }) : []
}

/** What a cut has interrupted, as the disk tells. */
function statesOf({ before, buffer: { leftOver, interrupted } }: RecoveredStream): string[] {
  const { phase, copy, catchUp, consistentEpoch, cutEpoch, stateEpoch } = before
  const isBegun = copy !== null && (copy.slot > 0 || copy.offset > 0)
  const states = [`phase ${phase}`]
  if (phase === 'running' && copy)
    states.push(`${isBegun ? 'in' : 'before'} ${catchUp ? 'a catch-up' : 'an initialisation'}`)
  if (phase === 'running' && !copy && consistentEpoch === 0) states.push('all copied, and no state')
  if (phase !== 'new' && consistentEpoch > 0 && cutEpoch > stateEpoch) states.push('in epochs that appear at once')
  if (interrupted !== 'nothing') states.push(interrupted)
  if (leftOver > 0) states.push('an epoch not committed')
  return states
}

/** Nothing but whole files of epochs that count, none of them missing up to the last one. */
function judgeBuffer({ before, epochs, files, buffer }: RecoveredStream): string[] {
  const wrong: string[] = buffer.wrong.map((text) => `the buffer: ${text}`)
  const known = new Set<string>()
  for (const { file, lengthBytes } of epochs.flatMap(({ parts }) => parts)) {
    known.add(file)
    if (statSync(file, { throwIfNoEntry: false })?.size !== lengthBytes) wrong.push(`${file} is not whole`)
  }
  for (const file of files) if (!known.has(file)) wrong.push(`${file} belongs to no epoch`)
  const numbers = epochs.map(({ epoch }) => epoch)
  const [first = before.cutEpoch + 1] = numbers
  if (numbers.some((number, at) => number !== first + at) || numbers.length !== before.cutEpoch + 1 - first)
    wrong.push(`epochs ${numbers.join(', ')} are there, ${before.cutEpoch} are cut`)
  return wrong
}
