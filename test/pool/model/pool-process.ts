/** The process that has a pool open, for a parent that knows what must be in it. Calls come over IPC: child-calls.ts. */
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { errnoOf } from '../../../src/block/storage-error.js'
import { intercept } from '../../../src/intercept/intercept.js'
import { createPool } from '../../../src/pool/create-pool.js'
import type { Pool } from '../../../src/pool/pool.js'
import type { OpenThinVolume } from '../../../src/pool/thin-pool.js'
import { type OwnCalls, passedOn, type Reply, type Request } from './child-calls.js'
import { openPool } from './open-pool.js'

const threads = 2

let pool: Pool | undefined
const open = new Map<string, OpenThinVolume>()
const reported: { code: string; severity: string; text: string }[] = []

function thePool(): Pool {
  assert(pool, 'no pool is open')
  return pool
}

function at(mountPoint: string): OpenThinVolume {
  const volume = open.get(mountPoint)
  assert(volume, `nothing is open at ${mountPoint}`)
  return volume
}

/** Where what is served at a mount point is mounted for its loop device. */
function deviceOf(mountPoint: string): string {
  return `${mountPoint}.device`
}

async function openAt(
  mountPoint: string,
  volume: string,
  snapshot: string | null,
  readOnly: boolean,
): Promise<OpenThinVolume> {
  for (const file of [mountPoint, deviceOf(mountPoint)]) {
    await intercept.releaseStale(file)
    await writeFile(file, '', { flag: 'a' })
  }
  const onLost = (message: string): void => console.error(`${mountPoint} is lost: ${message}`)
  const opened = await thePool().open(volume, snapshot, { readOnly, threads, onLost })
  open.set(mountPoint, opened)
  return opened
}

/** One step of several failed: nothing stays open. */
async function orClose<T>(mountPoint: string, step: Promise<T>): Promise<T> {
  try {
    return await step
  } catch (error) {
    const opened = at(mountPoint)
    open.delete(mountPoint)
    await opened.close()
    throw error
  }
}

const calls: OwnCalls = {
  createPool,
  async openPool(paths, settings) {
    assert(!pool, 'a pool is open already')
    pool = await openPool(paths, settings, (event) => reported.push(event))
  },
  async closePool() {
    await thePool().close()
    pool = undefined
  },
  async serve(volume, snapshot, mountPoint, readOnly) {
    const opened = await openAt(mountPoint, volume, snapshot, readOnly)
    await orClose(mountPoint, opened.native.serve(mountPoint))
  },
  async beginToWrite(volume, snapshot) {
    const onLost = (message: string): void => console.error(`${volume}@${snapshot} is lost: ${message}`)
    await (await thePool().open(volume, snapshot, { readOnly: false, threads, onLost })).close()
  },
  attach: async (mountPoint) => (await at(mountPoint).native.attach(deviceOf(mountPoint))).device,
  detach: (mountPoint) => at(mountPoint).native.detach(),
  async close(mountPoint) {
    const opened = at(mountPoint)
    await opened.native.detach()
    await opened.native.unserve()
    await opened.close()
    open.delete(mountPoint)
  },
  async open(volume, snapshot, mountPoint, readOnly) {
    const opened = await openAt(mountPoint, volume, snapshot, readOnly)
    return (await orClose(mountPoint, opened.native.attach(deviceOf(mountPoint)))).device
  },
  counters: async (mountPoint) => ({ ...at(mountPoint).native.counters() }),
  nextMapped: async (mountPoint, offset) => at(mountPoint).nextMapped(offset) ?? null,
  process: async () => ({ residentBytes: process.memoryUsage.rss(), javascriptCalls: intercept.javascriptCalls() }),
  audit: () => thePool().audit(),
  settled: () => thePool().settled(),
  async timedSnapshot(volume, name) {
    const begin = performance.now()
    await thePool().createSnapshot(volume, name, { durable: false })
    return performance.now() - begin
  },
  async timedOpen(volume, mountPoint) {
    await writeFile(mountPoint, '', { flag: 'a' })
    const begin = performance.now()
    const device = await calls.open(volume, null, mountPoint, false)
    return { device, milliseconds: performance.now() - begin }
  },
  events: async () => reported.splice(0),
}

const known = new Map<string, (...parameters: never[]) => unknown>(Object.entries(calls))
for (const method of passedOn) {
  known.set(method, (...parameters: never[]) => (thePool()[method] as (...given: never[]) => unknown)(...parameters))
}

process.on('message', async ({ id, method, parameters }: Request) => {
  let reply: Reply
  try {
    const call = known.get(method)
    assert(call, `no method ${method}`)
    reply = { id, value: await call(...(parameters as never[])) }
  } catch (error) {
    const message = error instanceof Error ? (error.stack ?? error.message) : String(error)
    reply = { id, error: { code: errnoOf(error) ?? 'ERROR', message } }
  }
  process.send?.(reply)
})
// The parent closes in good order, or is gone.
process.on('disconnect', () => process.exit(0))
