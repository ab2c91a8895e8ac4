import { type FioOptions, type FioTarget, runFio } from '../fio.js'
import { run } from '../rows/programs.js'

const limitMs = 300_000

/** Once over the whole volume, with bytes that no compression makes smaller. */
export async function fill(target: FioTarget, options: FioOptions = {}): Promise<void> {
  await runFio(target, { rw: 'write', bs: '1m', iodepth: 8, refill_buffers: 1, ...options }, limitMs)
}

/** Nothing of what was written before is still on its way to the disk. */
export async function syncFolder(folder: string): Promise<void> {
  await run('sync', '--file-system', folder)
}
