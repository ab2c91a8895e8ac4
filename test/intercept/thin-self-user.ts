import { openSync, writeSync } from 'node:fs'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { KiB, MiB } from '../../src/block/units.js'

/** An agent that serves a volume and writes to it in threads of its own, to be killed at any time. */
if (isMainThread) {
  const { intercept } = await import('../../src/intercept/intercept.js')
  const [backing, file] = process.argv.slice(2) as [string, string]
  const volume = intercept.openVolume({
    name: 'self',
    path: backing,
    sizeBytes: 0,
    direct: false,
    readOnly: false,
    syncBacking: false,
    threads: 2,
  })
  await volume.serve(file)
  const workers = Array.from({ length: 4 }, () => new Worker(new URL(import.meta.url), { workerData: file }))
  await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('message', resolve))))
  console.log('all write')
} else {
  const fd = openSync(workerData as string, 'r+')
  const bytes = Buffer.alloc(256 * KiB, 7)
  for (let written = 0; ; written += 1) {
    writeSync(fd, bytes, 0, bytes.length, (written * bytes.length) % (16 * MiB))
    if (written === 10) parentPort!.postMessage('writing')
  }
}
