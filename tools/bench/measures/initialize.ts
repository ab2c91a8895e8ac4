import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { until } from '../agents.js'
import { applied, initialize, startPair } from '../streams.js'
import { makePooledVolume } from '../volumes.js'
import { fill, syncFolder } from './filling.js'
import { type Found, kindNote, type Measure } from './measure.js'

const GiB = 2 ** 30
const MiB = 2 ** 20
const limitMs = 300_000
/** Each look costs the agent a little, and is in the figure. */
const lookMs = 50
const stream = 'bench'

/** The first copy of a full volume into a folder: compression and sealing on, the destination stopped, then running. */
export const initializeMeasure: Measure = {
  id: 'initialize',
  quick: true,
  figures: [
    { id: 'initialize-rate', title: 'initialize into a local folder', unit: 'MiB/s' },
    { id: 'initialize-cpu', title: 'initialize, processor time of the source agent and its worker', unit: 's/GiB' },
    {
      id: 'initialize-applied-rate',
      title: 'initialize until it is applied, both agents on this machine',
      unit: 'MiB/s',
      quick: false,
    },
    {
      id: 'initialize-applied-cpu',
      title: 'initialize until it is applied, processor time of both agents',
      unit: 's/GiB',
      quick: false,
    },
  ],
  // The volume, the source buffer and the folder's files of two generations, the destination's two images.
  diskBytes: (volumeBytes) => 8 * volumeBytes,
  async run(setting, found) {
    const { folder, volumeBytes, quick, rounds } = setting
    const between = join(folder, 'between')
    await mkdir(between)
    const sites = await startPair(folder, { via: 'folder', folder: between })
    const { source, destination } = sites
    try {
      const { name, device } = await makePooledVolume(source, setting.kind, folder, volumeBytes)
      await fill({ device })
      const body = { name: stream, volumes: [name], destination: 'far', epoch: '1s' }
      await source.api.call({ method: 'POST', path: ['streams'], body })
      await destination.stop()
      const sent: Sample[] = []
      for (let round = 0; round < rounds; round++) {
        await syncFolder(folder)
        const { generation } = await source.stream(stream)
        const before = { seconds: performance.now() / 1000, cpu: source.cpuSeconds }
        await initialize(source, stream)
        await until(
          () => source.stream(stream),
          (view) =>
            view.generation > generation &&
            view.initialize?.doneBytes === volumeBytes &&
            view.epoch.cut > 0 &&
            view.epoch.sent === view.epoch.cut,
          limitMs,
          lookMs,
        )
        sent.push(sampleOf(before, source.cpuSeconds, volumeBytes))
        setting.say(`initialize: ${sent.at(-1)!.rate.toFixed(0)} MiB/s`)
        // Nobody takes them away: the destination is stopped.
        await rm(between, { recursive: true })
        await mkdir(between)
      }
      Object.assign(found, figuresOf('initialize', sent, `${kindNote(setting)}, destination stopped`))
      if (quick) return
      await destination.start()
      const arrived: Sample[] = []
      for (let round = 0; round < rounds; round++) {
        await syncFolder(folder)
        const before = { seconds: performance.now() / 1000, cpu: source.cpuSeconds + destination.cpuSeconds }
        await initialize(source, stream)
        await applied(source, stream)
        arrived.push(sampleOf(before, source.cpuSeconds + destination.cpuSeconds, volumeBytes))
      }
      Object.assign(found, figuresOf('initialize-applied', arrived, kindNote(setting)))
    } finally {
      await sites.stop()
    }
  },
}

interface Sample {
  readonly rate: number
  readonly cpu: number
}

function sampleOf(before: { seconds: number; cpu: number }, cpu: number, bytes: number): Sample {
  const seconds = performance.now() / 1000 - before.seconds
  return { rate: bytes / MiB / seconds, cpu: (cpu - before.cpu) / (bytes / GiB) }
}

function figuresOf(name: string, samples: readonly Sample[], note: string): Found {
  return {
    [`${name}-rate`]: { samples: samples.map(({ rate }) => rate), note },
    [`${name}-cpu`]: { samples: samples.map(({ cpu }) => cpu), note },
  }
}
