import t from 'tap'
import { GiB, KiB, MiB } from '../../src/block/units.js'
import { type FioResult, fio, startFio } from '../fixtures/fio.js'
import { ThinRig } from './thin-rig.js'

const TiB = 1024 * GiB
const blockBytes = 64 * KiB
const mappedBlocks = 100_000
const snapshots = 30
/** What the pool promises, and how far beyond it is not the machine's fault any more. */
const promised = { medianMs: 20, extraMs: 10 }
const slack = 3

/** Milliseconds within which 99 of 100 writes ended, and the slowest. */
function latency({ output }: FioResult): { p99: number; most: number; writes: number } {
  const text = output.slice(output.indexOf('{'), output.lastIndexOf('}') + 1)
  const { write } = JSON.parse(text).jobs[0] as {
    write: { total_ios: number; clat_ns: { max: number; percentile: Record<string, number> } }
  }
  const { clat_ns: times } = write
  return { p99: times.percentile['99.000000']! / 1e6, most: times.max / 1e6, writes: write.total_ios }
}

t.test(
  'snapshots of a 1 TiB volume with 100,000 mapped blocks take 20 ms, and running writes hardly notice',
  async (t) => {
    const rig = await ThinRig.create(t, 'thin-snapshots', { devices: [{ sizeBytes: 16 * GiB }] })
    const device = await rig.attach('busy', TiB)
    const apart = Math.floor(TiB / mappedBlocks / blockBytes) * blockBytes
    const filled = await fio(device, { rw: `write:${apart - 4096}`, bs: '4k', size: TiB, number_ios: mappedBlocks })
    t.equal(filled.errors, 0, filled.errors ? filled.output : 'no errors')
    const { mappedBytes } = await rig.child.pool('facts')
    t.equal(mappedBytes, mappedBlocks * blockBytes)

    const load = { rw: 'randwrite', bs: '4k', size: 64 * MiB, iodepth: 8, rate_iops: 4000, time_based: true as const }
    await fio(device, { rw: 'write', bs: '64k', size: 64 * MiB })
    const steady = latency(await fio(device, { ...load, runtime: 6 }))
    const running = startFio(device, { ...load, runtime: 600 })
    await new Promise((resolve) => setTimeout(resolve, 2000))
    const times: number[] = []
    for (let count = 0; count < snapshots; count++) {
      times.push(await rig.child.own('timedSnapshot', 'busy', `s${count}`))
      await new Promise((resolve) => setTimeout(resolve, 250))
    }
    const result = await running.stop()
    t.equal(result.errors, 0, result.errors ? result.output : 'no errors')
    const during = latency(result)
    times.sort((a, b) => a - b)
    const median = times[times.length >> 1]!
    const shown = (value: number) => value.toFixed(2)
    t.comment(`snapshot: median ${shown(median)} ms, slowest ${shown(times.at(-1)!)} ms`)
    t.comment(`p99 of 4 KiB writes: ${shown(steady.p99)} ms steady, ${shown(during.p99)} ms during`)
    t.comment(
      `slowest write: ${shown(steady.most)} ms steady, ${shown(during.most)} ms during, ${during.writes} writes`,
    )
    t.ok(median < promised.medianMs * slack, `${median} ms`)
    t.ok(during.p99 < steady.p99 + promised.extraMs * slack, `${during.p99} ms`)
    t.equal((await rig.child.pool('volume', 'busy')).snapshots.length, snapshots)
    await rig.detach('busy')
  },
)
