import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { BenchAgent, delay } from '../agents.js'
import { runFio } from '../fio.js'
import { makePool, makeVolume } from '../volumes.js'
import { type Found, kindNote, type Measure, type MeasureSetting } from './measure.js'

const MiB = 2 ** 20
const volumeBytes = 64 * MiB
const settleMs = 5_000
/** V8 collects what a start has left about 15 s after it: 0.2 s of processor time, once. */
const collectedMs = 25_000
const counts = [1, 16, 128]
const quickCounts = [1, 128]

/** Agents that have nothing to do, and what having more volumes costs. */
export const idleMeasure: Measure = {
  id: 'idle',
  quick: true,
  figures: [
    { id: 'rest-memory', title: 'agent at rest, no volume', unit: 'MiB' },
    { id: 'start-0', title: 'start of the agent, no volume', unit: 'ms' },
    ...counts.flatMap((count) => {
      const words = count === 1 ? 'one idle volume' : `${count} idle volumes`
      const quick = quickCounts.includes(count)
      return [
        { id: `idle-cpu-${count}`, title: `${words}: processor`, unit: '%', quick },
        { id: `idle-memory-${count}`, title: `${words}: memory`, unit: 'MiB', quick },
        { id: `attach-${count}`, title: `${words}: making and attaching one`, unit: 'ms', quick },
        { id: `start-${count}`, title: `${words}: start of the agent, all attached`, unit: 'ms', quick },
        {
          id: `volumes-iops-${count}`,
          title: `${words}: 4 KiB random write on one, depth 32`,
          unit: 'iops',
          quick: false,
        },
      ]
    }),
  ],
  diskBytes: () => 1024 * MiB,
  async run(setting, found) {
    const empty = await BenchAgent.start(setting.folder, 'empty')
    try {
      await delay(settleMs)
      found['rest-memory'] = { samples: [empty.residentMiB], note: 'resident, shared pages included' }
      await empty.stop()
      const starts: number[] = []
      for (let round = 0; round < setting.rounds; round++) {
        starts.push(await empty.start())
        await empty.stop()
      }
      found['start-0'] = { samples: starts }
    } finally {
      await empty.stop()
    }
    for (const count of setting.quick ? quickCounts : counts) {
      await withVolumes(setting, found, count)
      setting.say(`${count} idle volumes: ${found[`idle-memory-${count}`]?.samples[0]?.toFixed(0)} MiB`)
    }
  },
}

async function withVolumes(setting: MeasureSetting, found: Found, count: number): Promise<void> {
  const folder = join(setting.folder, `volumes-${count}`)
  await mkdir(folder)
  const agent = await BenchAgent.start(setting.folder, `with-${count}`)
  const note = kindNote(setting)
  const idleMs = setting.quick ? 5_000 : 60_000
  try {
    const attaches: number[] = []
    let device = ''
    if (setting.kind === 'thin') await makePool(agent, folder, 1024 * MiB)
    for (let index = 0; index < count; index++) {
      const before = performance.now()
      device = (await makeVolume(agent, setting.kind, folder, volumeBytes)).device
      attaches.push(performance.now() - before)
    }
    await delay(setting.quick ? settleMs : collectedMs)
    const cpu = agent.exactCpuSeconds
    await delay(idleMs)
    const used = agent.exactCpuSeconds - cpu
    Object.assign(found, {
      [`idle-cpu-${count}`]: { samples: [(100 * used) / (idleMs / 1000)], note: `${note}; ${idleMs / 1000} s` },
      [`idle-memory-${count}`]: { samples: [agent.residentMiB], note },
      [`attach-${count}`]: { samples: attaches, note },
    } satisfies Found)
    if (!setting.quick) {
      const options = { rw: 'randwrite', bs: '4k', iodepth: 32, norandommap: 1, time_based: 1, runtime: '3s' }
      const samples: number[] = []
      for (let round = 0; round < setting.rounds; round++) samples.push((await runFio({ device }, options, 3000)).iops)
      found[`volumes-iops-${count}`] = { samples, note }
    }
    await agent.stop()
    found[`start-${count}`] = { samples: [await agent.start()], note }
  } finally {
    await agent.stop()
  }
}
