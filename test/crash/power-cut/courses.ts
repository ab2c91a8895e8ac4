import { renameSync } from 'node:fs'
import type { StreamView } from '../../../src/api/agent-operations.js'
import { type Agent, delay } from '../../fixtures/agent.js'
import type { PowerCutDevice } from '../../fixtures/power-cut.js'
import type { Random } from '../../pool/model/random.js'
import { runMoves } from './moves.js'
import type { SlotHost } from './slot-host.js'

/**
 * What happens while hosts are at work: nothing but snapshots, with the volume on a file or on a device; the copies of a
 * stream (initialisation, mapping, catch-up, another initialisation); moves of its buffer; kill -9 of the agent, time and again,
 * and another one that goes on; a flush that the disk refuses, after which nobody is spared.
 */
export type Course = 'steady' | 'raw-device' | 'copies' | 'moves' | 'killed' | 'failed-flush'

/** Cuts are made between these positions of the power-cut device. */
export interface Phase {
  readonly name: string
  readonly from: number
  readonly to: number
}

export interface Snapshot {
  readonly name: string
  readonly begunAt: number
  /** It was acknowledged by then. */
  readonly madeAt: number
}

/** The stream began anew: asked for, and acknowledged. */
export interface Initialisation {
  readonly begunAt: number
  readonly acknowledgedAt: number
}

/** What a course works with, and what it notes. */
export interface Scene {
  readonly agent: Agent
  readonly device: PowerCutDevice
  readonly random: Random
  readonly seconds: number
  readonly thin: string
  /** The host of the volume on a file. */
  readonly slots: SlotHost
  readonly stream: { readonly name: string; readonly between: string } | null
  readonly phases: Phase[]
  readonly snapshots: Snapshot[]
  readonly initialisations: Initialisation[]
}

/** Four such tests beside each other, on two slow cores. */
const limitMs = 300_000
const killCount = 3
/** A journal is given up within so many requests before that can be seen. */
const requestsBefore = 400
/** How often the progress of a copy is asked for. */
const lookMs = 10
/** Its end is followed for so long. */
const afterwardsMs = 400

export function runCourse(course: Course, scene: Scene): Promise<void> {
  return {
    steady: runSteadily,
    'raw-device': runSteadily,
    copies: runCopies,
    moves: runMoves,
    killed: runWithKills,
    'failed-flush': runIntoFailure,
  }[course](scene)
}

async function runSteadily(scene: Scene): Promise<void> {
  await phase(scene, 'steady', () => takeSnapshots(scene, performance.now() + scene.seconds * 1000))
}

/** Hosts wait while there is no agent: what they were told before is in the memory of the machine, and goes with the power. */
async function runWithKills(scene: Scene): Promise<void> {
  const { agent, random, seconds } = scene
  const pauseMs = (): number => random.between(50, (seconds * 1000) / killCount)
  await takeSnapshots(scene, performance.now() + pauseMs())
  for (let kill = 1; kill <= killCount; kill++) {
    await phase(scene, `kill ${kill}`, async () => {
      await agent.kill()
      await agent.start()
    })
    await phase(scene, `after kill ${kill}`, () => takeSnapshots(scene, performance.now() + pauseMs()))
  }
}

/**
 * An initialisation; the link ends, so that the source buffer and the journal fill up and writes are mapped; everything is
 * touched, so that the catch-up has several epochs, too; another initialisation.
 */
async function runCopies(scene: Scene): Promise<void> {
  const { slots, stream } = scene
  const { between } = stream!
  await initializeUnderLoad(scene, 'initialize')
  await snapshot(scene)
  renameSync(between, `${between}-away`)
  await untilStream(scene, ({ state }) => state === 'mapping')
  const mapsAt = await scene.device.position()
  await delay(100)
  const to = await scene.device.position()
  scene.phases.push({ name: 'journal ends', from: mapsAt - requestsBefore, to })
  await phase(scene, 'mapping', async () => {
    await slots.trimAll()
    await snapshot(scene)
    await delay(200)
  })
  renameSync(`${between}-away`, between)
  await untilStream(scene, ({ state }) => state !== 'mapping')
  await phase(scene, 'catch-up', () => untilStream(scene, ({ catchUp }) => catchUp === null || catchUp.doneBytes > 0))
  await phase(scene, 'catch-up: in its middle', () =>
    untilStream(scene, ({ catchUp }) => catchUp === null || catchUp.doneBytes === catchUp.totalBytes),
  )
  await phase(scene, 'catch-up: all copied', async () => {
    await untilStream(scene, ({ state, catchUp }) => state === 'replicating' && catchUp === null)
    await delay(afterwardsMs)
  })
  await initializeUnderLoad(scene, 'initialize again')
}

async function initializeUnderLoad(scene: Scene, what: string): Promise<void> {
  const { agent, device, stream, initialisations } = scene
  await phase(scene, what, async () => {
    const begunAt = await device.position()
    await agent.cli('stream', 'initialize', stream!.name)
    initialisations.push({ begunAt, acknowledgedAt: await device.position() })
    await untilStream(scene, ({ initialize }) => initialize === null || initialize.doneBytes > 0)
  })
  await phase(scene, `${what}: in its middle`, () =>
    untilStream(scene, ({ initialize }) => initialize === null || initialize.doneBytes === initialize.totalBytes),
  )
  await phase(scene, `${what}: all copied`, async () => {
    await untilStream(scene, ({ state }) => state === 'replicating')
    await delay(afterwardsMs)
  })
}

export async function untilStream({ agent, stream }: Scene, holds: (view: StreamView) => boolean): Promise<void> {
  const deadline = performance.now() + limitMs
  for (;;) {
    const view = await agent.streamStatus(stream!.name)
    if (holds(view)) return
    if (performance.now() > deadline) throw new Error(`not within ${limitMs} ms: ${JSON.stringify(view)}`)
    await delay(lookMs)
  }
}

/** Whoever asked for the flush that failed is not spared: the agent, or the file system, may be at its end. */
async function runIntoFailure(scene: Scene): Promise<void> {
  const { device, random, seconds } = scene
  await takeSnapshots(scene, performance.now() + random.between(200, 600))
  await phase(scene, 'failed flush', async () => {
    const before = await device.failed()
    await device.fail('flush', random.below(30), random.pick([1, 1, 1, 3, 'all']))
    const deadline = performance.now() + limitMs
    while ((await device.failed()) === before) {
      if (performance.now() > deadline) throw new Error('nobody asks the disk for a flush')
      await delay(5)
    }
    await delay(random.between(100, seconds * 500))
  })
}

async function phase({ device, phases }: Scene, name: string, run: () => Promise<void>): Promise<void> {
  const from = await device.position()
  await run()
  phases.push({ name, from, to: await device.position() })
}

async function takeSnapshots(scene: Scene, deadlineMs: number): Promise<void> {
  while (performance.now() < deadlineMs) {
    await snapshot(scene)
    await delay(Math.min(500, Math.max(0, deadlineMs - performance.now())))
  }
}

async function snapshot({ agent, device, thin, snapshots }: Scene): Promise<void> {
  const name = `s${snapshots.length}`
  const begunAt = await device.position()
  await agent.cli('snapshot', 'create', thin, name)
  snapshots.push({ name, begunAt, madeAt: await device.position() })
}
