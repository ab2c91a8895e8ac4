import { mkdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { runFio } from '../fio.js'
import { applied, mirror, startPair } from '../streams.js'
import { makePooledVolume } from '../volumes.js'
import { kindNote, type Measure } from './measure.js'

const blockBytes = 4096
/** Of one epoch: 24 MiB, less than an epoch may hold, so that none is cut before it is asked for. */
const writeCount = 6000
const stream = 'bench'
const limitMs = 60_000

/** Overwrites that hit few blocks often: an epoch has to send each block once. */
export const foldMeasure: Measure = {
  id: 'fold',
  quick: true,
  figures: [
    { id: 'zipf-excess', title: 'zipf overwrites: sent beyond the unique blocks of the epoch', unit: '%' },
    { id: 'fold-ratio', title: 'zipf overwrites: written for each byte that was sent', unit: 'x' },
  ],
  diskBytes: (volumeBytes) => 4 * volumeBytes,
  async run(setting, found) {
    const { folder } = setting
    const volumeBytes = Math.min(setting.volumeBytes, 256 * 2 ** 20)
    const between = join(folder, 'between')
    await mkdir(between)
    const sites = await startPair(folder, { via: 'folder', folder: between })
    const { source } = sites
    try {
      const { name, device } = await makePooledVolume(source, setting.kind, folder, volumeBytes)
      await mirror(source, stream, name, '10m')
      const [excess, ratio]: [number[], number[]] = [[], []]
      for (let round = 0; round < setting.rounds; round++) {
        const before = await source.stream(stream)
        const log = join(folder, 'offsets')
        const options = {
          rw: 'randwrite',
          bs: blockBytes,
          iodepth: 16,
          random_distribution: 'zipf:1.1',
          norandommap: 1,
          refill_buffers: 1,
          number_ios: writeCount,
          randseed: 1000 + round,
          write_iolog: log,
        }
        await runFio({ device }, options, limitMs)
        const after = await applied(source, stream)
        const unique = uniqueBlocks(await readFile(log, 'latin1'))
        await rm(log)
        const epochs = after.epoch.cut - before.epoch.cut
        if (epochs !== 1) throw new Error(`${epochs} epochs were cut where one was expected`)
        const raw = after.counters.rawBytes - before.counters.rawBytes
        const sent = after.counters.sentBytes - before.counters.sentBytes
        if (raw !== writeCount * blockBytes)
          throw new Error(`${raw} bytes were journaled, ${writeCount * blockBytes} written`)
        excess.push(100 * (sent / (unique * blockBytes) - 1))
        ratio.push(raw / sent)
      }
      const note = `${kindNote(setting)}; ${writeCount} writes an epoch, whole files counted, bytes that do not compress`
      found['zipf-excess'] = { samples: excess, note }
      found['fold-ratio'] = { samples: ratio, note }
    } finally {
      await sites.stop()
    }
  },
}

/** Different offsets that are written in one of fio's logs of its requests. */
export function uniqueBlocks(log: string): number {
  return new Set([...log.matchAll(/ write (\d+) \d+$/gm)].map((match) => match[1])).size
}
