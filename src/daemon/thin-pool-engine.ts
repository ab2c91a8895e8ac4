import { rm } from 'node:fs/promises'
import type { CheckProgressView } from '../api/agent-operations.js'
import type { ReportEvent } from '../block/event-log.js'
import { StorageError } from '../block/storage-error.js'
import { WorkerCalls } from '../block/worker-calls.js'
import { createPool } from '../pool/create-pool.js'
import { DeviceFile } from '../pool/device-file.js'
import { labelOffsets, pageBytes, superblockOffsets } from '../pool/geometry.js'
import { Pool } from '../pool/pool.js'
import { openDevices } from '../pool/pool-devices.js'
import type { AgentConfig } from './config.js'
import type { PoolCheckJob } from './pool-check.js'
import type { PoolEngine } from './pool-engine.js'

/** Pools as src/pool has them. A check reads much, so it has a thread of its own. */
export function thinPoolEngine(options: {
  readonly config: Pick<AgentConfig, 'poolWaitMs' | 'poolMarks' | 'direct'>
  readonly report: ReportEvent
}): PoolEngine {
  const { config, report } = options
  const checker = new WorkerCalls(new URL('./pool-check-worker.js', import.meta.url))
  return {
    create: (pool) => createPool(pool),
    open: (paths, failure) =>
      Pool.open(paths, {
        ...failure,
        report,
        direct: config.direct,
        waitForSpaceMs: config.poolWaitMs,
        marks: config.poolMarks,
      }),
    check: (paths, options, onProgress) =>
      checker.call('check', { paths, ...options } satisfies PoolCheckJob, (told) =>
        onProgress(told as CheckProgressView),
      ),
    identify,
    erase,
    close: () => checker.close(),
  }
}

async function identify(path: string): Promise<string | undefined> {
  try {
    const { poolId, byNumber } = await openDevices([path], 'read', false)
    for (const { file } of byNumber.values()) await file.close()
    return poolId.toString('hex')
  } catch (error) {
    // One that is cut short or too new is somebody's pool all the same, but nobody can say whose.
    if (error instanceof StorageError && error.code === 'NOT_A_POOL_DEVICE') return undefined
    throw error
  }
}

async function erase(path: string): Promise<void> {
  const device = await DeviceFile.open(path, 'write', true)
  try {
    for (const offset of [...labelOffsets, ...superblockOffsets]) await device.writeZeros(offset, pageBytes)
    await device.sync()
  } finally {
    await device.close()
  }
  if (!device.isBlockDevice) await rm(path)
}
