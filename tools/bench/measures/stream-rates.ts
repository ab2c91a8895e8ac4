import { chmod, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { startVsftpd } from '../../../test/fixtures/ftp-servers/vsftpd.js'
import { type BenchAgent, delay } from '../agents.js'
import { type FioOptions, runFio } from '../fio.js'
import { type LagSample, lags } from '../lag.js'
import { peakResidentMiB } from '../processes.js'
import { median, quantile } from '../statistics.js'
import { applied, mirror, startPair } from '../streams.js'
import { makePooledVolume } from '../volumes.js'
import { fill, syncFolder } from './filling.js'
import { kindNote, type Measure } from './measure.js'

const MiB = 2 ** 20
const GiB = 2 ** 30
const stream = 'bench'
/** Unthrottled for so long (shorter in a quick run): what the device does while journal and buffer have room. */
const burstTimeMs = { full: 5_000, quick: 1_000 }
/** At each share of that rate for so long. */
const steadyTimeMs = { full: 30_000, quick: 5_000 }
const lookMs = 25
const shares = [25, 50, 75]
const write: FioOptions = { rw: 'randwrite', bs: '4k', iodepth: 32, norandommap: 1 }

/** A stream over loopback FTP under 4 KiB random writes: how fast it drains, and how far it lags behind. */
export const streamRatesMeasure: Measure = {
  id: 'replication',
  quick: false,
  figures: [
    { id: 'sustainable-iops', title: '4 KiB random writes with the stream on, depth 32, unthrottled', unit: 'iops' },
    { id: 'replication-rate', title: 'replication, journal to applied, no host writing', unit: 'MiB/s' },
    { id: 'replication-cpu', title: 'replication, processor time of both agents', unit: 's/GiB' },
    ...shares.flatMap((share) => [
      { id: `lag-p50-${share}`, title: `lag at ${share} % of that rate, median`, unit: 's' },
      { id: `lag-p99-${share}`, title: `lag at ${share} % of that rate, p99`, unit: 's' },
    ]),
    { id: 'loaded-memory', title: 'source agent under that load, most memory', unit: 'MiB' },
  ],
  diskBytes: (volumeBytes) => 4 * volumeBytes + 12 * GiB,
  async run(setting, found) {
    const { folder, volumeBytes, rounds, say } = setting
    const length = setting.quick ? 'quick' : 'full'
    const [burstMs, steadyMs] = [burstTimeMs[length], steadyTimeMs[length]]
    const root = join(folder, 'ftp')
    await mkdir(root)
    await chmod(folder, 0o755)
    const server = await startVsftpd({ root })
    try {
      const sites = await startPair(folder, { via: 'ftp', url: server.url, inbox: server.inbox })
      const { source, destination } = sites
      try {
        const { name, device } = await makePooledVolume(source, setting.kind, folder, volumeBytes)
        await fill({ device })
        await mirror(source, stream, name)
        const [rates, drains, costs]: [number[], number[], number[]] = [[], [], []]
        for (let round = 0; round < rounds; round++) {
          await syncFolder(folder)
          const { iops } = await runFio({ device }, { ...write, time_based: 1, runtime: `${burstMs}ms` }, burstMs)
          const { waitingBytes } = await source.stream(stream)
          const before = { ms: performance.now(), cpu: source.cpuSeconds + destination.cpuSeconds }
          await applied(source, stream)
          const seconds = (performance.now() - before.ms) / 1000
          rates.push(iops)
          drains.push(waitingBytes / MiB / seconds)
          costs.push((source.cpuSeconds + destination.cpuSeconds - before.cpu) / (waitingBytes / GiB))
          say(`replication: ${drains.at(-1)!.toFixed(0)} MiB/s`)
        }
        const note = `${kindNote(setting)}, loopback FTP; the server's own processor time is not in it`
        found['sustainable-iops'] = { samples: rates, note: `${burstMs / 1000} s each` }
        found['replication-rate'] = { samples: drains, note }
        found['replication-cpu'] = { samples: costs, note }
        for (const share of shares) {
          const rate = Math.round((median(rates) * share) / 100)
          const seen = await steady(source, device, rate, steadyMs)
          await applied(source, stream)
          const lagNote = `${rate} writes a second for ${steadyMs / 1000} s, looked at every ${lookMs} ms`
          found[`lag-p50-${share}`] = { samples: [quantile(seen, 0.5) / 1000], note: lagNote }
          found[`lag-p99-${share}`] = { samples: [quantile(seen, 0.99) / 1000], note: lagNote }
          say(`lag at ${share} %: p99 ${(quantile(seen, 0.99) / 1000).toFixed(2)} s`)
        }
        found['loaded-memory'] = { samples: [peakResidentMiB(source.pid)], note: 'since its start' }
      } finally {
        await sites.stop()
      }
    } finally {
      await server.stop()
    }
  },
}

/** Writes at a fixed rate; the lags seen meanwhile, milliseconds. */
async function steady(source: BenchAgent, device: string, rate: number, steadyMs: number): Promise<number[]> {
  const samples: LagSample[] = []
  let writing = true
  const look = async (): Promise<void> => {
    while (writing) {
      const { lsn } = await source.stream(stream)
      samples.push({ atMs: performance.now(), journaled: BigInt(lsn.journal), applied: BigInt(lsn.applied) })
      await delay(lookMs)
    }
  }
  const looking = look()
  try {
    const options = { ...write, time_based: 1, runtime: `${steadyMs}ms`, rate_iops: rate }
    await runFio({ device }, options, steadyMs)
  } finally {
    writing = false
    await looking
  }
  return lags(samples)
}
