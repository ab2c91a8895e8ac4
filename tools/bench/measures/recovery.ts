import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { AgentEvent } from '../../../src/api/agent-operations.js'
import { BenchAgent, delay, pair } from '../agents.js'
import { runFio } from '../fio.js'
import { applied, mirror } from '../streams.js'
import { makePooledVolume } from '../volumes.js'
import { fill } from './filling.js'
import { type FoundFigure, kindNote, type Measure, type MeasureSetting } from './measure.js'

const MiB = 2 ** 20
const stream = 'bench'
const journalMiB = [64, 256, 1024]
/** Small records are the harder case; where they are too slow to come between two checkpoints, larger ones do. */
const recordBytes = [4096, 65_536]
/** A stream checkpoints this often after its start; a write that meets one is tried again, so often. */
const checkpointMs = 5_000
const marginMs = 100
const attempts = 3
const enough = 0.95
const limitMs = 120_000

/** kill -9 with so much in the journal that is not known to be on the volume; until the volume can be used again. */
export const recoveryMeasure: Measure = {
  id: 'recovery',
  quick: false,
  figures: journalMiB.map((size) => ({
    id: `recovery-${size}`,
    title: `recovery after kill -9, ${size === 1024 ? '1 GiB' : `${size} MiB`} of journal to replay`,
    unit: 's',
  })),
  diskBytes: (volumeBytes) => 4 * volumeBytes + 6 * 2 ** 30,
  async run(setting, found) {
    const { folder, volumeBytes } = setting
    const between = join(folder, 'between')
    await mkdir(between)
    const destination = await BenchAgent.start(folder, 'destination')
    const source = await BenchAgent.start(folder, 'source')
    try {
      await pair(source, destination, { via: 'folder', folder: between })
      const { name, device } = await makePooledVolume(source, setting.kind, folder, volumeBytes)
      await fill({ device })
      await mirror(source, stream, name)
      for (const size of journalMiB) {
        found[`recovery-${size}`] = await measureOne(setting, source, name, size)
        await applied(source, stream)
      }
    } finally {
      await source.stop()
      await destination.stop()
    }
  },
}

async function measureOne(
  setting: MeasureSetting,
  source: BenchAgent,
  volume: string,
  sizeMiB: number,
): Promise<FoundFigure> {
  let most = 0
  for (const blockBytes of recordBytes) {
    const samples: number[] = []
    for (let attempt = 0; attempt < attempts + setting.rounds && samples.length < setting.rounds; attempt++) {
      const { milliseconds, replayedMiB } = await crash(source, volume, sizeMiB, blockBytes)
      most = Math.max(most, replayedMiB)
      if (replayedMiB >= enough * sizeMiB) samples.push(milliseconds / 1000)
      else if (attempt >= attempts && samples.length === 0) break
      setting.say(`recovery: ${replayedMiB.toFixed(0)} MiB in ${(milliseconds / 1000).toFixed(2)} s`)
    }
    if (samples.length > 0) return { samples, note: `records of ${blockBytes / 1024} KiB; ${kindNote(setting)}` }
  }
  return { samples: [], reason: `checkpoints came in between: at most ${most.toFixed(0)} MiB were left to replay` }
}

/** Write, kill, start again. The write has the whole time between two checkpoints. */
async function crash(
  source: BenchAgent,
  volume: string,
  sizeMiB: number,
  blockBytes: number,
): Promise<{ milliseconds: number; replayedMiB: number }> {
  await applied(source, stream)
  await source.stop()
  await source.start()
  const { device } = await source.api.get<{ device: string }>('volumes', volume)
  await delay(checkpointMs + marginMs)
  const count = (sizeMiB * MiB) / blockBytes
  const options = { rw: 'randwrite', bs: blockBytes, iodepth: 32, norandommap: 1, number_ios: count }
  await runFio({ device }, options, limitMs)
  await source.kill()
  const milliseconds = await source.start()
  return { milliseconds, replayedMiB: ((await replayedRecords(source)) * blockBytes) / MiB }
}

/** Of the last start alone. */
async function replayedRecords(source: BenchAgent): Promise<number> {
  const events: AgentEvent[] = []
  for (;;) {
    const after = String(events.at(-1)?.number ?? 0)
    const page = await source.api.call<AgentEvent[]>({ method: 'GET', path: ['events'], query: { after } })
    if (page.length === 0) break
    events.push(...page)
  }
  const starts = events.filter(({ code }) => code === 'AGENT_STARTED')
  const replay = events.findLast(({ code }) => code === 'JOURNAL_REPLAYED')
  if (!replay || replay.number < (starts.at(-2)?.number ?? 0)) return 0
  return Number(/^(\d+) records/.exec(replay.text)?.[1] ?? 0)
}
