import { join } from 'node:path'
import type { BenchAgent } from './agents.js'

const GiB = 2 ** 30

export type VolumeKind = 'linear' | 'thin'

export interface MadeVolume {
  readonly name: string
  readonly device: string
}

/** The one pool an agent of the bench has. */
export const poolName = 'bench'

let made = 0

/** Not the name of a volume of another agent on this machine: they share /dev/tidemark. */
export function newVolumeName(): string {
  made += 1
  return `bench-${process.pid}-${made}`
}

/**
 * A new empty volume, attached: in a file of its own, or thin in the agent's pool.
 *
 * @throws NotAvailable in a build without pools
 */
export async function makeVolume(
  agent: BenchAgent,
  kind: VolumeKind,
  folder: string,
  sizeBytes: number,
): Promise<MadeVolume> {
  const name = newVolumeName()
  const place = kind === 'thin' ? { pool: poolName } : { path: join(folder, `${name}.img`) }
  await agent.api.call({ method: 'POST', path: ['volumes'], body: { name, ...place, size: sizeBytes } })
  return { name, device: await agent.attach(name) }
}

/** In a file of that size in the folder. @throws NotAvailable in a build without pools */
export async function makePool(agent: BenchAgent, folder: string, sizeBytes: number): Promise<void> {
  const size = String(Math.ceil(sizeBytes / GiB) * GiB)
  await agent.cli('pool', 'create', poolName, '--file', join(folder, 'pool.img'), '--size', size)
}

/** What a pool for one full volume of this size and a snapshot of it has room for. */
export function poolBytesFor(volumeBytes: number): number {
  return 2 * volumeBytes + GiB
}

/** A pool where one is needed, and one volume. */
export async function makePooledVolume(
  agent: BenchAgent,
  kind: VolumeKind,
  folder: string,
  sizeBytes: number,
): Promise<MadeVolume> {
  if (kind === 'thin') await makePool(agent, folder, poolBytesFor(sizeBytes))
  return makeVolume(agent, kind, folder, sizeBytes)
}
