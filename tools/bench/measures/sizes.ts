import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { BenchAgent } from '../agents.js'
import { runFio } from '../fio.js'
import { median } from '../statistics.js'
import { makePool, newVolumeName, poolName } from '../volumes.js'
import { type Found, kindNote, type Measure, type MeasureSetting } from './measure.js'

const MiB = 2 ** 20
const GiB = 2 ** 30
const TiB = 2 ** 40
const sizes = [
  { name: '1GiB', bytes: GiB },
  { name: '1TiB', bytes: TiB },
  { name: '16TiB', bytes: 16 * TiB },
]
/** At the end of the volume: what is written there is all that it holds. */
const usedBytes = 256 * MiB

/** What a larger volume costs that holds no more data. */
export const sizesMeasure: Measure = {
  id: 'sizes',
  quick: false,
  figures: sizes.flatMap(({ name }) => [
    { id: `size-attach-${name}`, title: `volume of ${name}: attach`, unit: 'ms' },
    { id: `size-memory-${name}`, title: `volume of ${name}: memory it adds`, unit: 'MiB' },
    {
      id: `size-iops-${name}`,
      title: `volume of ${name}: 4 KiB random write in its last 256 MiB, depth 32`,
      unit: 'iops',
    },
  ]),
  diskBytes: () => 4 * GiB,
  async run(setting, found) {
    const agent = await BenchAgent.start(setting.folder, 'agent')
    try {
      if (setting.kind === 'thin') await makePool(agent, setting.folder, 3 * GiB)
      for (const { name, bytes } of sizes) Object.assign(found, await measureSize(setting, agent, name, bytes))
    } finally {
      await agent.stop()
    }
  },
}

async function measureSize(
  setting: MeasureSetting,
  agent: BenchAgent,
  name: string,
  sizeBytes: number,
): Promise<Found> {
  const ids = [`size-attach-${name}`, `size-memory-${name}`, `size-iops-${name}`] as const
  const file = join(setting.folder, `${name}.img`)
  const where = setting.kind === 'thin' ? { pool: poolName } : { path: file }
  const volume = newVolumeName()
  try {
    await agent.api.call({ method: 'POST', path: ['volumes'], body: { name: volume, ...where, size: sizeBytes } })
  } catch (error) {
    const reason = `the file system has no such file: ${error instanceof Error ? error.message : error}`
    return Object.fromEntries(ids.map((id) => [id, { samples: [], reason }]))
  }
  const before = agent.residentMiB
  const attaches: number[] = []
  let device = ''
  for (let round = 0; round < setting.rounds; round++) {
    if (round > 0) await agent.api.call({ method: 'POST', path: ['volumes', volume, 'detach'] })
    const startedAt = performance.now()
    device = await agent.attach(volume)
    attaches.push(performance.now() - startedAt)
  }
  const region = { offset: sizeBytes - usedBytes, size: usedBytes }
  await runFio({ device }, { ...region, rw: 'write', bs: '1m', iodepth: 8 }, 60_000)
  const iops: number[] = []
  for (let round = 0; round < setting.rounds; round++) {
    const options = { ...region, rw: 'randwrite', bs: '4k', iodepth: 32, norandommap: 1, time_based: 1, runtime: '2s' }
    iops.push((await runFio({ device }, options, 2000)).iops)
  }
  const memory = agent.residentMiB - before
  await agent.api.call({ method: 'POST', path: ['volumes', volume, 'detach'] })
  await rm(file, { force: true })
  setting.say(`volume of ${name}: attached in ${median(attaches).toFixed(0)} ms`)
  const note = `${kindNote(setting)} with 256 MiB of data`
  return {
    [ids[0]]: { samples: attaches, note },
    [ids[1]]: { samples: [memory], note },
    [ids[2]]: { samples: iops, note },
  }
}
