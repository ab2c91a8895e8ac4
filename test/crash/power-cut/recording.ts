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
import { type Course, type Initialisation, type Phase, runCourse, type Snapshot } from './courses.js'
import { FarSide } from './far-side.js'
import { SlotHost } from './slot-host.js'

/** Stamps from the start of each volume; the slots of the host that trims behind them. */
export const stampBlocks = (3 * MiB) / 4096
const slotsAt = 3 * MiB
const diskBytes = 512 * MiB
/** Of the second file system, where there is one. */
const secondBytes = 96 * MiB
const thinBytes = 4 * MiB

/** How hosts use the volumes, what happens meanwhile, what lies on the disk, and what that disk never tears. */
export interface Workload {
  readonly name: string
  readonly course: Course
  readonly fileSystem: 'ext4' | 'xfs'
  readonly atomBytes: AtomBytes
  readonly stream: boolean
  /** Absent: it has none. */
  readonly secondDisk?: 'file-system' | 'volume'
  /** Of the volume on a file, or on the second disk. A copy takes it in steps of 32 MiB. */
  readonly linearBytes: number
  readonly config: string
  readonly linear: StampWriteOptions
  readonly thin: StampWriteOptions
}

/** Few regions, so that their record rotates all the time; segments as small as they come. */
const rest = 'regions:\n  size: 64KiB\n  limit: 2MiB\nbuffer:\n  limit: 64MiB\n'
/** Checkpoints, and with them recycled segments, many in a recording; and a replay that is short. */
const config = `journal:\n  segment: 4MiB\n  limit: 32MiB\n  checkpoint: 200ms\n${rest}`
/** Next to no checkpoint: all that was ever journaled is replayed. */
const longReplay = `journal:\n  segment: 4MiB\n  limit: 32MiB\n${rest}`
/** Buffers that are soon full when the link ends. */
const smallBuffers =
  'journal:\n  segment: 4MiB\n  limit: 32MiB\n  checkpoint: 200ms\nregions:\n  size: 64KiB\n  limit: 2MiB\nbuffer:\n  limit: 12MiB\n'

const small = { linearBytes: 4 * MiB, config }
const ext4 = { fileSystem: 'ext4', atomBytes: 4096 } as const
const xfs = { fileSystem: 'xfs', atomBytes: 512 } as const
const flushing = { threads: 2, sizes: '4096', fsyncEvery: 1, rate: 400 }
const seldomFlushing = { threads: 2, sizes: '512-65536', fsyncEvery: 32, rate: 200 }

export const workloads: readonly Workload[] = [
  {
    ...{ name: 'stream-ext4', course: 'steady', ...ext4, stream: true, ...small },
    linear: flushing,
    thin: { threads: 2, sizes: '16384', fsyncEvery: 32, rate: 700 },
  },
  {
    ...{ name: 'stream-xfs', course: 'steady', ...xfs, stream: true, ...small },
    linear: { threads: 2, sizes: '512-65536', fsyncEvery: 64, rate: 500 },
    thin: seldomFlushing,
  },
  {
    ...{ name: 'alone-ext4', course: 'steady', ...ext4, stream: false, ...small },
    linear: { threads: 2, sizes: '4096', fsyncEvery: 32, rate: 500 },
    thin: { threads: 2, sizes: '4096', fsyncEvery: 1, rate: 300 },
  },
  {
    ...{ name: 'copies-ext4', course: 'copies', ...ext4, stream: true, linearBytes: 72 * MiB, config: smallBuffers },
    linear: flushing,
    thin: { threads: 2, sizes: '16384', fsyncEvery: 32, rate: 300 },
  },
  {
    ...{ name: 'moves-ext4', course: 'moves', ...ext4, stream: true, ...small, secondDisk: 'file-system' },
    linear: flushing,
    thin: seldomFlushing,
  },
  {
    ...{ name: 'raw-ext4', course: 'raw-device', ...ext4, stream: true, ...small, secondDisk: 'volume' },
    linear: flushing,
    thin: seldomFlushing,
  },
  {
    ...{ name: 'raw-xfs', course: 'raw-device', ...xfs, stream: true, ...small, secondDisk: 'volume' },
    config: `${config}volume:\n  direct: true\n`,
    linear: { threads: 2, sizes: '512-65536', fsyncEvery: 8, rate: 400 },
    thin: seldomFlushing,
  },
  {
    ...{ name: 'killed-ext4', course: 'killed', ...ext4, stream: true, ...small, config: longReplay },
    linear: flushing,
    thin: seldomFlushing,
  },
  {
    ...{ name: 'killed-xfs', course: 'killed', ...xfs, stream: true, ...small },
    linear: { threads: 2, sizes: '512-65536', fsyncEvery: 8, rate: 400 },
    thin: flushing,
  },
  {
    ...{ name: 'killed-alone', course: 'killed', ...ext4, stream: false, ...small },
    linear: seldomFlushing,
    thin: { threads: 2, sizes: '4096', fsyncEvery: 32, rate: 500 },
  },
  {
    ...{ name: 'failed-ext4', course: 'failed-flush', ...ext4, stream: true, ...small, config: longReplay },
    linear: flushing,
    thin: seldomFlushing,
  },
  {
    ...{ name: 'failed-xfs', course: 'failed-flush', ...xfs, stream: true, ...small, config: longReplay },
    linear: flushing,
    thin: seldomFlushing,
  },
  {
    ...{ name: 'failed-alone', course: 'failed-flush', ...ext4, stream: false, ...small },
    linear: flushing,
    thin: flushing,
  },
]

export const volumes = ['linear', 'thin'] as const
export type VolumeKind = (typeof volumes)[number]

/** All that was asked of the disk while an agent and its hosts were at work, and all that they were told. */
export interface Recording {
  readonly workload: Workload
  readonly device: PowerCutDevice
  /** The agent's state below the mount point; and the pool's file. */
  readonly state: string
  readonly poolFile: string
  readonly phases: readonly (Phase & { readonly flushes: readonly number[] })[]
  readonly logs: Readonly<Record<VolumeKind, string>>
  readonly names: Readonly<Record<VolumeKind, string>>
  readonly slots: Readonly<Record<VolumeKind, SlotHost>>
  readonly snapshots: readonly Snapshot[]
  readonly stream: RecordedStream | null
}

export interface RecordedStream {
  readonly name: string
  readonly far: FarSide
  /** Those under load; the first of all counts as well. */
  readonly initialisations: readonly Initialisation[]
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
  const { secondDisk } = workload
  const beside = secondDisk === undefined ? 0 : { volume: workload.linearBytes, 'file-system': secondBytes }[secondDisk]
  const device = await PowerCutDevice.start(folder, diskBytes, workload.atomBytes, beside)
  test.teardown(() => device.close())
  await device.format(workload.fileSystem)
  if (secondDisk === 'file-system') await device.formatSecond(workload.fileSystem)
  await device.mount()
  anotherBoot(base)
  const configFile = join(folder, 'config.yaml')
  writeFileSync(configFile, workload.config)
  const agent = await Agent.start(test, device.mountPoint, 'state', ['--config', configFile])
  const poolFile = join(device.mountPoint, 'pool.img')
  const pool = `pc-pool-${process.pid}`
  const names = { linear: `pc-linear-${process.pid}`, thin: `pc-thin-${process.pid}` }
  const isRaw = secondDisk === 'volume'
  const linear = isRaw
    ? await adopt(agent, names.linear, device.second!.device)
    : await agent.volume(device.mountPoint, names.linear, `${workload.linearBytes}`)
  const devices = { linear: linear.device, thin: '' }
  await agent.cli('pool', 'create', pool, '--file', poolFile, '--size', '128MiB', '--unit', '1MiB')
  await agent.cli('volume', 'create', names.thin, '--pool', pool, '--size', `${thinBytes}`)
  devices.thin = (await agent.cli<{ device: string }>('volume', 'attach', names.thin)).device
  const slots = {
    linear: new SlotHost(slotsAt, workload.linearBytes - slotsAt),
    thin: new SlotHost(slotsAt, thinBytes - slotsAt),
  }
  const initialisations: Initialisation[] = []
  const isCopied = workload.course === 'copies'
  const stream = workload.stream ? await startStream(agent, folder, names, device, initialisations, !isCopied) : null

  const logs = { linear: join(folder, 'linear.log'), thin: join(folder, 'thin.log') }
  const stop = new AbortController()
  const writers = []
  for (const kind of volumes) {
    const options = { ...workload[kind], seed: random.next(), blocks: stampBlocks, seconds: 3600 }
    writers.push(startStamp(devices[kind], logs[kind], options))
  }
  for (const kind of volumes) await device.watch(logs[kind])
  const slotRuns = volumes.map((kind) => slots[kind].run(devices[kind], device.positionFile, random, stop.signal))
  // A device gets nothing but what the agent asks for: its syncs are what is looked at.
  const writeback = writeBack(isRaw ? [poolFile] : [linear.path, poolFile], random, stop.signal)
  const hosts = Promise.allSettled([...slotRuns, writeback])
  if (isCopied) await slots.linear.fillSome()
  const phases: Phase[] = []
  const snapshots: Snapshot[] = []
  const noted = { phases, snapshots, initialisations }
  await runCourse(workload.course, {
    agent,
    device,
    random,
    seconds,
    thin: names.thin,
    slots: slots.linear,
    stream,
    ...noted,
  })
  // Where a flush has failed hosts may wait for an agent that is at its end.
  const maySuffer = workload.course === 'failed-flush'
  if (maySuffer) await agent.killWithDevices()
  stop.abort()
  for (const host of await hosts) if (host.status === 'rejected' && !maySuffer) throw host.reason
  for (const writer of writers) {
    const { errno } = await writer.stop()
    if (errno !== 0 && !maySuffer) throw new Error(`a host was refused: errno ${errno}`)
  }
  if (!maySuffer) await agent.killWithDevices()
  await stream?.far.close()
  await device.mend()
  await device.unmount()
  const withFlushes = phases.map(async (each) => ({ ...each, flushes: await device.flushes(each.from, each.to) }))
  const places = { state: agent.state, poolFile }
  return { workload, device, ...places, phases: await Promise.all(withFlushes), logs, names, slots, snapshots, stream }
}

async function adopt(agent: Agent, name: string, path: string): Promise<{ device: string; path: string }> {
  await agent.cli('volume', 'adopt', name, '--path', path)
  const { device } = await agent.cli<{ device: string }>('volume', 'attach', name)
  return { device, path }
}

/** As the kernel does it when it likes: a backing is on the disk before the journal is. */
async function writeBack(files: readonly string[], random: Random, stop: AbortSignal): Promise<void> {
  while (!stop.aborted) {
    await delay(random.between(20, 200))
    const file = await open(random.pick(files), 'r')
    await file.datasync().finally(() => file.close())
  }
}

/** @param initialized before hosts are at work */
async function startStream(
  agent: Agent,
  folder: string,
  names: Record<VolumeKind, string>,
  device: PowerCutDevice,
  initialisations: Initialisation[],
  initialized: boolean,
): Promise<RecordedStream & { readonly between: string }> {
  const between = join(folder, 'between')
  mkdirSync(between)
  const pairing = newPairing({ kind: 'folder', directory: between })
  await agent.cli('destination', 'add', 'far', '--pairing', formatPairing(pairing))
  const name = `pc-stream-${process.pid}`
  const list = volumes.flatMap((kind) => ['--volume', names[kind]])
  const create = ['stream', 'create', name, ...list, '--destination', 'far', '--epoch', '100ms']
  const { id } = await agent.cli<{ id: string }>(...create)
  const far = new FarSide(folder, pairing, between, id, () => device.position())
  if (initialized) {
    await agent.cli('stream', 'initialize', name, '--wait')
    initialisations.push({ begunAt: 0, acknowledgedAt: 0 })
  }
  return { name, far, between, initialisations }
}
