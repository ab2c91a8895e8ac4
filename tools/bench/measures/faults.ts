import { mkdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { repositoryRoot } from '../../../test/fixtures/paths.js'
import { BenchAgent, NotAvailable, pair, until } from '../agents.js'
import type { EventLoopDelay } from '../event-loop-probe.js'
import { runFio } from '../fio.js'
import { mirror } from '../streams.js'
import { makePool, makeVolume } from '../volumes.js'
import { syncFolder } from './filling.js'
import type { Found, Measure } from './measure.js'

const MiB = 2 ** 20
const GiB = 2 ** 30
const blockBytes = 64 * 1024
/** Blocks touched for the first time in one round. */
const faultCount = 16_384
const stripeBytes = faultCount * blockBytes
const mirroredBytes = 256 * MiB
/** Of the volume that is replicated meanwhile. */
const mirroredRate = 2_000
const limitMs = 120_000

/** First writes to blocks of a thin volume, one fault each, while another volume of the agent is replicated. */
export const faultsMeasure: Measure = {
  id: 'faults',
  quick: false,
  figures: [
    { id: 'fault-rate', title: 'faults, one 4 KiB write to each new block, replication running', unit: 'faults/s' },
    { id: 'fault-p50', title: 'such a write, median latency at its device', unit: 'ms' },
    { id: 'fault-p99', title: 'such a write, p99 latency at its device', unit: 'ms' },
    { id: 'event-loop-p99', title: 'event-loop delay of the thread that answers faults, p99', unit: 'ms' },
  ],
  diskBytes: () => 12 * GiB,
  async run(setting, found) {
    if (setting.kind !== 'thin') throw new NotAvailable('this build has no thin pools')
    const { folder } = setting
    const [between, delayFile] = [join(folder, 'between'), join(folder, 'event-loop.json')]
    await mkdir(between)
    const probe = pathToFileURL(join(repositoryRoot, 'dist/tools/bench/event-loop-probe.js'))
    const environment = { NODE_OPTIONS: `--import=${probe}`, TIDEMARK_EVENT_LOOP_FILE: delayFile }
    const destination = await BenchAgent.start(folder, 'destination')
    const source = await BenchAgent.start(folder, 'source', { environment })
    try {
      await pair(source, destination, { via: 'folder', folder: between })
      await makePool(source, folder, (setting.rounds + 1) * stripeBytes + 2 * mirroredBytes + GiB)
      const fresh = await makeVolume(source, 'thin', folder, setting.rounds * stripeBytes)
      const mirrored = await makeVolume(source, 'thin', folder, mirroredBytes)
      await mirror(source, 'bench', mirrored.name)
      const [rates, p50s, p99s, delays]: [number[], number[], number[], number[]] = [[], [], [], []]
      for (let round = 0; round < setting.rounds; round++) {
        await syncFolder(folder)
        const steady = { rw: 'randwrite', bs: '4k', iodepth: 8, norandommap: 1, rate_iops: mirroredRate }
        const replicated = runFio({ device: mirrored.device }, { ...steady, time_based: 1, runtime: '4s' }, 4000)
        await new Promise((resolve) => setTimeout(resolve, 1500))
        await eventLoopDelay(source, delayFile)
        const figures = await runFio(
          { device: fresh.device },
          {
            // Four kilobytes, then on to the next block.
            rw: `write:${blockBytes / 1024 - 4}k`,
            bs: '4k',
            iodepth: 64,
            offset: round * stripeBytes,
            size: stripeBytes,
            number_ios: faultCount,
          },
          limitMs,
        )
        delays.push((await eventLoopDelay(source, delayFile)).p99Ms)
        await replicated
        rates.push(figures.iops)
        p50s.push(figures.p50Us / 1000)
        p99s.push(figures.p99Us / 1000)
        setting.say(`faults: ${figures.iops.toFixed(0)}/s`)
      }
      const note = `${faultCount} blocks of 64 KiB, depth 64; ${mirroredRate} writes/s replicated meanwhile`
      Object.assign(found, {
        'fault-rate': { samples: rates, note },
        'fault-p50': { samples: p50s, note },
        'fault-p99': { samples: p99s, note },
        'event-loop-p99': { samples: delays, note: 'while the faults came' },
      } satisfies Found)
    } finally {
      await source.stop()
      await destination.stop()
    }
  },
}

/** Since the last call. */
async function eventLoopDelay(agent: BenchAgent, file: string): Promise<EventLoopDelay> {
  await rm(file, { force: true })
  process.kill(agent.pid, 'SIGUSR2')
  const text = await until(
    () => readFile(file, 'utf8').catch(() => ''),
    (content) => content !== '',
    10_000,
  )
  return JSON.parse(text) as EventLoopDelay
}
