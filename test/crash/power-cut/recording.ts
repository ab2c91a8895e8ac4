import { mkdirSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB } from '../../../src/block/units.js'
import { newPairing } from '../../../src/transport/pairing.js'
import { formatPairing } from '../../../src/transport/pairing-string.js'
import { Agent, delay } from '../../fixtures/agent.js'
import { type AtomBytes, anotherBoot, PowerCutDevice } from '../../fixtures/power-cut.js'
import { type StampWriteOptions, startStamp } from '../../fixtures/stamp.js'
import type { Random } from '../../pool/model/random.js'
import { FarSide } from './far-side.js'
import { SlotHost } from './slot-host.js'

/** Stamps from the start of each volume; the slots of the host that trims behind them. */
export const stampBlocks = (3 * MiB) / 4096
const slotsAt = 3 * MiB
const diskBytes = 512 * MiB

/** How hosts use the volumes, what lies on the disk, and what that disk never tears. */
export interface Workload {
  readonly name: string
  readonly fileSystem: 'ext4' | 'xfs'
  readonly atomBytes: AtomBytes
  readonly stream: boolean
  readonly linear: StampWriteOptions
  readonly thin: StampWriteOptions
}

export const workloads: readonly Workload[] = [
  {
    ...{ name: 'stream-ext4', fileSystem: 'ext4', atomBytes: 4096, stream: true },
    linear: { threads: 2, sizes: '4096', fsyncEvery: 1, rate: 400 },
    thin: { threads: 2, sizes: '16384', fsyncEvery: 32, rate: 700 },
  },
  {
    ...{ name: 'stream-xfs', fileSystem: 'xfs', atomBytes: 512, stream: true },
    linear: { threads: 2, sizes: '512-65536', fsyncEvery: 64, rate: 500 },
    thin: { threads: 2, sizes: '512-65536', fsyncEvery: 32, rate: 200 },
  },
  {
    ...{ name: 'alone-ext4', fileSystem: 'ext4', atomBytes: 4096, stream: false },
    linear: { threads: 2, sizes: '4096', fsyncEvery: 32, rate: 500 },
    thin: { threads: 2, sizes: '4096', fsyncEvery: 1, rate: 300 },
  },
]

/** Segments as small as they come, so that they are recycled, and few regions, so that their record rotates, all the time. */
export const config =
  'journal:\n  segment: 4MiB\n  limit: 32MiB\nregions:\n  size: 64KiB\n  limit: 2MiB\nbuffer:\n  limit: 64MiB\n'

export const volumes = ['linear', 'thin'] as const
export type VolumeKind = (typeof volumes)[number]

export interface Snapshot {
  readonly name: string
  readonly begunAt: number
  /** It was acknowledged by then. */
  readonly madeAt: number
}

/** All that was asked of the disk while an agent and its hosts were at work, and all that they were told. */
export interface Recording {
  readonly workload: Workload
  readonly device: PowerCutDevice
  /** The agent's state below the mount point; and the pool's file. */
  readonly state: string
  readonly poolFile: string
  /** Cuts are made between these positions. */
  readonly from: number
  readonly to: number
  readonly flushes: readonly number[]
  readonly logs: Readonly<Record<VolumeKind, string>>
  readonly names: Readonly<Record<VolumeKind, string>>
  readonly slots: Readonly<Record<VolumeKind, SlotHost>>
  readonly snapshots: readonly Snapshot[]
  readonly stream: { readonly name: string; readonly far: FarSide } | null
}

interface Teardown {
  teardown(done: () => Promise<void> | void): void
}

/** Run the workload for so long on a new power-cut device, in a folder below `base`. */
export async function record(
  test: Teardown,
  base: string,
  workload: Workload,
  random: Random,
  seconds: number,
): Promise<Recording> {
  const folder = join(base, workload.name)
  mkdirSync(folder)
  const device = await PowerCutDevice.start(folder, diskBytes, workload.atomBytes)
  test.teardown(() => device.close())
  await device.format(workload.fileSystem)
  await device.mount()
  anotherBoot(base)
  const configFile = join(folder, 'config.yaml')
  writeFileSync(configFile, config)
  const agent = await Agent.start(test, device.mountPoint, 'state', ['--config', configFile])
  const poolFile = join(device.mountPoint, 'pool.img')
  const pool = `pc-pool-${process.pid}`
  const names = { linear: `pc-linear-${process.pid}`, thin: `pc-thin-${process.pid}` }
  const devices = { linear: (await agent.volume(device.mountPoint, names.linear, '4MiB')).device, thin: '' }
  await agent.cli('pool', 'create', pool, '--file', poolFile, '--size', '128MiB', '--unit', '1MiB')
  await agent.cli('volume', 'create', names.thin, '--pool', pool, '--size', '4MiB')
  devices.thin = (await agent.cli<{ device: string }>('volume', 'attach', names.thin)).device
  const stream = workload.stream ? await startStream(agent, folder, names, device) : null

  const logs = { linear: join(folder, 'linear.log'), thin: join(folder, 'thin.log') }
  const slots = { linear: new SlotHost(slotsAt, MiB), thin: new SlotHost(slotsAt, MiB) }
  const stop = new AbortController()
  const writers = []
  for (const kind of volumes) {
    const options = { ...workload[kind], seed: random.next(), blocks: stampBlocks, seconds: 3600 }
    writers.push(startStamp(devices[kind], logs[kind], options))
  }
  await delay(100)
  for (const kind of volumes) await device.watch(logs[kind])
  const from = await device.position()
  const slotRuns = volumes.map((kind) => slots[kind].run(devices[kind], device.positionFile, random, stop.signal))
  const backings = [join(device.mountPoint, `${names.linear}.img`), poolFile]
  const writeback = writeBack(backings, random, stop.signal)
  const snapshots: Snapshot[] = []
  const deadline = performance.now() + seconds * 1000
  while (performance.now() < deadline) {
    const name = `s${snapshots.length}`
    const begunAt = await device.position()
    await agent.cli('snapshot', 'create', names.thin, name)
    snapshots.push({ name, begunAt, madeAt: await device.position() })
    await delay(Math.min(500, Math.max(0, deadline - performance.now())))
  }
  const to = await device.position()
  stop.abort()
  await Promise.all([...slotRuns, writeback])
  for (const writer of writers) {
    const { errno } = await writer.stop()
    if (errno !== 0) throw new Error(`a host was refused: errno ${errno}`)
  }
  await agent.killWithDevices()
  await stream?.far.close()
  await device.unmount()
  const flushes = await device.flushes(from, to)
  const places = { state: agent.state, poolFile }
  return { workload, device, ...places, from, to, flushes, logs, names, slots, snapshots, stream }
}

/** As the kernel does it when it likes: a backing is on the disk before the journal is. */
async function writeBack(files: readonly string[], random: Random, stop: AbortSignal): Promise<void> {
  while (!stop.aborted) {
    await delay(random.between(20, 200))
    const file = await open(random.pick(files), 'r')
    await file.datasync().finally(() => file.close())
  }
}

async function startStream(
  agent: Agent,
  folder: string,
  names: Record<VolumeKind, string>,
  device: PowerCutDevice,
): Promise<{ name: string; far: FarSide }> {
  const between = join(folder, 'between')
  mkdirSync(between)
  const pairing = newPairing({ kind: 'folder', directory: between })
  await agent.cli('destination', 'add', 'far', '--pairing', formatPairing(pairing))
  const name = `pc-stream-${process.pid}`
  const list = volumes.flatMap((kind) => ['--volume', names[kind]])
  const create = ['stream', 'create', name, ...list, '--destination', 'far', '--epoch', '100ms']
  const { id } = await agent.cli<{ id: string }>(...create)
  const far = new FarSide(folder, pairing, between, id, () => device.position())
  await agent.cli('stream', 'initialize', name, '--wait')
  return { name, far }
}
